//! Rows packed into bytes, in memory as long as they fit a budget and in an unnamed file beyond it, so that a set larger than memory trains.
//!
//! A document is its example and its rows; an index of 12 bytes a row and 8 a document says where each begins. All that stays in memory for
//! a row beyond the budget is its length, and its document when documents have windows: 4 bytes each. Rows are read with positioned reads: they take no address space, and what the system
//! keeps of the file in its cache it gives back when memory is wanted.
use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    Error,
    align::Encoded,
    code::{decode_example, decode_row, encode_example, encode_row},
    rows::{Example, Rows, no_row},
};

/// Bytes of rows held in memory before they go to a file.
pub const MEMORY: usize = 256 << 20;

/// Bytes of an entry of the index of rows: where it begins and how long it is.
const ROW_ENTRY: usize = 12;
const DOCUMENT_ENTRY: usize = 8;

/// Takes documents and makes [`PackedRows`] of them.
pub struct RowWriter {
    data: Sink,
    rows: Sink,
    documents: Sink,
    lengths: Vec<u32>,
    /// Document of each row; empty as long as each document has one row.
    owners: Vec<u32>,
    count: u32,
    buffer: Vec<u8>,
}

impl RowWriter {
    /// A writer that holds up to `memory` bytes and then writes into unnamed files in `work_dir`, which vanish with their last reader;
    /// without a folder everything is held in memory.
    pub fn new(work_dir: Option<&Path>, memory: usize) -> Self {
        let sink = |share: usize| Sink::Memory { bytes: Vec::new(), limit: share, dir: work_dir.map(Path::to_owned) };
        Self {
            data: sink(memory - memory / 4),
            rows: sink(memory / 8),
            documents: sink(memory / 8),
            lengths: Vec::new(),
            owners: Vec::new(),
            count: 0,
            buffer: Vec::new(),
        }
    }

    /// Adds a document with its rows, one or several windows.
    ///
    /// # Errors
    /// The file cannot be written, or there are 2^32 documents.
    pub fn push<'a>(&mut self, example: &Example, rows: impl IntoIterator<Item = &'a Encoded>) -> Result<(), Error> {
        if self.count == u32::MAX {
            return Err(Error::argument("train", "has more than 4,294,967,295 documents"));
        }
        self.buffer.clear();
        encode_example(example, &mut self.buffer);
        let at = self.data.write(&self.buffer)?;
        self.documents.write(&at.to_le_bytes())?;
        let before = self.lengths.len();
        for row in rows {
            self.buffer.clear();
            encode_row(row, &mut self.buffer);
            let at = self.data.write(&self.buffer)?;
            let mut entry = [0; ROW_ENTRY];
            entry[..8].copy_from_slice(&at.to_le_bytes());
            entry[8..].copy_from_slice(&(self.buffer.len() as u32).to_le_bytes());
            self.rows.write(&entry)?;
            self.lengths.push(u32::try_from(row.length()).unwrap_or(u32::MAX));
        }
        let added = self.lengths.len() - before;
        if added != 1 && self.owners.is_empty() {
            self.owners = (0..self.count).collect();
        }
        if added != 1 || !self.owners.is_empty() {
            self.owners.resize(self.owners.len() + added, self.count);
        }
        self.count += 1;
        Ok(())
    }

    /// Bytes of the buffers that are held in memory now.
    pub fn held(&self) -> usize {
        let sinks = [&self.data, &self.rows, &self.documents].map(Sink::held).iter().sum::<usize>();
        sinks + (self.lengths.capacity() + self.owners.capacity()) * size_of::<u32>() + self.buffer.capacity()
    }

    /// The rows.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<PackedRows, Error> {
        self.lengths.shrink_to_fit();
        let end = self.data.length();
        self.documents.write(&end.to_le_bytes())?;
        Ok(PackedRows {
            data: self.data.finish()?,
            rows: self.rows.finish()?,
            documents: self.documents.finish()?,
            lengths: self.lengths,
            owners: self.owners,
            count: self.count as usize,
        })
    }
}

enum Sink {
    Memory { bytes: Vec<u8>, limit: usize, dir: Option<PathBuf> },
    File { file: BufWriter<File>, length: u64, dir: PathBuf },
}

