//! Writing of safetensors files: header length, JSON header, little-endian data in the order given.
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use serde_json::{Map, json};

use crate::Error;

/// Elements of a tensor to be written.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// Type F32.
    F32(&'a [f32]),
    /// Type I64.
    I64(&'a [i64]),
}

impl Elements<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => values.len() * 4,
            Self::I64(values) => values.len() * 8,
        }
    }

    fn dtype(&self) -> &'static str {
        match self {
            Self::F32(_) => "F32",
            Self::I64(_) => "I64",
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::F32(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
            Self::I64(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        }
    }
}

/// Writes and syncs a file of named tensors, with `__metadata__` as `transformers` wants it (`format: pt`).
pub fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>, Elements<'_>)]) -> Result<(), Error> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for (name, shape, elements) in tensors {
        if shape.iter().product::<usize>() != elements.len() {
            let problem = format!("tensor `{name}` of shape {shape:?} was given {} elements", elements.len());
            return Err(Error::format(path, problem));
        }
        let end = offset + elements.bytes();
        header.insert(name.clone(), json!({"dtype": elements.dtype(), "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(|e| Error::format(path, e.to_string()))?;
    // The data starts at a multiple of 8, so that a mapped tensor is aligned.
    header.resize(header.len().next_multiple_of(8), b' ');
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, _, elements) in tensors {
            elements.write(&mut out)?;
        }
        out.into_inner().map_err(|e| e.into_error())?.sync_all()
    };
    write().map_err(|e| Error::io(path, e))
}
