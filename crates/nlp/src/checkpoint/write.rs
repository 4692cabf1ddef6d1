//! Writing of checkpoint folders that `transformers` loads.
use std::{fs, path::Path};

use super::{Elements, write_safetensors};
use crate::{Error, encoder::EncoderConfig, files};

/// What makes up a tokenizer beside the weights; those that exist are copied.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spm.model",
];

/// A tensor to write: the name in the file, the shape and the elements.
pub type NamedTensor<'a> = (String, Vec<usize>, &'a [f32]);

/// Writes a checkpoint folder in one step: weights, configuration (which says what the head is for), and the tokenizer
/// of `tokenizer_dir`. `dir` must not exist or be empty.
pub fn write_checkpoint(
    dir: &Path,
    config: &EncoderConfig,
    tensors: &[NamedTensor<'_>],
    tokenizer_dir: &Path,
) -> Result<(), Error> {
    files::write_folder(dir, |folder| {
        let json = serde_json::to_vec_pretty(&config.to_json());
        let json = json.map_err(|e| Error::format(&folder.join("config.json"), e.to_string()))?;
        files::write_file(&folder.join("config.json"), &json)?;
        let named: Vec<_> =
            tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), Elements::F32(values))).collect();
        write_safetensors(&folder.join("model.safetensors"), &named)?;
        for name in TOKENIZER_FILES {
            let source = tokenizer_dir.join(name);
            if source.exists() {
                fs::copy(&source, folder.join(name)).map_err(|e| Error::io(&source, e))?;
            }
        }
        Ok(())
    })
}
