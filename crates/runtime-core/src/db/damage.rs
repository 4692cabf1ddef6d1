//! Whether the file of a SQLite database is sound, asked before it is opened for work.

use std::{fs, path::PathBuf};

use rusqlite::{OpenFlags, config::DbConfig};

use super::{Error, Target, sqlite};

/// A SQLite file that cannot be worked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The first thing that SQLite finds.
    pub problem: String,
}

/// Asks SQLite's quick check about the file behind a URL: no database at all, cut off, a page that does not fit, a schema that cannot
/// be read. A file that is not there or empty becomes a fresh database and is sound, as is what PostgreSQL keeps for itself. The check
/// changes nothing and reads the whole file. Blocks.
///
/// # Errors
/// A file that cannot be read, or that another program keeps locked; neither says anything about its content.
pub fn damage(url: &str) -> Result<Option<Damage>, Error> {
    let Target::Sqlite(path) = Target::parse(url)? else { return Ok(None) };
    match fs::metadata(&path) {
        Ok(file) if file.is_file() && file.len() == 0 => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // Opening tells better what is wrong.
        _ => {}
    }
    let check = || -> rusqlite::Result<String> {
        // Not read-only: what an ended program has left in the log belongs to the database.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(sqlite::LOCK_PATIENCE)?;
        // It stays in the log, too, should the file turn out to be one for closer study.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    let found = |problem: String| Ok(Some(Damage { path: path.clone(), problem }));
    match check() {
        Ok(verdict) if verdict == "ok" => Ok(None),
        Ok(verdict) => found(verdict.replace('\n', " ").trim_start_matches("*** in database main *** ").to_owned()),
        Err(error) => match sqlite::at_open(&path, &error) {
            Error::Corrupt(_) => found(error.to_string()),
            other => Err(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::db::Db;

    /// A database in WAL mode that nobody has open.
    fn filled(path: &Path) -> String {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
        connection.execute_batch("BEGIN; CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").unwrap();
        for id in 0..500 {
            connection.execute("INSERT INTO things VALUES ($1, $2)", (id, "x".repeat(300))).unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        format!("sqlite://{}", path.display())
    }

    fn problem(url: &str) -> String {
        damage(url).unwrap().expect("no damage found").problem
    }

    #[test]
    fn each_kind_of_damage_is_found_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let url = filled(&path);
        assert_eq!(damage(&url).unwrap(), None);
        let sound = fs::read(&path).unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            change(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let found = problem(&url);
            assert_eq!(fs::read(&path).unwrap(), bytes, "{found}");
            found
        };
        let page = 4096;
        assert!(sound.len() > 20 * page);
        assert_eq!(with(&|bytes| bytes[..16].copy_from_slice(b"no SQLite format")), "file is not a database");
        let found = with(&|bytes| bytes[12 * page..13 * page].fill(0));
        assert!(found.contains("btree"), "{found}");
        let found = with(&|bytes| bytes.truncate(10 * page));
        assert!(found.contains("malformed") || found.contains("invalid page"), "{found}");
        let found = with(&|bytes| bytes.truncate(10 * page + 100));
        assert!(found.contains("malformed") || found.contains("invalid page"), "{found}");
        let found = with(&|bytes| {
            let at = bytes.windows(12).position(|window| window == b"CREATE TABLE").unwrap();
            bytes[at..at + 12].copy_from_slice(b"CREATE TABEL");
        });
        assert!(found.contains("malformed"), "{found}");
        fs::write(&path, b"hello").unwrap();
        assert_eq!(problem(&url), "file is not a database");
    }

    #[test]
    fn what_is_fresh_is_sound_and_what_is_locked_is_not_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let url = format!("sqlite://{}", path.display());
        assert_eq!(damage(&url).unwrap(), None, "no file");
        assert!(!path.exists());
        fs::write(&path, b"").unwrap();
        assert_eq!(damage(&url).unwrap(), None, "an empty file");
        assert_eq!(damage("postgresql://h/d").unwrap(), None);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(damage(&url), Err(Error::Open { .. })));
        fs::remove_dir(&path).unwrap();
        let url = filled(&path);
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("PRAGMA journal_mode=delete; BEGIN EXCLUSIVE").unwrap();
        let error = damage(&url).unwrap_err();
        assert!(matches!(&error, Error::Busy(text) if text.contains("x.db: database is locked")), "{error}");
        let error = Db::open(&url, &[]).unwrap_err();
        assert!(matches!(&error, Error::Busy(text) if text.contains("x.db: database is locked")), "{error}");
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(damage(&url).unwrap(), None);
    }

    #[test]
    fn the_log_of_a_program_that_was_killed_counts_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let url = filled(&path);
        let log = folder.path().join("x.db-wal");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA wal_autocheckpoint=0; DELETE FROM things WHERE id > 3").unwrap();
        // As it lies there when its program is killed.
        let copy = folder.path().join("copy.db");
        fs::copy(&path, &copy).unwrap();
        fs::copy(&log, folder.path().join("copy.db-wal")).unwrap();
        let url_of_copy = url.replace("x.db", "copy.db");
        let before = fs::read(folder.path().join("copy.db-wal")).unwrap();
        assert!(!before.is_empty());
        assert_eq!(damage(&url_of_copy).unwrap(), None);
        assert_eq!(fs::read(folder.path().join("copy.db-wal")).unwrap(), before);
    }
}
