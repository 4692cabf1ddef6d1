//! Writing of checkpoint folders that `transformers` loads.
use std::{fs, path::Path};

use super::{Elements, EncoderConfig, file_name, write_safetensors};
use crate::{Error, files};

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

/// The head of a written checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadTask {
    /// No head.
    Encoder,
    /// One label per token.
    TokenClassification,
}

impl HeadTask {
    /// The class of `transformers`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Encoder => "BertModel",
            Self::TokenClassification => "BertForTokenClassification",
        }
    }
}

/// Writes a checkpoint folder in one step: weights by names without prefix, configuration, and the tokenizer of
/// `tokenizer_dir`. `dir` must not exist or be empty.
pub fn write_checkpoint(
    dir: &Path,
    config: &EncoderConfig,
    task: HeadTask,
    tensors: &[(String, Vec<usize>, &[f32])],
    tokenizer_dir: &Path,
) -> Result<(), Error> {
    files::write_folder(dir, |folder| {
        let json = serde_json::to_vec_pretty(&config.to_json(task.architecture()));
        let json = json.map_err(|e| Error::format(&folder.join("config.json"), e.to_string()))?;
        files::write_file(&folder.join("config.json"), &json)?;
        let named: Vec<_> = tensors
            .iter()
            .map(|(name, shape, values)| (file_name(name), shape.clone(), Elements::F32(values)))
            .collect();
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
