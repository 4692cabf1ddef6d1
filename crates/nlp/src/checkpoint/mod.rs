//! Hugging Face checkpoint folders: `config.json`, `model.safetensors`, `tokenizer.json`.
mod safetensors;
mod weights;
mod write;

use std::path::{Path, PathBuf};

pub use safetensors::{Elements, write_safetensors};
use sha2::{Digest, Sha256};
pub use weights::{Dtype, TensorRef, Weights};
pub use write::{NamedTensor, TOKENIZER_FILES, write_checkpoint};

pub use crate::encoder::{Activation, EncoderConfig, TensorSpec};
use crate::{Error, files, tokenizer::WordTokenizer};

/// An opened checkpoint folder. The weights are mapped, not read.
pub struct Checkpoint {
    /// The folder.
    pub dir: PathBuf,
    /// `config.json`.
    pub config: EncoderConfig,
    /// `model.safetensors`, or the shards of its index.
    pub weights: Weights,
}

impl Checkpoint {
    /// Opens a folder and checks that every tensor of the encoder is there, with the shape that `config.json` asks for.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        if !dir.is_dir() {
            let kind = if dir.exists() { std::io::ErrorKind::NotADirectory } else { std::io::ErrorKind::NotFound };
            return Err(Error::io(dir, std::io::Error::new(kind, "no such checkpoint folder")));
        }
        let config = EncoderConfig::read(&dir.join("config.json"))?;
        let weights = Weights::open(dir, config.family.prefix())?;
        for spec in config.layout().required() {
            weights.check(&spec.name, &spec.shape)?;
        }
        Ok(Self { dir: dir.to_owned(), config, weights })
    }

    /// Whether the file holds the whole head of the task that `config.json` names.
    pub fn has_head(&self) -> bool {
        let layout = self.config.layout();
        let mut head = layout.leaves.iter().filter(|leaf| leaf.optional).flat_map(|leaf| &leaf.parts).peekable();
        head.peek().is_some() && head.all(|spec| self.weights.check(&spec.name, &spec.shape).is_ok())
    }

    /// The tokenizer beside the weights; an error when it has more entries than the word table has rows.
    pub fn tokenizer(&self) -> Result<WordTokenizer, Error> {
        let path = self.dir.join("tokenizer.json");
        let tokenizer = WordTokenizer::load(&path)?;
        let size = tokenizer.vocabulary_size();
        if size > self.config.vocab_size {
            let problem = format!("has {size} tokens, but config.json's vocab_size is {}", self.config.vocab_size);
            return Err(Error::format(&path, problem));
        }
        Ok(tokenizer)
    }

    /// SHA-256 over the digests of `config.json`, the weights and `tokenizer.json`: the identity of the checkpoint.
    pub fn digest(&self) -> Result<String, Error> {
        let mut hash = Sha256::new();
        let others = ["config.json", "tokenizer.json"].map(|name| self.dir.join(name));
        for path in self.weights.files().into_iter().chain(others) {
            hash.update(files::digest(&path)?);
        }
        Ok(hex::encode(hash.finalize()))
    }
}
