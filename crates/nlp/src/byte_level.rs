//! Byte-level tokenizers (Radford et al. 2019) for words given apart: each word needs the blank before it that it has in a text.
//!
//! RoBERTa's and ModernBERT's `tokenizer.json` say `add_prefix_space: false`, by which words given apart are joined to one: `Anna`,
//! `lives` become `Anna`, `liv`, `es` instead of `ĠAnna`, `Ġlives`. `transformers` refuses such words for RoBERTa, and its example
//! of token classification sets `add_prefix_space`; so it is set here, and in the tokenizer of what was trained on words.

use serde_json::{Value, json};

const FLAG: &str = "add_prefix_space";

/// A `tokenizer.json` that puts a blank before each word; none when it does already, or is not byte-level.
pub(crate) fn with_prefix_space(tokenizer: &[u8]) -> serde_json::Result<Option<Value>> {
    // Spares most tokenizers, some of many megabytes, a second reading.
    if !std::str::from_utf8(tokenizer).is_ok_and(|text| text.contains("\"ByteLevel\"")) {
        return Ok(None);
    }
    let mut file: Value = serde_json::from_slice(tokenizer)?;
    let first = first_of(&mut file["pre_tokenizer"], "pretokenizers");
    if !first.is_some_and(|part| part["type"] == "ByteLevel" && set(part)) {
        return Ok(None);
    }
    // What trims the offsets must know of the blank.
    let after = &mut file["post_processor"];
    let parts = match after["type"] == "Sequence" {
        true => after["processors"].as_array_mut().into_iter().flatten().collect(),
        false => vec![after],
    };
    for part in parts.into_iter().filter(|part| part["type"] == "ByteLevel" || part["type"] == "RobertaProcessing") {
        set(part);
    }
    Ok(Some(file))
}

/// A `tokenizer_config.json` that goes with it: what this file says of the blank wins in `transformers`.
pub(crate) fn with_prefix_space_in_config(config: &[u8]) -> serde_json::Result<Value> {
    let mut file: Value = serde_json::from_slice(config)?;
    set(&mut file);
    Ok(file)
}

/// The part itself, or the first of a sequence. Behind another one a blank would come before each of that one's pieces.
fn first_of<'a>(part: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    if part["type"] == "Sequence" { part[key].as_array_mut()?.first_mut() } else { Some(part) }
}

/// Whether the flag was off; it is on now.
fn set(part: &mut Value) -> bool {
    let on = json!(true);
    match part.as_object_mut() {
        Some(fields) => fields.insert(FLAG.to_owned(), on.clone()) != Some(on),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pre_tokenizer: &Value, post_processor: &Value) -> Vec<u8> {
        json!({"pre_tokenizer": pre_tokenizer, "post_processor": post_processor}).to_string().into_bytes()
    }

    #[test]
    fn only_byte_level_tokenizers_without_the_blank_change() {
        let off = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        let on = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
        let roberta = |flag: bool| json!({"type": "RobertaProcessing", "add_prefix_space": flag});
        let sequence = |key: &str, part: &Value| json!({"type": "Sequence", key: [part, {"type": "Digits"}]});
        let changed = |pre: &Value, post: &Value| with_prefix_space(&file(pre, post)).unwrap();
        let expected = |pre: &Value, post: &Value| serde_json::from_slice(&file(pre, post)).ok();
        assert_eq!(changed(&off, &roberta(false)), expected(&on, &roberta(true)));
        let template = json!({"type": "TemplateProcessing"});
        assert_eq!(
            changed(&sequence("pretokenizers", &off), &sequence("processors", &off)),
            expected(&sequence("pretokenizers", &on), &sequence("processors", &on))
        );
        assert_eq!(changed(&off, &template), expected(&on, &template));
        for same in [&on, &json!({"type": "BertPreTokenizer"}), &json!(null)] {
            assert_eq!(changed(same, &template), None);
        }
        let behind = json!({"type": "Sequence", "pretokenizers": [{"type": "Split"}, off]});
        assert_eq!(changed(&behind, &template), None);
        assert_eq!(with_prefix_space_in_config(b"{\"a\": 1}").unwrap(), json!({"a": 1, "add_prefix_space": true}));
    }
}
