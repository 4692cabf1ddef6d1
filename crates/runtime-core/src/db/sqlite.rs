//! SQLite connections: WAL, commits as durable as they ask for, cached statements, online snapshots.

use std::{
    fs::{self, File},
    io::Read as _,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    ErrorCode, OpenFlags,
    backup::StepResult,
    types::{ToSqlOutput, ValueRef},
};

use super::{Connection, Dialect, Durability, Error, Row, Tx, Value, checkpoints::Checkpoints, durability::may_block};

/// How long another program may keep the file locked. Optuna's transactions take milliseconds.
pub(super) const LOCK_PATIENCE: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(10) };

pub(super) struct Sqlite {
    connection: rusqlite::Connection,
    /// What a commit does: `synchronous` is NORMAL or FULL.
    durability: Durability,
    /// The writer's.
    checkpoints: Option<Checkpoints>,
}

impl Sqlite {
    pub(super) fn open(path: &Path, read_only: bool) -> Result<Self, Error> {
        let fail = |message: String| Error::Open { database: path.display().to_string(), message };
        if let Some(folder) = path.parent().filter(|_| !read_only) {
            fs::create_dir_all(folder).map_err(|e| fail(e.to_string()))?;
        }
        let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags |= if read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        };
        let mut connection = rusqlite::Connection::open_with_flags(path, flags).map_err(|e| at_open(path, &e))?;
        let mut set_up = || -> rusqlite::Result<()> {
            connection.busy_handler(Some(wait_for_others))?;
            if !read_only {
                connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
                connection.pragma_update(None, "synchronous", "full")?;
                // A commit that has to empty the log first would keep its callers waiting.
                connection.pragma_update(None, "wal_autocheckpoint", 0)?;
                connection.pragma_update(None, "foreign_keys", "on")?;
            }
            connection.set_prepared_statement_cache_capacity(128);
            Ok(())
        };
        set_up().map_err(|e| at_open(path, &e))?;
        let checkpoints = if read_only { None } else { Some(Checkpoints::start(path)) };
        Ok(Self { connection, durability: Durability::Synced, checkpoints })
    }

    /// Shows the rows of a query one after the other, each in the place of the one before.
    fn each(
        &mut self,
        sql: &str,
        params: &[Value],
        mut see: impl FnMut(&mut Row) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(error)?;
        bind(&mut statement, params)?;
        let mut shown = Row(vec![Value::Null; statement.column_count()]);
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(error)? {
            for (index, value) in shown.0.iter_mut().enumerate() {
                put(value, row.get_ref(index).map_err(error)?);
            }
            if see(&mut shown).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Waits while another program has the file locked: a little longer each time. False gives up.
fn wait_for_others(tries: i32) -> bool {
    const LONGEST: u64 = 25;
    let tries = u64::try_from(tries).unwrap_or(u64::MAX);
    // 1, 2, ... 25 ms, then 25 ms each.
    let waited = if tries <= LONGEST {
        tries * (tries + 1) / 2
    } else {
        LONGEST * (LONGEST + 1) / 2 + (tries - LONGEST) * LONGEST
    };
    if Duration::from_millis(waited) >= LOCK_PATIENCE {
        return false;
    }
    may_block(|| std::thread::sleep(Duration::from_millis((tries + 1).min(LONGEST))));
    true
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

/// SQLite numbers `$n` by first appearance; bind by the number in the name instead.
fn bind(statement: &mut rusqlite::Statement<'_>, params: &[Value]) -> Result<(), Error> {
    for index in 1..=statement.parameter_count() {
        let number = statement.parameter_name(index).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
        let value = number.and_then(|n| params.get(n.checked_sub(1)?));
        let value = value.ok_or_else(|| Error::Statement(format!("parameter {index} has no value")))?;
        statement.raw_bind_parameter(index, value).map_err(error)?;
    }
    Ok(())
}

/// Takes a column's value, in the memory of the one before if both are texts.
fn put(value: &mut Value, column: ValueRef<'_>) {
    *value = match (&mut *value, column) {
        (Value::Text(text), ValueRef::Text(bytes)) => {
            text.clear();
            text.push_str(&String::from_utf8_lossy(bytes));
            return;
        }
        (_, ValueRef::Null) => Value::Null,
        (_, ValueRef::Integer(number)) => Value::Int(number),
        (_, ValueRef::Real(number)) => Value::Real(number),
        (_, ValueRef::Text(bytes)) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        (_, ValueRef::Blob(bytes)) => Value::Blob(bytes.to_vec()),
    };
}

impl Tx for Sqlite {
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(error)?;
        bind(&mut statement, params)?;
        statement.raw_execute().map(|n| n as u64).map_err(error)
    }

    fn execute_many(&mut self, sql: &str, rows: &[Vec<Value>]) -> Result<u64, Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(error)?;
        let mut changed = 0;
        for row in rows {
            bind(&mut statement, row)?;
            changed += statement.raw_execute().map_err(error)? as u64;
        }
        Ok(changed)
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        let mut all = Vec::new();
        self.each(sql, params, |row| {
            all.push(Row(row.0.iter_mut().map(|value| std::mem::replace(value, Value::Null)).collect()));
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value],
        see: &mut dyn FnMut(&Row) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.each(sql, params, |row| see(row))
    }

    fn commits_of_others(&mut self) -> Result<Option<i64>, Error> {
        let mut statement = self.connection.prepare_cached("PRAGMA data_version").map_err(error)?;
        statement.query_row([], |row| row.get(0)).map(Some).map_err(error)
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }
}

impl Connection for Sqlite {
    fn begin_as(&mut self, durability: Durability) -> Result<(), Error> {
        if durability != self.durability {
            // NORMAL leaves the log unsynced at a commit; FULL syncs all of it. SQLite acts on this when it is prepared, not when it
            // runs, and refuses it inside of a transaction.
            let level = match durability {
                Durability::Committed => "PRAGMA synchronous = NORMAL",
                Durability::Synced => "PRAGMA synchronous = FULL",
            };
            self.connection.execute_batch(level).map_err(error)?;
            self.durability = durability;
        }
        self.batch("BEGIN")
    }

    fn batch(&mut self, sql: &str) -> Result<(), Error> {
        // Those of every commit are not parsed each time.
        if matches!(sql, "BEGIN" | "COMMIT" | "ROLLBACK") {
            // What the writer reads before it writes stays true until it commits, whoever else writes to the file.
            let sql = if sql == "BEGIN" && self.checkpoints.is_some() { "BEGIN IMMEDIATE" } else { sql };
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.raw_execute()).map_err(error)?;
            if let (Some(checkpoints), "COMMIT") = (&self.checkpoints, sql) {
                checkpoints.committed(&self.connection, self.durability);
            }
            return Ok(());
        }
        self.connection.execute_batch(sql).map_err(error)
    }

    fn is_broken(&mut self) -> bool {
        false
    }
}

fn error(error: rusqlite::Error) -> Error {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Error::Constraint(text),
        Some(ErrorCode::DiskFull) => Error::Full(text),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt(text),
        _ => Error::Statement(text),
    }
}

