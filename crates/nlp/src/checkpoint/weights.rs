//! Mapped safetensors files, looked up by names without the family's prefix.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{SafeTensors, tensor::Metadata};
use serde_json::Value;

use crate::{Error, files};

pub use safetensors::Dtype;

/// The tensors of a checkpoint.
pub struct Weights {
    shards: Vec<Shard>,
    /// Name without prefix to shard and name in the file.
    index: BTreeMap<String, (usize, String)>,
    path: PathBuf,
}

struct Shard {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where the data begins in the file.
    start: usize,
}

/// A tensor in the mapped file.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Little-endian elements.
    pub data: &'a [u8],
}

/// Endings of weights in forms that are not read; PyTorch's may run code when it is loaded.
const OTHER_WEIGHTS: [&str; 6] = [".bin", ".bin.index.json", ".pt", ".h5", ".msgpack", ".ot"];

/// A file of weights in another form; of several the first by name.
fn other_weights(dir: &Path) -> Option<String> {
    let names = dir.read_dir().ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.contains("model") && OTHER_WEIGHTS.iter().any(|end| name.ends_with(end))).min()
}

impl Weights {
    /// Opens `model.safetensors` of a folder, or the shards named by `model.safetensors.index.json`. `prefix` is what names of the
    /// base model may begin with.
    pub fn open(dir: &Path, prefix: &str) -> Result<Self, Error> {
        let single = dir.join("model.safetensors");
        let listed = dir.join("model.safetensors.index.json");
        if single.exists() || !listed.exists() {
            if let Some(other) = other_weights(dir).filter(|_| !single.exists()) {
                let problem = format!(
                    "no model.safetensors, only {other}: save the model again with `save_pretrained` of transformers, which \
                     writes safetensors"
                );
                return Err(Error::format(dir, problem));
            }
            return Self::open_files(std::slice::from_ref(&single), single.clone(), prefix);
        }
        let json: Value =
            serde_json::from_slice(&files::read(&listed)?).map_err(|e| Error::format(&listed, e.to_string()))?;
        let names: Option<BTreeSet<&str>> =
            json.get("weight_map").and_then(Value::as_object).and_then(|map| map.values().map(Value::as_str).collect());
        let names = names.ok_or_else(|| Error::format(&listed, "no `weight_map` of tensor names to file names"))?;
        if let Some(name) = names.iter().find(|name| name.contains(['/', '\\']) || **name == "..") {
            return Err(Error::format(&listed, format!("shard `{name}` lies outside the folder")));
        }
        Self::open_files(&names.iter().map(|name| dir.join(name)).collect::<Vec<_>>(), listed, prefix)
    }

    /// Opens one safetensors file of any content; its names have no prefix.
    pub fn open_file(path: &Path) -> Result<Self, Error> {
        Self::open_files(&[path.to_owned()], path.to_owned(), "")
    }

    fn open_files(paths: &[PathBuf], path: PathBuf, prefix: &str) -> Result<Self, Error> {
        let shards = paths.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut index = BTreeMap::new();
        for (shard, opened) in shards.iter().enumerate() {
            for name in opened.metadata.offset_keys() {
                index.insert(canonical_name(&name, prefix), (shard, name));
            }
        }
        Ok(Self { shards, index, path })
    }

    /// Names without the family's prefix. Buffers and other heads (`embeddings.position_ids`, `cls.*`, a pooler) are
    /// listed too; nobody needs to ask for them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// Whether a tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
    }

    /// A tensor by its name without prefix.
    pub fn get(&self, name: &str) -> Result<TensorRef<'_>, Error> {
        let missing = || Error::MissingTensor { path: self.path.clone(), tensor: name.to_owned() };
        let (shard, file_name) = self.index.get(name).ok_or_else(missing)?;
        let shard = self.shards.get(*shard).ok_or_else(missing)?;
        let info = shard.metadata.info(file_name).ok_or_else(missing)?;
        let (begin, end) = info.data_offsets;
        let data = shard.map.get(shard.start + begin..shard.start + end).ok_or_else(missing)?;
        Ok(TensorRef { dtype: info.dtype, shape: &info.shape, data })
    }

    /// A float tensor of the shape expected.
    pub fn check(&self, name: &str, expected: &[usize]) -> Result<TensorRef<'_>, Error> {
        let tensor = self.get(name)?;
        let file_name = || self.index.get(name).map_or_else(|| name.to_owned(), |(_, file_name)| file_name.clone());
        if tensor.shape != expected {
            return Err(Error::TensorShape {
                path: self.path.clone(),
                tensor: file_name(),
                found: tensor.shape.to_vec(),
                expected: expected.to_vec(),
            });
        }
        if !matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let found = format!("{:?}", tensor.dtype);
            return Err(Error::TensorType { path: self.path.clone(), tensor: file_name(), found });
        }
        Ok(tensor)
    }

    /// The elements of a float tensor of the shape expected, as f32.
    pub fn f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        Ok(self.check(name, expected)?.to_f32())
    }

    /// The elements of an I64 tensor and its shape.
    pub fn i64(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>), Error> {
        let tensor = self.get(name)?;
        if tensor.dtype != Dtype::I64 {
            let problem = format!("tensor `{name}` has type {:?}, expected I64", tensor.dtype);
            return Err(Error::format(&self.path, problem));
        }
        let (words, _) = tensor.data.as_chunks::<8>();
        Ok((tensor.shape.to_vec(), words.iter().map(|word| i64::from_le_bytes(*word)).collect()))
    }
}

impl TensorRef<'_> {
    /// The elements as f32; those of other types than F32, F16 and BF16 are not converted (empty).
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => self.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F16 => {
                self.data.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
            }
            Dtype::BF16 => {
                self.data.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
        if size < 8 {
            return Err(Error::format(path, format!("truncated: {size} bytes, a safetensors file has more than 8")));
        }
        // SAFETY: checkpoints are published by rename and never changed in place; a file that another process
        // truncates nevertheless ends this process with SIGBUS, it cannot be made to read foreign memory.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| Error::format(path, format!("truncated or not a safetensors file ({size} bytes): {e}")))?;
        Ok(Self { path: path.to_owned(), map, metadata, start: 8 + header })
    }
}

/// The name without prefix of a tensor in a file, old LayerNorm names (`gamma`, `beta`) made new.
fn canonical_name(file_name: &str, prefix: &str) -> String {
    let name = file_name.strip_prefix(prefix).unwrap_or(file_name);
    if let Some(stem) = name.strip_suffix(".gamma") {
        format!("{stem}.weight")
    } else if let Some(stem) = name.strip_suffix(".beta") {
        format!("{stem}.bias")
    } else {
        name.to_owned()
    }
}
