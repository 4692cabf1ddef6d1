//! Results of a prediction, a JSON object a line: kept while the work goes on so that a restart continues, and visible under their
//! name only when complete.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, files};

/// Rows so far, in the folder of the work.
const ROWS: &str = "rows.jsonl";

/// What the rows belong to, beside them.
const KEY: &str = "rows.key";

/// Writes results one by one.
pub struct ResultWriter {
    file: BufWriter<File>,
    path: PathBuf,
    key_path: PathBuf,
    rows: usize,
}

/// What every line begins with.
#[derive(Deserialize)]
struct Numbered {
    row: usize,
}

impl ResultWriter {
    /// Goes on after the rows that `folder` holds of an earlier attempt, or begins anew. `key` stands for everything that the results
    /// depend on (model, input, settings): rows of another key are thrown away, and so is a line that was cut off.
    pub fn open(folder: &Path, key: &str) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let (path, key_path) = (folder.join(ROWS), folder.join(KEY));
        let ours = fs::read(&key_path).is_ok_and(|found| found == key.as_bytes());
        if !ours {
            remove(&path)?;
            files::write_file(&key_path, key.as_bytes())?;
        }
        let (rows, length) = whole_rows(&path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .append(true)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        file.set_len(length).map_err(|e| Error::io(&path, e))?;
        Ok(Self { file: BufWriter::new(file), path, key_path, rows })
    }

    /// Rows written so far, those of earlier attempts included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row; its number, counted from 0, comes first.
    pub fn push(&mut self, fields: Map<String, Value>) -> Result<(), Error> {
        let mut line = Map::new();
        line.insert("row".to_owned(), self.rows.into());
        line.extend(fields);
        serde_json::to_writer(&mut self.file, &line)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|e| Error::io(&self.path, e))?;
        self.rows += 1;
        Ok(())
    }

    /// Hands all rows to the system, so that they survive the end of the process.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.file.flush().map_err(|e| Error::io(&self.path, e))
    }

    /// Gives the rows the name `target`, in one step, and leaves nothing else behind.
    pub fn finish(mut self, target: &Path) -> Result<(), Error> {
        self.flush()?;
        self.file.get_ref().sync_all().map_err(|e| Error::io(&self.path, e))?;
        match fs::rename(&self.path, target) {
            // The folder of the work may lie on another disk than the results.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                files::copy_file(&self.path, target)?;
                remove(&self.path)?;
            }
            other => other.map_err(|e| Error::io(target, e))?,
        }
        remove(&self.key_path)
    }
}

/// How many whole rows a file begins with, numbered as they must be, and their length in bytes.
fn whole_rows(path: &Path) -> Result<(usize, u64), Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(Error::io(path, error)),
    };
    let mut reader = BufReader::new(file);
    let (mut rows, mut length) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))?;
        let numbered = serde_json::from_slice::<Numbered>(&line).is_ok_and(|line| line.row == rows);
        if count == 0 || !line.ends_with(b"\n") || !numbered {
            return Ok((rows, length));
        }
        rows += 1;
        length += count as u64;
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Map<String, Value> {
        Map::from_iter([("text".to_owned(), text.into())])
    }

    fn write(folder: &Path, key: &str, texts: &[&str]) -> ResultWriter {
        let mut writer = ResultWriter::open(folder, key).unwrap();
        texts.iter().for_each(|text| writer.push(fields(text)).unwrap());
        writer.flush().unwrap();
        writer
    }

    #[test]
    fn a_restart_goes_on_after_the_last_whole_row() {
        let dir = tempfile::tempdir().unwrap();
        let (work, target) = (dir.path().join("work"), dir.path().join("results.jsonl"));
        drop(write(&work, "k", &["a", "b"]));
        // The third row was cut off.
        let mut file = OpenOptions::new().append(true).open(work.join(ROWS)).unwrap();
        file.write_all(b"{\"row\":2,\"te").unwrap();
        let writer = write(&work, "k", &["c"]);
        assert_eq!(writer.rows(), 3);
        assert!(!target.exists());
        writer.finish(&target).unwrap();
        let expected = "{\"row\":0,\"text\":\"a\"}\n{\"row\":1,\"text\":\"b\"}\n{\"row\":2,\"text\":\"c\"}\n";
        assert_eq!(fs::read_to_string(&target).unwrap(), expected);
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
    }

    #[test]
    fn rows_of_something_else_are_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        drop(write(dir.path(), "k", &["a", "b"]));
        assert_eq!(ResultWriter::open(dir.path(), "other").unwrap().rows(), 0);
        drop(write(dir.path(), "other", &["a", "b", "c"]));
        // A hole that a power cut left: what follows it does not count.
        let text = fs::read_to_string(dir.path().join(ROWS)).unwrap();
        fs::write(dir.path().join(ROWS), text.replace("\"row\":1", "\0\0\0\0\0\0\0")).unwrap();
        assert_eq!(ResultWriter::open(dir.path(), "other").unwrap().rows(), 1);
    }
}
