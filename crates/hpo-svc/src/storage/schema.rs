//! The tables of Optuna's RDB storage, revision `v3.2.0.a` (Optuna 3.2 to 5.0), for both databases.
//!
//! They are made as Optuna makes them, with differences that it does not notice: ids of studies and trials are never used again,
//! since clients cache by id, integers are 64 bits wide on PostgreSQL, and an index finds a study's trials by their number. Tables
//! that Optuna made are left as they are; what they lack for ids is kept beside them.

use runtime_core::db::Migration;

/// The revision of the schema that we read and write; Optuna refuses any other.
pub(super) const REVISION: &str = "v3.2.0.a";

/// Optuna's schema, and what we add.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_optuna", sqlite: SQLITE, postgres: POSTGRES },
    Migration { name: "0002_trial_numbers", sqlite: TRIAL_NUMBERS, postgres: TRIAL_NUMBERS },
    Migration { name: "0003_ids", sqlite: IDS, postgres: "" },
    Migration { name: "0004_leases", sqlite: LEASES_SQLITE, postgres: LEASES_POSTGRES },
];

/// The next number of a study, and the first trial with a parameter, without a look at all its trials.
const TRIAL_NUMBERS: &str = "CREATE INDEX IF NOT EXISTS ix_quintet_trials_number ON trials (study_id, number);";

/// The highest ids that there were, for tables that Optuna made.
const IDS: &str =
    "CREATE TABLE quintet_ids (name VARCHAR(16) NOT NULL PRIMARY KEY, highest INTEGER NOT NULL) WITHOUT ROWID;";

/// The trials that clients of the storage proxy have begun, with some that have ended since.
const LEASES_SQLITE: &str = "CREATE TABLE quintet_leases (trial_id INTEGER NOT NULL PRIMARY KEY);";
const LEASES_POSTGRES: &str = "CREATE TABLE quintet_leases (trial_id BIGINT NOT NULL PRIMARY KEY);";