impl Sink {
    /// Appends bytes and says where they begin.
    fn write(&mut self, new: &[u8]) -> Result<u64, Error> {
        if let Self::Memory { bytes, limit, dir: Some(dir) } = self
            && bytes.len() + new.len() > *limit
        {
            let file = tempfile::tempfile_in(&*dir).map_err(|e| Error::io(dir, e))?;
            let mut file = BufWriter::with_capacity(1 << 20, file);
            file.write_all(bytes).map_err(|e| Error::io(dir, e))?;
            *self = Self::File { length: bytes.len() as u64, file, dir: std::mem::take(dir) };
        }
        let at = self.length();
        match self {
            Self::Memory { bytes, .. } => bytes.extend_from_slice(new),
            Self::File { file, length, dir } => {
                file.write_all(new).map_err(|e| Error::io(dir, e))?;
                *length += new.len() as u64;
            }
        }
        Ok(at)
    }

    fn length(&self) -> u64 {
        match self {
            Self::Memory { bytes, .. } => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Memory { bytes, .. } => bytes.capacity(),
            Self::File { file, .. } => file.capacity(),
        }
    }

    fn finish(self) -> Result<Store, Error> {
        match self {
            Self::Memory { mut bytes, .. } => {
                bytes.shrink_to_fit();
                Ok(Store::Memory(bytes))
            }
            Self::File { file, dir, .. } => {
                let file = file.into_inner().map_err(|e| Error::io(&dir, e.into_error()))?;
                Ok(Store::File(file, dir))
            }
        }
    }
}

enum Store {
    Memory(Vec<u8>),
    File(File, PathBuf),
}

impl Store {
    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, Error> {
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let found = start.checked_add(length).and_then(|end| bytes.get(start..end));
                found.map(<[u8]>::to_vec).ok_or_else(|| Error::argument("row", "lies outside of what was packed"))
            }
            Self::File(file, dir) => {
                let mut buffer = vec![0; length];
                read_at(file, &mut buffer, at).map_err(|e| Error::io(dir, e))?;
                Ok(buffer)
            }
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut buffer: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, at)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                at += count as u64;
            }
        }
    }
    Ok(())
}

/// Rows packed into bytes.
pub struct PackedRows {
    data: Store,
    rows: Store,
    documents: Store,
    lengths: Vec<u32>,
    owners: Vec<u32>,
    count: usize,
}

impl PackedRows {
    /// Whether some of it lies in files.
    pub fn on_disk(&self) -> bool {
        matches!(self.data, Store::File(..))
    }

    /// Where a row begins and how long it is.
    fn entry(&self, row: usize) -> Result<(u64, usize), Error> {
        if row >= self.lengths.len() {
            return Err(no_row(row, self.lengths.len()));
        }
        let entry = self.rows.read((row * ROW_ENTRY) as u64, ROW_ENTRY)?;
        Ok((offset(&entry), entry.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)))
    }
}

