//! Durable storage on SQLite or PostgreSQL: one writer with group commit, readers beside it, the same SQL for both.
//!
//! SQLite has one writer. Rather than let callers queue on its lock, a single thread takes what has queued up, runs every
//! request in a savepoint of one transaction and answers each caller after the commit, so that thousands of durable writes a
//! second share few synced commits. PostgreSQL is served by the same shape, which beats many small transactions there too.
//! What need not be synced says so ([`Durability`]).

mod checkpoints;
mod damage;
mod durability;
mod postgres;
mod sqlite;
pub mod testing;
mod value;
mod writer;

use std::{
    fmt,
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

pub use damage::{Damage, damage};
pub use durability::{Durability, SYNC_DELAY, WriteOptions, may_block};
pub use value::{Row, Value};
pub use writer::Commits;
pub(crate) use writer::Request;

/// Which database a statement runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite in WAL mode, each commit synced unless it asks for less.
    Sqlite,
    /// PostgreSQL 13 or later.
    Postgres,
}

impl Dialect {
    /// A set of ids that a statement takes as one parameter, made by [`Value::id_list`]: its text does not depend on their
    /// number. To be used as `id IN {set}`.
    pub fn id_set(self, placeholder: usize) -> String {
        match self {
            Self::Sqlite => format!("(SELECT value FROM json_each(${placeholder}))"),
            Self::Postgres => format!(
                "(SELECT CAST(x AS BIGINT) FROM json_array_elements_text(CAST(CAST(${placeholder} AS TEXT) AS json)) AS x)"
            ),
        }
    }
}

/// Why a database could not do what was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The URL names neither a SQLite file nor a PostgreSQL server.
    #[error("database URL {0:?} is neither sqlite:///PATH nor postgresql://...")]
    Url(String),
    /// The database cannot be reached or opened.
    #[error("cannot open database {database}: {message}")]
    Open {
        /// Path or host, without credentials.
        database: String,
        /// What the driver said.
        message: String,
    },
    /// Another server owns the database.
    #[error("database {0} is owned by another running server")]
    Owned(String),
    /// The schema was made by a newer version.
    #[error("database has migration {0:?}, which this version does not know: it was used by a newer version")]
    NewerSchema(String),
    /// A unique, foreign-key or check constraint was violated.
    #[error("constraint violated: {0}")]
    Constraint(String),
    /// No space is left for the database.
    #[error("no space left for the database: {0}")]
    Full(String),
    /// Another program has kept the database locked for too long.
    #[error("another program keeps the database locked; wait until it has ended, or end it: {0}")]
    Busy(String),
    /// The database server is away for now, or has given the transaction up so that others could go on: the same may go well later.
    #[error("the database cannot be reached for now: {0}")]
    Unavailable(String),
    /// The file is no database or is damaged.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// The statement failed for another reason.
    #[error("database: {0}")]
    Statement(String),
    /// A column has another type than was asked for.
    #[error("column {index} is {found}, not {expected}")]
    Column {
        /// Position from 0.
        index: usize,
        /// What the caller asked for.
        expected: &'static str,
        /// What the row holds.
        found: &'static str,
    },
    /// The database has been closed.
    #[error("the database is closed")]
    Closed,
    /// What was asked for does not exist for this database.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl Error {
    /// Whether the same may go well a moment later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A step of a schema; steps run once each, in order.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Unique and never changed, such as `0001_jobs`.
    pub name: &'static str,
    /// Statements for SQLite.
    pub sqlite: &'static str,
    /// Statements for PostgreSQL.
    pub postgres: &'static str,
}

/// A transaction, or a reader's snapshot. Parameters are `$1`, `$2`, ... on both databases.
pub trait Tx {
    /// Runs a statement and returns the number of rows it changed.
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error>;

    /// Runs `INSERT INTO t (a, b) VALUES ($1, $2) [ON CONFLICT ...]` for every row; many rows a round trip on PostgreSQL.
    ///
    /// What follows the parenthesis after `VALUES` must not hold parameters.
    fn execute_many(&mut self, sql: &str, rows: &[Vec<Value>]) -> Result<u64, Error>;

    /// Runs a query and returns its rows. On PostgreSQL a sum over BIGINT has to be cast back to BIGINT.
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error>;

    /// Runs a query and shows its rows one after the other, until `see` breaks: on SQLite however many there are take the room of
    /// one.
    ///
    /// # Errors
    /// The database's.
    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value],
        see: &mut dyn FnMut(&Row) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let _ = self.query(sql, params)?.iter().try_for_each(see);
        Ok(())
    }

    /// Begins the transaction now rather than with its first statement: from here on nobody else writes to a SQLite database.
    ///
    /// # Errors
    /// The database's.
    fn begin(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// A number that changes when another connection has committed to the database; `None` where that cannot be told cheaply
    /// (PostgreSQL). It begins no transaction: what it says holds for longer only after [`Tx::begin`].
    ///
    /// # Errors
    /// The database's.
    fn commits_of_others(&mut self) -> Result<Option<i64>, Error>;

    /// The database behind.
    fn dialect(&self) -> Dialect;
}

