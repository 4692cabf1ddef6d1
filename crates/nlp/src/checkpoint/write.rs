//! Writing of checkpoint folders that `transformers` loads.
use std::{fs, path::Path};

use serde_json::Value;

use super::{Elements, write_safetensors};
use crate::{Error, byte_level, encoder::EncoderConfig, files, task::Task};

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
/// of `tokenizer_dir`; one that is byte-level puts a blank before words given apart when it is words that the head says something of, as in
/// training. `dir` must not exist or be empty.
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
        if config.task == Some(Task::TokenClassification) {
            prefix_words(folder)?;
        }
        Ok(())
    })
}

/// Makes the tokenizer of a folder the one for words given apart, see [`byte_level`].
fn prefix_words(folder: &Path) -> Result<(), Error> {
    let rewrite = |name: &str, change: &dyn Fn(&[u8]) -> serde_json::Result<Option<Value>>| {
        let path = folder.join(name);
        let wrong = |error: serde_json::Error| Error::format(&path, error.to_string());
        if !path.exists() {
            return Ok(false);
        }
        let Some(file) = change(&files::read(&path)?).map_err(wrong)? else { return Ok(false) };
        files::write_file(&path, &serde_json::to_vec_pretty(&file).map_err(wrong)?)?;
        Ok(true)
    };
    if rewrite("tokenizer.json", &byte_level::with_prefix_space)? {
        rewrite("tokenizer_config.json", &|config| byte_level::with_prefix_space_in_config(config).map(Some))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        predict::{InputText, PipelineTokenizer},
        testing,
    };

    #[test]
    fn a_byte_level_tokenizer_puts_a_blank_before_words_for_a_head_that_tags_them() {
        let source = tempfile::tempdir().unwrap();
        let tokenizer = testing::byte_level_tokenizer_json();
        files::write_file(&source.path().join("tokenizer.json"), tokenizer.to_string().as_bytes()).unwrap();
        files::write_file(&source.path().join("tokenizer_config.json"), b"{\"add_prefix_space\": false}").unwrap();
        let Value::Object(config) = json!({"model_type": "roberta"}) else { panic!("an object") };
        let mut config = EncoderConfig::from_map(config, Path::new("config.json")).unwrap();
        let target = tempfile::tempdir().unwrap();
        for (name, task, first) in [("words", Task::TokenClassification, 6), ("texts", Task::SequenceClassification, 5)]
        {
            config.task = Some(task);
            let folder = target.path().join(name);
            write_checkpoint(&folder, &config, &[], source.path()).unwrap();
            let settings: Value =
                serde_json::from_slice(&files::read(&folder.join("tokenizer_config.json")).unwrap()).unwrap();
            assert_eq!(settings["add_prefix_space"], json!(task == Task::TokenClassification));
            let tokenizer = PipelineTokenizer::load(&folder.join("tokenizer.json"), 9, None).unwrap();
            let ids = |input: &InputText| tokenizer.rows(input).unwrap()[0].encoded.input_ids.clone();
            assert_eq!(ids(&InputText::Text("ab ab".to_owned())), [0, first, 6, 1]);
            assert_eq!(ids(&InputText::Words(vec!["ab".to_owned(); 2])), [0, 6, 6, 1]);
        }
    }
}