const SQLITE: &str = r#"
CREATE TABLE IF NOT EXISTS studies (
    study_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, study_name VARCHAR(512) NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS ix_studies_study_name ON studies (study_name);
CREATE TABLE IF NOT EXISTS version_info (
    version_info_id INTEGER NOT NULL PRIMARY KEY, schema_version INTEGER, library_version VARCHAR(256),
    CHECK (version_info_id = 1));
CREATE TABLE IF NOT EXISTS study_directions (
    study_direction_id INTEGER NOT NULL PRIMARY KEY, direction VARCHAR(8) NOT NULL, study_id INTEGER NOT NULL,
    objective INTEGER NOT NULL, UNIQUE (study_id, objective), FOREIGN KEY (study_id) REFERENCES studies (study_id));
CREATE TABLE IF NOT EXISTS study_user_attributes (
    study_user_attribute_id INTEGER NOT NULL PRIMARY KEY, study_id INTEGER, "key" VARCHAR(512), value_json TEXT,
    UNIQUE (study_id, "key"), FOREIGN KEY (study_id) REFERENCES studies (study_id));
CREATE TABLE IF NOT EXISTS study_system_attributes (
    study_system_attribute_id INTEGER NOT NULL PRIMARY KEY, study_id INTEGER, "key" VARCHAR(512), value_json TEXT,
    UNIQUE (study_id, "key"), FOREIGN KEY (study_id) REFERENCES studies (study_id));
CREATE TABLE IF NOT EXISTS trials (
    trial_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, number INTEGER, study_id INTEGER, state VARCHAR(8) NOT NULL,
    datetime_start DATETIME, datetime_complete DATETIME, FOREIGN KEY (study_id) REFERENCES studies (study_id));
CREATE INDEX IF NOT EXISTS ix_trials_study_id ON trials (study_id);
CREATE TABLE IF NOT EXISTS trial_user_attributes (
    trial_user_attribute_id INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER, "key" VARCHAR(512), value_json TEXT,
    UNIQUE (trial_id, "key"), FOREIGN KEY (trial_id) REFERENCES trials (trial_id));
CREATE TABLE IF NOT EXISTS trial_system_attributes (
    trial_system_attribute_id INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER, "key" VARCHAR(512), value_json TEXT,
    UNIQUE (trial_id, "key"), FOREIGN KEY (trial_id) REFERENCES trials (trial_id));
CREATE TABLE IF NOT EXISTS trial_params (
    param_id INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER, param_name VARCHAR(512), param_value FLOAT,
    distribution_json TEXT, UNIQUE (trial_id, param_name), FOREIGN KEY (trial_id) REFERENCES trials (trial_id));
CREATE TABLE IF NOT EXISTS trial_values (
    trial_value_id INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER NOT NULL, objective INTEGER NOT NULL, value FLOAT,
    value_type VARCHAR(7) NOT NULL, UNIQUE (trial_id, objective), FOREIGN KEY (trial_id) REFERENCES trials (trial_id));
CREATE TABLE IF NOT EXISTS trial_intermediate_values (
    trial_intermediate_value_id INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER NOT NULL, step INTEGER NOT NULL,
    intermediate_value FLOAT, intermediate_value_type VARCHAR(7) NOT NULL, UNIQUE (trial_id, step),
    FOREIGN KEY (trial_id) REFERENCES trials (trial_id));
CREATE TABLE IF NOT EXISTS trial_heartbeats (
    trial_heartbeat_id INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER NOT NULL, heartbeat DATETIME NOT NULL,
    UNIQUE (trial_id), FOREIGN KEY (trial_id) REFERENCES trials (trial_id));
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO version_info SELECT 1, 12, '5.0.0' WHERE NOT EXISTS (SELECT 1 FROM version_info);
INSERT INTO alembic_version SELECT 'v3.2.0.a' WHERE NOT EXISTS (SELECT 1 FROM alembic_version);
"#;

const POSTGRES: &str = r#"
DO $$ BEGIN
    CREATE TYPE studydirection AS ENUM ('NOT_SET', 'MINIMIZE', 'MAXIMIZE');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN
    CREATE TYPE trialstate AS ENUM ('RUNNING', 'COMPLETE', 'PRUNED', 'FAIL', 'WAITING');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN
    CREATE TYPE trialvaluetype AS ENUM ('FINITE', 'INF_POS', 'INF_NEG');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN
    CREATE TYPE trialintermediatevaluetype AS ENUM ('FINITE', 'INF_POS', 'INF_NEG', 'NAN');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
CREATE TABLE IF NOT EXISTS studies (study_id BIGSERIAL PRIMARY KEY, study_name VARCHAR(512) NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS ix_studies_study_name ON studies (study_name);
CREATE TABLE IF NOT EXISTS version_info (
    version_info_id INTEGER NOT NULL PRIMARY KEY, schema_version INTEGER, library_version VARCHAR(256),
    CHECK (version_info_id = 1));
CREATE TABLE IF NOT EXISTS study_directions (
    study_direction_id BIGSERIAL PRIMARY KEY, direction studydirection NOT NULL,
    study_id BIGINT NOT NULL REFERENCES studies (study_id), objective INTEGER NOT NULL, UNIQUE (study_id, objective));
CREATE TABLE IF NOT EXISTS study_user_attributes (
    study_user_attribute_id BIGSERIAL PRIMARY KEY, study_id BIGINT REFERENCES studies (study_id), key VARCHAR(512),
    value_json TEXT, UNIQUE (study_id, key));
CREATE TABLE IF NOT EXISTS study_system_attributes (
    study_system_attribute_id BIGSERIAL PRIMARY KEY, study_id BIGINT REFERENCES studies (study_id), key VARCHAR(512),
    value_json TEXT, UNIQUE (study_id, key));
CREATE TABLE IF NOT EXISTS trials (
    trial_id BIGSERIAL PRIMARY KEY, number INTEGER, study_id BIGINT REFERENCES studies (study_id),
    state trialstate NOT NULL, datetime_start TIMESTAMP WITHOUT TIME ZONE, datetime_complete TIMESTAMP WITHOUT TIME ZONE);
CREATE INDEX IF NOT EXISTS ix_trials_study_id ON trials (study_id);
CREATE TABLE IF NOT EXISTS trial_user_attributes (
    trial_user_attribute_id BIGSERIAL PRIMARY KEY, trial_id BIGINT REFERENCES trials (trial_id), key VARCHAR(512),
    value_json TEXT, UNIQUE (trial_id, key));
CREATE TABLE IF NOT EXISTS trial_system_attributes (
    trial_system_attribute_id BIGSERIAL PRIMARY KEY, trial_id BIGINT REFERENCES trials (trial_id), key VARCHAR(512),
    value_json TEXT, UNIQUE (trial_id, key));
CREATE TABLE IF NOT EXISTS trial_params (
    param_id BIGSERIAL PRIMARY KEY, trial_id BIGINT REFERENCES trials (trial_id), param_name VARCHAR(512),
    param_value FLOAT(53), distribution_json TEXT, UNIQUE (trial_id, param_name));
CREATE TABLE IF NOT EXISTS trial_values (
    trial_value_id BIGSERIAL PRIMARY KEY, trial_id BIGINT NOT NULL REFERENCES trials (trial_id),
    objective INTEGER NOT NULL, value FLOAT(53), value_type trialvaluetype NOT NULL, UNIQUE (trial_id, objective));
CREATE TABLE IF NOT EXISTS trial_intermediate_values (
    trial_intermediate_value_id BIGSERIAL PRIMARY KEY, trial_id BIGINT NOT NULL REFERENCES trials (trial_id),
    step BIGINT NOT NULL, intermediate_value FLOAT(53), intermediate_value_type trialintermediatevaluetype NOT NULL,
    UNIQUE (trial_id, step));
CREATE TABLE IF NOT EXISTS trial_heartbeats (
    trial_heartbeat_id BIGSERIAL PRIMARY KEY, trial_id BIGINT NOT NULL REFERENCES trials (trial_id),
    heartbeat TIMESTAMP WITHOUT TIME ZONE NOT NULL, UNIQUE (trial_id));
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO version_info SELECT 1, 12, '5.0.0' WHERE NOT EXISTS (SELECT 1 FROM version_info);
INSERT INTO alembic_version SELECT 'v3.2.0.a' WHERE NOT EXISTS (SELECT 1 FROM alembic_version);
"#;
