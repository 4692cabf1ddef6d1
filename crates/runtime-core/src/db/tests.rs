//! One contract suite for both databases.

use std::sync::Arc;

use super::*;

const SCHEMA: &[Migration] = &[Migration {
    name: "0001_items",
    sqlite: "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, score REAL, body BLOB)",
    postgres: "CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE, score DOUBLE PRECISION, body BYTEA)",
}];

async fn on_both<F: AsyncFn(String)>(suite: F) {
    let folder = tempfile::tempdir().unwrap();
    suite(format!("sqlite://{}/some/test.db", folder.path().display())).await;
    let server = testing::PostgresServer::start().unwrap();
    suite(with_schema(&server.database().unwrap(), "items")).await;
}

fn insert(id: i64, name: &str) -> impl FnOnce(&mut dyn Tx) -> Result<u64, Error> + Send + 'static {
    let row = [Value::from(id), Value::from(name), Value::from(0.5 * id as f64), Value::from(vec![0, 1, 255])];
    move |tx| tx.execute("INSERT INTO items (id, name, score, body) VALUES ($1, $2, $3, $4)", &row)
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_and_reads_every_type() {
    on_both(async |url| {
        let db = Db::open(&url, SCHEMA).unwrap();
        db.write(insert(7, "seven")).await.unwrap();
        let null: Vec<Value> = vec![8.into(), "eight".into(), Value::Null, Value::Null];
        let many: Vec<Vec<Value>> = (100..300)
            .map(|i| vec![i.into(), format!("n{i}").into(), Value::Null, vec![1u8].into()])
            .chain([null])
            .collect();
        let sql = "INSERT INTO items (id, name, score, body) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING";
        assert_eq!(db.write(move |tx| tx.execute_many(sql, &many)).await, Ok::<_, Error>(201));
        let rows = db
            .read(|tx| {
                tx.query(
                    "SELECT $2, id, name, score, body FROM items WHERE id < $1 ORDER BY id",
                    &[9.into(), "x".into()],
                )
            })
            .await;
        let rows: Vec<Row> = rows.unwrap_or_else(|e: Error| panic!("{e}"));
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].text(0), rows[0].int(1), rows[0].text(2)), (Ok("x"), Ok(7), Ok("seven")));
        assert_eq!((rows[0].real(3), rows[0].blob(4)), (Ok(3.5), Ok(&[0u8, 1, 255][..])));
        assert_eq!((rows[1].opt_real(3), rows[1].opt_blob(4)), (Ok(None), Ok(None)));
        assert!(matches!(rows[0].int(2), Err(Error::Column { index: 2, .. })));
        let seen = db.read(|tx| {
            let mut seen = Vec::new();
            tx.query_each("SELECT name, score, body FROM items ORDER BY id LIMIT $1", &[5.into()], &mut |row| {
                seen.push(row.clone());
                if seen.len() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            Ok::<_, Error>(seen)
        });
        let seen = seen.await.unwrap();
        assert_eq!(seen.len(), 3);
        assert_eq!((seen[0].text(0), seen[0].real(1), seen[0].blob(2)), (Ok("seven"), Ok(3.5), Ok(&[0u8, 1, 255][..])));
        assert_eq!((seen[1].text(0), seen[1].opt_real(1), seen[1].opt_blob(2)), (Ok("eight"), Ok(None), Ok(None)));
        assert_eq!((seen[2].text(0), seen[2].blob(2)), (Ok("n100"), Ok(&[1u8][..])));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_tells_commits_of_others_and_nobody_writes_after_begin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let db = Db::open(&format!("sqlite://{}", path.display()), SCHEMA).unwrap();
    let version = async || db.write(|tx| tx.commits_of_others()).await.unwrap().unwrap();
    let before = version().await;
    db.write(insert(1, "own")).await.unwrap();
    db.write(insert(2, "own too")).await.unwrap();
    assert_eq!(version().await, before, "our own commits do not count");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute("INSERT INTO items (id, name) VALUES (3, 'theirs')", []).unwrap();
    assert_ne!(version().await, before);
    let begun = db.write(move |tx| -> Result<_, Error> {
        tx.begin()?;
        other.busy_timeout(Duration::ZERO).map_err(|error| Error::Statement(error.to_string()))?;
        Ok(other.execute("INSERT INTO items (id, name) VALUES (4, 'late')", []).unwrap_err().sqlite_error_code())
    });
    assert_eq!(begun.await.unwrap(), Some(rusqlite::ErrorCode::DatabaseBusy));
    // Theirs may take a while; not for ever.
    let hog = rusqlite::Connection::open(&path).unwrap();
    hog.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let quick = WriteOptions { durability: Durability::Committed, quick: true, undo: None };
    for options in [WriteOptions::default(), quick] {
        let locked = db.write_with(options, insert(5, "never")).await.unwrap_err();
        assert!(matches!(locked, Error::Busy(_)), "{locked:?}");
    }
    hog.execute_batch("ROLLBACK").unwrap();
    db.write(insert(6, "then")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_committed_is_undone_in_memory_before_anything_else_runs() {
    const DEFERRED: &[Migration] = &[Migration {
        name: "0001_pairs",
        sqlite: "CREATE TABLE a (id INTEGER PRIMARY KEY); \
                 CREATE TABLE b (a INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)",
        postgres: "CREATE TABLE a (id BIGINT PRIMARY KEY); \
                   CREATE TABLE b (a BIGINT REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)",
    }];
    let suite = async |url: String, durability: Durability| {
        let db = Db::open(&url, DEFERRED).unwrap();
        let memory = Arc::new(std::sync::Mutex::new(Vec::new()));
        let write = |sql: &'static str, note: i64| {
            let (of_f, of_undo) = (memory.clone(), memory.clone());
            let undo = move || of_undo.lock().unwrap().retain(|other| *other != note);
            db.write_with(WriteOptions { undo: Some(Box::new(undo)), durability, quick: true }, move |tx| {
                tx.execute(sql, &[note.into()])?;
                of_f.lock().unwrap().push(note);
                Ok::<_, Error>(of_f.lock().unwrap().clone())
            })
        };
        assert_eq!(write("INSERT INTO a VALUES ($1)", 1).await, Ok(vec![1]));
        // It is the commit that fails.
        assert!(write("INSERT INTO b VALUES ($1)", 2).await.is_err());
        assert_eq!(write("INSERT INTO b VALUES ($1 - 2)", 3).await, Ok(vec![1, 3]));
    };
    let folder = tempfile::tempdir().unwrap();
    let server = testing::PostgresServer::start().unwrap();
    for durability in [Durability::Synced, Durability::Committed] {
        suite(format!("sqlite://{}/{durability:?}.db", folder.path().display()), durability).await;
        suite(with_schema(&server.database().unwrap(), "pairs"), durability).await;
    }
}

/// What the database itself says about the commit to come.
fn level(tx: &mut dyn Tx) -> Result<String, Error> {
    tx.begin()?;
    match tx.dialect() {
        Dialect::Sqlite => Ok(tx.query("PRAGMA synchronous", &[])?[0].int(0)?.to_string()),
        Dialect::Postgres => Ok(tx.query("SHOW synchronous_commit", &[])?[0].text(0)?.to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_as_durable_as_it_asks_for_and_one_of_a_group_as_the_most_durable() {
    on_both(async |url| {
        let db = Db::open(&url, SCHEMA).unwrap();
        let [committed, synced] = match db.dialect() {
            Dialect::Sqlite => ["1", "2"],
            Dialect::Postgres => ["off", "on"],
        };
        let lazily = |quick| WriteOptions { durability: Durability::Committed, quick, undo: None };
        for quick in [true, false] {
            assert_eq!(db.write_with(lazily(quick), level).await.unwrap(), committed, "quick {quick}");
            assert_eq!(db.write(level).await.unwrap(), synced);
            assert_eq!(db.write_with(lazily(quick), level).await.unwrap(), committed, "quick {quick}");
        }
        // What waits while a request runs is one group.
        let (started, has_started) = std::sync::mpsc::channel();
        let (go_on, wait) = std::sync::mpsc::channel();
        let slow = {
            let db = db.clone();
            tokio::spawn(async move {
                db.write(move |_| {
                    started.send(()).unwrap();
                    wait.recv().map_err(|error| Error::Statement(error.to_string()))
                })
                .await
            })
        };
        tokio::task::block_in_place(|| has_started.recv()).unwrap();
        let mut group: Vec<_> = (0..2).map(|_| Box::pin(db.write_with(lazily(true), level))).collect();
        for write in &mut group {
            assert!(futures::poll!(write).is_pending(), "somebody else is writing");
        }
        let mut last = Box::pin(db.write(level));
        assert!(futures::poll!(&mut last).is_pending());
        go_on.send(()).unwrap();
        slow.await.unwrap().unwrap();
        for write in group {
            assert_eq!(write.await.unwrap(), synced);
        }
        assert_eq!(last.await.unwrap(), synced);
    })
    .await;
}

/// The database as a power cut leaves it: of the log, what was synced and any of the other pages.
fn cut(path: &std::path::Path, synced: u64, keep: impl Fn(u64) -> bool, to: &std::path::Path) -> rusqlite::Connection {
    const PAGE: usize = 4096;
    let log = |path: &std::path::Path| std::path::PathBuf::from(format!("{}-wal", path.display()));
    std::fs::copy(path, to).unwrap();
    let mut bytes = std::fs::read(log(path)).unwrap();
    for (page, bytes) in bytes.chunks_mut(PAGE).enumerate() {
        let start = (page * PAGE) as u64;
        let lost = usize::try_from(synced.saturating_sub(start)).unwrap().min(bytes.len());
        if !keep(page as u64) {
            bytes[lost..].fill(0);
        }
    }
    std::fs::write(log(to), bytes).unwrap();
    rusqlite::Connection::open(to).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_all_up_to_the_last_synced_write_is_there_and_nothing_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let db = Db::open(&format!("sqlite://{}", path.display()), SCHEMA).unwrap();
    let lazily = || WriteOptions { durability: Durability::Committed, quick: true, undo: None };
    for id in 0..20 {
        db.write_with(lazily(), insert(id, &format!("n{id}"))).await.unwrap();
    }
    db.write(insert(20, "n20")).await.unwrap();
    let synced = std::fs::metadata(format!("{}-wal", path.display())).unwrap().len();
    for id in 21..60 {
        db.write_with(lazily(), insert(id, &format!("n{id}"))).await.unwrap();
    }
    let mut counts = Vec::new();
    for (case, keep) in
        [|_| false, |_| true, |page| page % 2 == 0, |page| page % 3 != 0, |page| page < 30].iter().enumerate()
    {
        let after = cut(&path, synced, keep, &folder.path().join(format!("{case}.db")));
        let whole: String = after.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        // What is lost is the end.
        let [count, last] = ["count(*)", "max(id) + 1"]
            .map(|what| after.query_row(&format!("SELECT {what} FROM items"), [], |row| row.get::<_, i64>(0)).unwrap());
        assert_eq!(count, last, "case {case}");
        counts.push(count);
    }
    assert_eq!(counts[..2], [21, 60]);
    assert!(counts.iter().all(|count| *count >= 21), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_database_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    for id in 0..5 {
        let db = Db::open(&format!("sqlite://{}", path.display()), SCHEMA).unwrap();
        db.write(insert(id, &format!("n{id}"))).await.unwrap();
        db.read(|tx| tx.query("SELECT id FROM items", &[])).await.unwrap();
        drop((db.clone(), db));
        assert!(!std::path::Path::new(&format!("{}-wal", path.display())).exists(), "after {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_write_runs_on_the_callers_thread_on_sqlite_and_others_do_not() {
    on_both(async |url| {
        let db = Db::open(&url, SCHEMA).unwrap();
        let here = std::thread::current().id();
        let is_here = |durability, quick| {
            db.write_with(WriteOptions { durability, quick, undo: None }, move |tx| {
                tx.begin()?;
                Ok::<_, Error>(std::thread::current().id() == here)
            })
        };
        let sqlite = db.dialect() == Dialect::Sqlite;
        assert_eq!(is_here(Durability::Committed, true).await, Ok(sqlite));
        assert_eq!(is_here(Durability::Committed, false).await, Ok(false));
        assert_eq!(is_here(Durability::Synced, true).await, Ok(false));
        let options = || WriteOptions { durability: Durability::Committed, quick: true, undo: None };
        let panicked = db.write_with(options(), |_| -> Result<(), Error> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(Error::Statement(_))));
        // One that fails leaves nothing, and no transaction.
        let failed = db.write_with(options(), |tx| {
            insert(1, "one")(tx)?;
            Err::<(), _>(Error::Unsupported("on purpose"))
        });
        assert_eq!(failed.await, Err(Error::Unsupported("on purpose")));
        db.write_with(options(), insert(1, "one")).await.unwrap();
        drop(db);
        // The last handle has let go of the database, whoever has written last.
        let again = Db::open_exclusive(&url, SCHEMA).unwrap();
        assert!(matches!(again.write(insert(1, "one")).await, Err(Error::Constraint(_))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_request_fails_alone() {
    on_both(async |url| {
        let db = Arc::new(Db::open(&url, SCHEMA).unwrap());
        // All queued before the writer can answer: they share commits.
        let tasks: Vec<_> = (0..200)
            .map(|i| {
                let db = db.clone();
                tokio::spawn(async move { db.write(insert(i, &format!("n{}", i / 2))).await })
            })
            .collect();
        let mut failed = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(changed) => assert_eq!(changed, 1),
                Err(Error::Constraint(_)) => failed += 1,
                Err(other) => panic!("{other}"),
            }
        }
        let rows =
            db.read(|tx| tx.query("SELECT count(*) FROM items", &[])).await.unwrap_or_else(|e: Error| panic!("{e}"));
        assert_eq!((failed, rows[0].int(0).unwrap()), (100, 100));
        let panicked = db.write(|_| -> Result<(), Error> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(Error::Statement(_))));
        db.write(insert(1000, "after")).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reopens_and_refuses_a_newer_schema_and_a_second_owner() {
    on_both(async |url| {
        let db = Db::open_exclusive(&url, SCHEMA).unwrap();
        db.write(insert(1, "kept")).await.unwrap();
        assert!(matches!(Db::open_exclusive(&url, SCHEMA), Err(Error::Owned(_))));
        let second = Db::open(&url, SCHEMA).unwrap();
        let rows =
            second.read(|tx| tx.query("SELECT name FROM items", &[])).await.unwrap_or_else(|e: Error| panic!("{e}"));
        assert_eq!(rows[0].text(0), Ok("kept"));
        assert!(matches!(Db::open(&url, &[]), Err(Error::NewerSchema(name)) if name == "0001_items"));
    })
    .await;
}

#[tokio::test]
async fn snapshot_of_a_database_in_use_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite://{}/a.db", folder.path().display()), SCHEMA).unwrap();
    for i in 0..50 {
        db.write(insert(i, &format!("n{i}"))).await.unwrap();
    }
    let copy = folder.path().join("copies/b.db");
    db.snapshot(&copy).await.unwrap();
    db.write(insert(99, "later")).await.unwrap();
    let copy = Db::open(&format!("sqlite://{}", copy.display()), SCHEMA).unwrap();
    let rows =
        copy.read(|tx| tx.query("SELECT count(*) FROM items", &[])).await.unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(rows[0].int(0), Ok(50));
}

#[tokio::test]
async fn a_connection_that_the_server_has_ended_is_made_again() {
    let server = testing::PostgresServer::start().unwrap();
    let url = server.database().unwrap();
    let db = Db::open(&url, SCHEMA).unwrap();
    fn count(tx: &mut dyn Tx) -> Result<i64, Error> {
        tx.query("SELECT COUNT(*) FROM items", &[])?[0].int(0)
    }
    db.write(insert(1, "a")).await.unwrap();
    assert_eq!(db.read(count).await, Ok(1));
    // As in a restart, every connection gets the same error.
    let ends = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() \
                AND pid <> pg_backend_pid()";
    let end_all = move || ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap().batch_execute(ends).unwrap();
    std::thread::spawn(end_all).join().unwrap();
    db.write(insert(2, "b")).await.unwrap();
    assert_eq!(db.read(count).await, Ok(2));
    drop(server);
    let away = db.write(insert(3, "c")).await;
    assert!(matches!(away, Err(Error::Unavailable(_))), "{away:?}");
    let away = db.read(count).await;
    assert!(matches!(away, Err(Error::Unavailable(_))), "{away:?}");
}

fn names_in(folder: &std::path::Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_program_had_not_committed_is_not_in_the_copy_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let [at_work, killed, copied] = ["at-work", "killed", "copied"].map(|name| folder.path().join(name));
    [&at_work, &killed].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let file = at_work.join("study.db");
    let program = rusqlite::Connection::open(&file).unwrap();
    program.execute_batch("PRAGMA cache_size = 5; CREATE TABLE t (x INTEGER, text TEXT)").unwrap();
    let fill = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 500) \
                INSERT INTO t SELECT x, printf('%.500c', 'x') FROM n";
    program.execute_batch(fill).unwrap();
    // More than the cache holds: pages of the transaction are in the file before it is committed.
    program.execute_batch("BEGIN; UPDATE t SET x = -1, text = printf('%.500c', 'y')").unwrap();
    for name in names_in(&at_work) {
        std::fs::copy(at_work.join(&name), killed.join(&name)).unwrap();
    }
    assert_eq!(names_in(&killed), ["study.db", "study.db-journal"]);
    let before = std::fs::read(killed.join("study.db")).unwrap();
    let changed = before.windows(50).any(|window| window.iter().all(|byte| *byte == b'y'));
    assert!(changed, "the transaction has reached the file");
    Db::copy_of_file(&killed.join("study.db"), &copied).unwrap();
    let sum = "SELECT SUM(x), COUNT(*) FROM t WHERE text NOT LIKE '%y%'";
    let read = |path: &std::path::Path| {
        let copy = rusqlite::Connection::open(path).unwrap();
        copy.query_row(sum, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
    };
    assert_eq!(read(&copied), (125_250, 500));
    assert_eq!(std::fs::read(killed.join("study.db")).unwrap(), before);
    assert_eq!(names_in(&killed), ["study.db", "study.db-journal"], "it stays as it is");
}

#[test]
fn the_copy_of_a_file_in_use_is_whole_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("study.db");
    let program = rusqlite::Connection::open(&file).unwrap();
    program.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
    program.execute_batch("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1), (2)").unwrap();
    let copied = tempfile::tempdir().unwrap();
    let count = |name: &str| {
        let copy = copied.path().join(name);
        Db::copy_of_file(&file, &copy).unwrap();
        let copy = rusqlite::Connection::open(copy).unwrap();
        copy.query_row("SELECT COUNT(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(count("in use"), 2, "what is in the log alone as well");
    program.close().unwrap();
    assert_eq!(names_in(folder.path()), ["study.db"]);
    assert_eq!(count("at rest"), 2);
    assert_eq!(names_in(folder.path()), ["study.db"]);
}

#[test]
fn urls() {
    assert!(matches!(Db::open("mysql://x", &[]), Err(Error::Url(_))));
    assert_eq!(redact("postgresql://u:secret@h/d"), "postgresql://u:***@h/d");
    let error = Db::open("sqlite:///proc/none/x.db", &[]).unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error}");
}
