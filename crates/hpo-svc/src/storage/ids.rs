//! Ids of studies and trials are never used again: clients keep what they know by id.
//!
//! The sequences of PostgreSQL see to that, and AUTOINCREMENT in the SQLite tables that we make. In a file that Optuna made, an id is
//! one more than the largest that is there; for such a file a table of ours keeps the largest that there was. Optuna writes to
//! such a file as before, and what it deletes behind our back is as good as kept once we have given out an id or deleted a study.

use runtime_core::db::{Dialect, Tx, Value};

use super::Error;

/// Ids that a server may have given out, at most, since the last sync.
const UNSYNCED: i64 = 10_000;
/// Ids that a server may have given out, at most, since a backup was made.
const AFTER_BACKUP: i64 = 1_000_000;

/// A table whose ids are not used again.
#[derive(Clone, Copy)]
pub(super) enum Table {
    Studies,
    Trials,
}

impl Table {
    /// Its name and that of its ids.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Studies => ("studies", "study_id"),
            Self::Trials => ("trials", "trial_id"),
        }
    }

    /// Whether its ids are to be chosen here.
    pub(super) fn is_ours_to_count(self, tx: &mut dyn Tx) -> Result<bool, Error> {
        if tx.dialect() == Dialect::Postgres {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1 AND sql LIKE '%AUTOINCREMENT%'";
        Ok(tx.query(sql, &[self.names().0.into()])?.is_empty())
    }

    /// The next id of a table that is ours to count, and at least so many more than the last.
    fn next_after(self, tx: &mut dyn Tx, step: i64) -> Result<i64, Error> {
        let (table, id) = self.names();
        let sql = format!(
            "INSERT INTO quintet_ids (name, highest) SELECT $1, COALESCE(MAX({id}), 0) + $2 FROM {table} WHERE true \
             ON CONFLICT (name) DO UPDATE SET highest = MAX(quintet_ids.highest + $2, excluded.highest) RETURNING highest"
        );
        let rows = tx.query(&sql, &[table.into(), step.into()])?;
        Ok(rows.first().map_or(Ok(0), |row| row.int(0))?)
    }

    /// The next id of a table that is ours to count.
    pub(super) fn next(self, tx: &mut dyn Tx) -> Result<i64, Error> {
        self.next_after(tx, 1)
    }

    /// Keeps the ids that rows have now, which are about to be deleted.
    pub(super) fn keep(self, tx: &mut dyn Tx) -> Result<(), Error> {
        if self.is_ours_to_count(tx)? {
            self.next_after(tx, 0)?;
        }
        Ok(())
    }
}

/// Leaves out the ids of trials that are gone without anybody having deleted them (SQLite).
pub(super) fn skip(tx: &mut dyn Tx) -> Result<(), Error> {
    skip_in(tx, Table::Trials, UNSYNCED)
}

/// Leaves out the ids that were given out after the backup was made from which the database was restored (SQLite).
pub(super) fn skip_after_backup(tx: &mut dyn Tx) -> Result<(), Error> {
    [Table::Studies, Table::Trials].into_iter().try_for_each(|table| skip_in(tx, table, AFTER_BACKUP))
}

fn skip_in(tx: &mut dyn Tx, table: Table, step: i64) -> Result<(), Error> {
    if tx.dialect() == Dialect::Postgres {
        return Ok(());
    }
    if table.is_ours_to_count(tx)? {
        table.next_after(tx, step)?;
        return Ok(());
    }
    let name: Value = table.names().0.into();
    let known = "SELECT $1, 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = $1)";
    tx.execute(&format!("INSERT INTO sqlite_sequence (name, seq) {known}"), std::slice::from_ref(&name))?;
    tx.execute("UPDATE sqlite_sequence SET seq = seq + $2 WHERE name = $1", &[name, step.into()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::{Attributes, NewTrial, Store, tests::tables_of_optuna};
    use crate::study::Direction;

    #[tokio::test]
    async fn ids_from_after_a_backup_are_left_out() {
        for made_by_optuna in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("studies.db");
            if made_by_optuna {
                tables_of_optuna(&path);
            }
            let store = Store::open(&format!("sqlite://{}", path.display())).unwrap();
            let newest = async |name: &str| {
                let study =
                    store.create_study(name, &[Direction::Minimize], Attributes::new(), Attributes::new()).await;
                let study = study.unwrap().id;
                (study, store.create_trial(study, NewTrial::default(), Timestamp::UNIX_EPOCH).await.unwrap().id)
            };
            let before = newest("before").await;
            store.skip_ids().await.unwrap();
            let after = newest("after").await;
            assert!(after.0 > before.0 + 1_000_000 && after.1 > before.1 + 1_000_000, "{before:?} {after:?}");
        }
    }
}