/// An error before the database is in use, which names its file.
pub(super) fn at_open(path: &Path, error: &rusqlite::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt(text),
        _ => Error::Open { database: path.display().to_string(), message: error.to_string() },
    }
}

/// Locks the database for one owner until the file is dropped.
pub(super) fn own(path: &Path) -> Result<File, Error> {
    let fail = |message: String| Error::Open { database: path.display().to_string(), message };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| fail(e.to_string()))?;
    }
    let file = File::create(beside(path, ".lock")).map_err(|e| fail(e.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Owned(path.display().to_string())),
        Err(fs::TryLockError::Error(e)) => Err(fail(e.to_string())),
    }
}

/// Copies a database that is in use: SQLite's online backup into a temporary file, synced, then renamed.
pub(super) fn snapshot(source: &Path, to: &Path) -> Result<(), Error> {
    let io = |e: std::io::Error| Error::Statement(format!("snapshot to {}: {e}", to.display()));
    let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(io)?;
    let temporary = tempfile::Builder::new().prefix(".snapshot-").tempfile_in(folder).map_err(io)?;
    {
        let from = Sqlite::open(source, true)?;
        let mut into = rusqlite::Connection::open(temporary.path()).map_err(error)?;
        let backup = rusqlite::backup::Backup::new(&from.connection, &mut into).map_err(error)?;
        // All pages in one step: the copy is of one moment, and writers are not held up in WAL mode.
        loop {
            match backup.step(-1).map_err(error)? {
                StepResult::Done => break,
                // It has waited for them.
                StepResult::Busy | StepResult::Locked => return Err(Error::Busy(source.display().to_string())),
                _ => std::thread::yield_now(),
            }
        }
        drop(backup);
        // The copy travels alone: without WAL there is no second file that would have to go with it.
        into.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(())).map_err(error)?;
    }
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(to).map_err(|e| io(e.error))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(io)
}

/// The file of that suffix beside a database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether nobody is at work on a database: it is of the kind with a log, which whoever closes it last takes away. To read it in place
/// would leave another one.
fn at_rest(path: &Path) -> std::io::Result<bool> {
    let mut header = [0; 20];
    let read = File::open(path)?.read(&mut header)?;
    Ok(read == header.len() && header[18] == 2 && !beside(path, "-wal").exists())
}

/// Copies the database of another program without changing it. When that was killed in the middle of a transaction, the transaction is
/// undone in the copy; there all is done, too, when the file cannot be read in place.
pub(super) fn copy(source: &Path, to: &Path) -> Result<(), Error> {
    let io = |e: std::io::Error| Error::Statement(format!("copying {}: {e}", source.display()));
    if !at_rest(source).map_err(io)? {
        match snapshot(source, to) {
            Err(Error::Statement(_) | Error::Open { .. }) => {}
            other => return other,
        }
    }
    let draft = tempfile::tempdir().map_err(io)?;
    let copied = draft.path().join("copy.db");
    fs::copy(source, &copied).map_err(io)?;
    for suffix in ["-wal", "-journal"] {
        if beside(source, suffix).exists() {
            fs::copy(beside(source, suffix), beside(&copied, suffix)).map_err(io)?;
        }
    }
    // The first to open it for writing undoes or takes over what the files beside it hold.
    let recovered = Sqlite::open(&copied, false)?;
    snapshot(&copied, to)?;
    drop(recovered);
    Ok(())
}
