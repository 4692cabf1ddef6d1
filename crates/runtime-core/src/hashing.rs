//! SHA-256 and canonical JSON: the digests and fingerprints that name content.
//!
//! Canonical JSON has its keys in byte order, no white space, UTF-8, and numbers in their shortest form that reads back to the same
//! value. Two documents that are equal have the same bytes, and so the same digest, in whatever order they were written.
use std::{
    io::{self, Read},
    path::Path,
};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// SHA-256 of the bytes, 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes.as_ref()))
}

/// SHA-256 of a file's content, in hexadecimal, and its length in bytes. Blocks.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_file(path: &Path) -> io::Result<(String, u64)> {
    sha256_reader(std::fs::File::open(path)?)
}

/// SHA-256 of what a reader gives until its end, in hexadecimal, and its length in bytes. Blocks.
///
/// # Errors
/// When the reader fails.
pub fn sha256_reader(mut reader: impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hex::encode(hasher.finalize()), total)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The canonical JSON text of a value.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// SHA-256 of the canonical JSON of anything that serializes, in hexadecimal: `spec_fingerprint`, `study_key`, `trial_key`, `run_key`.
///
/// # Errors
/// When the value has no JSON form (a map whose keys are not text).
pub fn fingerprint<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    Ok(sha256_hex(canonical_json(&serde_json::to_value(value)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn digests_are_the_standard_ones() {
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'a'; CHUNK + 3]).unwrap();
        assert_eq!(sha256_file(file.path()).unwrap(), (sha256_hex(vec![b'a'; CHUNK + 3]), CHUNK as u64 + 3));
    }

    #[test]
    fn canonical_json_has_one_form() {
        let value = json!({"b": [1, 2.5, 1e-5, null, true], "a": {"é\"": "x\n", "Z": -0.1}, "B": {}});
        assert_eq!(
            canonical_json(&value),
            "{\"B\":{},\"a\":{\"Z\":-0.1,\"é\\\"\":\"x\\n\"},\"b\":[1,2.5,0.00001,null,true]}"
        );
    }

    proptest! {
        #[test]
        fn order_of_keys_does_not_matter_and_the_value_comes_back(
            entries in proptest::collection::btree_map("\\PC{0,6}", proptest::num::f64::NORMAL, 0..8)
        ) {
            let forward: serde_json::Map<String, Value> = entries.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            let backward: serde_json::Map<String, Value> = entries.iter().rev().map(|(k, v)| (k.clone(), json!(v))).collect();
            let text = canonical_json(&Value::Object(forward.clone()));
            prop_assert_eq!(&text, &canonical_json(&Value::Object(backward)));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), Value::Object(forward));
        }
    }
}