/// A connection that the writer or a reader owns.
trait Connection: Tx + Send {
    /// Begins a transaction whose commit is that durable.
    fn begin_as(&mut self, durability: Durability) -> Result<(), Error>;
    /// Runs statements without parameters.
    fn batch(&mut self, sql: &str) -> Result<(), Error>;
    /// Whether the connection is gone for good.
    fn is_broken(&mut self) -> bool;
}

#[derive(Clone, Debug)]
enum Target {
    Sqlite(std::path::PathBuf),
    Postgres { url: String, schema: String },
}

impl Target {
    fn parse(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            if path.is_empty() {
                return Err(Error::Url(url.to_owned()));
            }
            return Ok(Self::Sqlite(path.into()));
        }
        let mut parsed = url::Url::parse(url).map_err(|_| Error::Url(redact(url)))?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(Error::Url(redact(url)));
        }
        let schema =
            parsed.query_pairs().find(|(k, _)| k == "schema").map_or_else(|| "public".into(), |(_, v)| v.into_owned());
        if !schema.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || schema.is_empty() {
            return Err(Error::Url(redact(url)));
        }
        let rest: Vec<(String, String)> = parsed
            .query_pairs()
            .filter(|(k, _)| k != "schema")
            .map(|(k, v)| (k.into_owned(), v.into_owned()))
            .collect();
        parsed.set_query(None);
        if !rest.is_empty() {
            parsed.query_pairs_mut().extend_pairs(rest);
        }
        Ok(Self::Postgres { url: parsed.to_string(), schema })
    }

    /// Connects to a database that was there before.
    fn reconnect(&self, read_only: bool) -> Result<Box<dyn Connection>, Error> {
        self.connect(read_only).map_err(|error| match self {
            Self::Postgres { .. } => Error::Unavailable(error.to_string()),
            Self::Sqlite(_) => error,
        })
    }

    fn connect(&self, read_only: bool) -> Result<Box<dyn Connection>, Error> {
        Ok(match self {
            Self::Sqlite(path) => Box::new(sqlite::Sqlite::open(path, read_only)?),
            Self::Postgres { url, schema } => Box::new(postgres::Postgres::open(url, schema, read_only)?),
        })
    }
}