fn offset(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Rows for PackedRows {
    fn len(&self) -> usize {
        self.lengths.len()
    }

    fn length(&self, row: usize) -> usize {
        self.lengths.get(row).map_or(0, |length| *length as usize)
    }

    fn get(&self, row: usize) -> Result<Encoded, Error> {
        let (at, length) = self.entry(row)?;
        decode_row(&self.data.read(at, length)?).ok_or_else(damaged)
    }

    fn document(&self, row: usize) -> usize {
        self.owners.get(row).map_or(row, |document| *document as usize)
    }

    fn documents(&self) -> usize {
        self.count
    }

    fn example(&self, document: usize) -> Result<Example, Error> {
        if document >= self.count {
            return Err(no_row(document, self.count));
        }
        let at = offset(&self.documents.read((document * DOCUMENT_ENTRY) as u64, DOCUMENT_ENTRY)?);
        // The example says how long it is.
        let length = self.data.read(at, 4)?;
        let length = length.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        decode_example(&self.data.read(at, length)?).ok_or_else(damaged)
    }
}

fn damaged() -> Error {
    Error::argument("row", "what was packed cannot be read back")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        align::IGNORED,
        data::{Answer, Sentence, TextExample},
        task::Target,
    };

    fn sentence(n: usize) -> (Example, Encoded) {
        let words: Vec<String> = (0..n % 7 + 1).map(|word| format!("wörd{word}")).collect();
        let text = n
            .is_multiple_of(4)
            .then(|| format!(" {}\u{a0}\n", words.join(if n.is_multiple_of(8) { "" } else { " \t" })));
        let tags = words.iter().map(|_| "B-x".to_owned()).collect();
        let length = words.len() + 2;
        let row = Encoded {
            input_ids: (0..length as i64).map(|id| id * 1000 + n as i64).collect(),
            type_ids: vec![0; length],
            target: Target::Tokens((0..length as i64).map(|at| if at % 2 == 0 { IGNORED } else { at }).collect()),
            words: (0..length).map(|at| at.checked_sub(1).filter(|at| at + 2 < length)).collect(),
            word_count: words.len(),
            covered: if n.is_multiple_of(4) { vec![(2, 1), (n, n / 2)] } else { Vec::new() },
        };
        (Example::Sentence(Sentence { words, tags, line: n + 1, text }), row)
    }

    fn text(n: usize) -> (Example, Encoded) {
        let (answer, target) = match n % 3 {
            0 => (Answer::Label("a".into()), Target::Class(4)),
            1 => (Answer::Labels(["b".to_owned(), "c".to_owned()].into()), Target::Classes(vec![1.0, 0.0, 1.0])),
            _ => (Answer::Value(-0.5), Target::Value(-0.5)),
        };
        let pair = n.is_multiple_of(2).then(|| "second".to_owned());
        let type_ids = vec![0, 0, i64::from(pair.is_some())];
        let row = Encoded {
            input_ids: vec![2, 30521, 3],
            type_ids,
            target,
            words: vec![None; 3],
            word_count: 0,
            covered: Vec::new(),
        };
        (Example::Text(TextExample { text: format!("text\n{n}"), pair, answer, line: n }), row)
    }

    #[test]
    fn rows_come_back_from_memory_and_from_files() {
        let dir = tempfile::tempdir().unwrap();
        for memory in [MEMORY, 400] {
            let mut writer = RowWriter::new(Some(dir.path()), memory);
            let all: Vec<(Example, Encoded)> =
                (0..50).map(|n| if n % 2 == 0 { sentence(n) } else { text(n) }).collect();
            for (example, row) in &all {
                writer.push(example, [row]).unwrap();
            }
            let packed = writer.finish().unwrap();
            assert_eq!(packed.on_disk(), memory == 400);
            assert_eq!((packed.len(), packed.documents()), (50, 50));
            for (index, (example, row)) in all.iter().enumerate().rev() {
                assert_eq!(packed.get(index).unwrap(), *row);
                assert_eq!(packed.example(index).unwrap(), *example);
                assert_eq!((packed.length(index), packed.document(index)), (row.length(), index));
            }
            assert!(packed.get(50).is_err() && packed.example(50).is_err());
            // The file has no name.
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn documents_may_have_several_rows() {
        let mut writer = RowWriter::new(None, 1);
        let (example, row) = sentence(1);
        for count in [1, 1, 3, 1, 2] {
            writer.push(&example, std::iter::repeat_n(&row, count)).unwrap();
        }
        let packed = writer.finish().unwrap();
        let documents: Vec<usize> = (0..packed.len()).map(|row| packed.document(row)).collect();
        assert_eq!(documents, [0, 1, 2, 2, 2, 3, 4, 4]);
        assert_eq!((packed.documents(), packed.on_disk()), (5, false));
    }

    #[test]
    fn what_is_held_does_not_grow_with_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let memory = 1 << 20;
        let mut writer = RowWriter::new(Some(dir.path()), memory);
        let mut most = 0;
        let rows = 200_000;
        for n in 0..rows {
            let (example, row) = sentence(n);
            writer.push(&example, [&row]).unwrap();
            most = most.max(writer.held());
        }
        let packed = writer.finish().unwrap();
        let Store::File(file, _) = &packed.data else { panic!("not in a file") };
        let written = file.metadata().unwrap().len();
        assert!(written > 30 << 20, "{written}");
        // The budget, doubled by a growing vector, three buffers of files, and twice 4 bytes a row.
        assert!(most <= 2 * memory + (3 << 20) + 8 * rows, "held {most} of {written}");
        assert_eq!(packed.get(rows - 1).unwrap(), sentence(rows - 1).1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let mut writer = RowWriter::new(Some(Path::new("/no/such/folder")), 10);
        let (example, row) = sentence(3);
        assert!(
            matches!(writer.push(&example, [&row]), Err(Error::Io { path, .. }) if path == Path::new("/no/such/folder"))
        );
    }
}