/// A database URL without its password, for logs and messages.
pub fn redact(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // A URL with a password has a host, so this cannot fail.
            let _ = parsed.set_password(Some("***"));
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

/// The URL of one service's part of a shared database: a schema on PostgreSQL, the file itself on SQLite.
pub fn with_schema(url: &str, schema: &str) -> String {
    if url.starts_with("sqlite:") {
        return url.to_owned();
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}schema={schema}")
}

/// A handle on an open database; clones share it.
#[derive(Clone)]
pub struct Db {
    target: Target,
    dialect: Dialect,
    /// Closed before the writer: whoever closes a SQLite database last empties its log, which takes a connection that may write.
    readers: Arc<Readers>,
    writer: writer::Writer,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

struct Readers {
    dialect: Dialect,
    idle: std::sync::Mutex<Vec<Box<dyn Connection>>>,
    permits: Arc<Semaphore>,
}

impl Drop for Readers {
    fn drop(&mut self) {
        let idle = std::mem::take(self.idle.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner));
        if self.dialect == Dialect::Postgres {
            // Closing its connections blocks on the driver's runtime.
            std::thread::spawn(move || drop(idle));
        }
    }
}

/// Connections that read at the same time.
const READERS: usize = 4;

impl Db {
    /// Opens the database, making it and its folder if needed, and brings its schema up to date. Blocks.
    ///
    /// # Errors
    /// A URL of another kind, a database that cannot be opened, or a schema of a newer version.
    pub fn open(url: &str, migrations: &[Migration]) -> Result<Self, Error> {
        Self::open_with(url, migrations, false)
    }

    /// Like [`Db::open`], and refuses a database that another process has opened this way.
    ///
    /// # Errors
    /// As [`Db::open`], and [`Error::Owned`].
    pub fn open_exclusive(url: &str, migrations: &[Migration]) -> Result<Self, Error> {
        Self::open_with(url, migrations, true)
    }

    fn open_with(url: &str, migrations: &[Migration], exclusive: bool) -> Result<Self, Error> {
        let target = Target::parse(url)?;
        let lock = match (&target, exclusive) {
            (Target::Sqlite(path), true) => Some(patiently(|| sqlite::own(path))?),
            _ => None,
        };
        let mut connection = on_own_thread({
            let target = target.clone();
            move || target.connect(false)
        })?;
        let dialect = connection.dialect();
        let migrations = migrations.to_vec();
        let connection = on_own_thread({
            let target = target.clone();
            move || {
                if let (Target::Postgres { schema, .. }, true) = (&target, exclusive) {
                    patiently(|| postgres::own(connection.as_mut(), schema))?;
                }
                migrate(connection.as_mut(), &migrations)?;
                Ok(connection)
            }
        })?;
        let reconnect = target.clone();
        let writer = writer::Writer::start(connection, Box::new(move || reconnect.reconnect(false)), lock);
        let permits = Arc::new(Semaphore::new(READERS));
        let readers = Arc::new(Readers { dialect, idle: std::sync::Mutex::default(), permits });
        Ok(Self { target, dialect, readers, writer })
    }

    /// The database behind.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Runs `f` in a transaction that it shares with whatever else is waiting, and answers after the commit.
    ///
    /// An `Err` of `f` undoes what `f` did and nothing else.
    ///
    /// # Errors
    /// What `f` returns, or the database's own error when the commit fails: then nothing of `f` is stored.
    pub async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.write_with(WriteOptions::default(), f).await
    }

    /// Like [`Db::write`], as the options say.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub async fn write_with<T, E, F>(&self, options: WriteOptions, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run(f, options).await
    }

    /// What was committed since it was opened. Waits for the write that runs.
    pub fn commits(&self) -> Commits {
        self.writer.commits()
    }

    /// Queues a request of any form; it hears of everything itself.
    pub(crate) async fn enqueue(&self, request: Box<dyn Request>) {
        self.writer.send(request).await;
    }

    /// Runs `f` on a reader's connection, in a thread that may block.
    ///
    /// # Errors
    /// What `f` returns, or the database's own error.
    pub async fn read<T, E, F>(&self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        // All of it: the writer closes last, also when nobody waits for this any more.
        let Self { target, readers, writer, .. } = self.clone();
        let permit = readers.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        tokio::task::spawn_blocking(move || {
            // Dropped from the last to the first.
            let (_writer, _permit, readers) = (writer, permit, readers);
            let idle = readers.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => target.reconnect(true)?,
            };
            match connection.batch("BEGIN") {
                // The server was restarted since.
                Err(error) if error.is_passing() || connection.is_broken() => {
                    connection = target.reconnect(true)?;
                    connection.batch("BEGIN")?;
                }
                other => other?,
            }
            let result = f(connection.as_mut());
            if connection.batch("ROLLBACK").is_ok() && !connection.is_broken() {
                readers.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(connection);
            }
            result
        })
        .await
        .unwrap_or_else(|_| Err(Error::Statement("the reading task panicked".into()).into()))
    }

    /// Writes a consistent copy of a SQLite file that another program may be using to `path`. The file itself stays as it is, also when
    /// that program was killed in the middle of a transaction. Blocks.
    ///
    /// # Errors
    /// [`Error::Busy`] when the other program keeps it locked; [`Error::Corrupt`]; an I/O error's text otherwise.
    pub fn copy_of_file(source: &Path, path: &Path) -> Result<(), Error> {
        sqlite::copy(source, path)
    }

    /// Writes a consistent copy of the database to `path`, complete or not at all.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on PostgreSQL, which has its own tools for this; an I/O error's text otherwise.
    pub async fn snapshot(&self, path: &Path) -> Result<(), Error> {
        let Target::Sqlite(source) = self.target.clone() else {
            return Err(Error::Unsupported("snapshots are for SQLite; back PostgreSQL up with pg_dump"));
        };
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || sqlite::snapshot(&source, &path))
            .await
            .unwrap_or_else(|_| Err(Error::Statement("the snapshot panicked".into())))
    }
}

/// The PostgreSQL driver blocks on a runtime of its own, which must not happen on a thread that runs async tasks.
fn on_own_thread<T: Send>(f: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| scope.spawn(f).join())
        .unwrap_or_else(|_| Err(Error::Statement("the opening thread panicked".into())))
}

/// A server that is just ending gets a moment to let go of its database.
const OWNER_PATIENCE: Duration = Duration::from_secs(3);

/// Tries until nobody else owns the database, for as long as an owner that ends may take.
fn patiently<T>(mut own: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let give_up = Instant::now() + OWNER_PATIENCE;
    loop {
        match own() {
            Err(Error::Owned(_)) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
}

fn migrate(connection: &mut dyn Connection, migrations: &[Migration]) -> Result<(), Error> {
    connection
        .batch("CREATE TABLE IF NOT EXISTS schema_migrations (position INTEGER NOT NULL, name TEXT PRIMARY KEY)")?;
    let done: Vec<String> = connection
        .query("SELECT name FROM schema_migrations ORDER BY position", &[])?
        .iter()
        .map(|row| row.text(0).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    if let Some(unknown) = done.iter().find(|name| !migrations.iter().any(|m| m.name == name.as_str())) {
        return Err(Error::NewerSchema(unknown.clone()));
    }
    for (position, migration) in migrations.iter().enumerate().filter(|(_, m)| !done.iter().any(|name| name == m.name))
    {
        connection.batch("BEGIN")?;
        let statements = match connection.dialect() {
            Dialect::Sqlite => migration.sqlite,
            Dialect::Postgres => migration.postgres,
        };
        let row = [Value::from(i64::try_from(position).unwrap_or(i64::MAX)), Value::from(migration.name)];
        let result = connection
            .batch(statements)
            .and_then(|()| connection.execute("INSERT INTO schema_migrations (position, name) VALUES ($1, $2)", &row));
        match result {
            Ok(_) => connection.batch("COMMIT")?,
            Err(error) => {
                connection.batch("ROLLBACK")?;
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
