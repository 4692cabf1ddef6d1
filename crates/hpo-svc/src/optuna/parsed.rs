//! Distributions that clients have sent: each trial of a study sends the same few texts again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tonic::Status;

use super::wire;
use crate::space::Distribution;

/// Texts that are kept at most; the studies of a server have fewer, unless every trial has its own ranges.
const MOST: usize = 512;
/// Bytes of a text that is kept at most.
const LONGEST: usize = 4096;

/// Texts that were read, and what they say.
#[derive(Debug, Default)]
pub(super) struct Parsed(Mutex<HashMap<String, Distribution>>);

impl Parsed {
    /// Reads a distribution's text, or takes what it was read as before.
    ///
    /// # Errors
    /// As [`wire::distribution`].
    pub(super) fn distribution(&self, field: &str, json: String) -> Result<Distribution, Status> {
        if json.len() > LONGEST {
            return wire::distribution(field, &json);
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(distribution) = known.get(&json) {
            return Ok(distribution.clone());
        }
        let distribution = wire::distribution(field, &json)?;
        if known.len() == MOST {
            known.clear();
        }
        known.insert(json, distribution.clone());
        Ok(distribution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_read() {
        let parsed = Parsed::default();
        let read = |json: &str| parsed.distribution("d", json.to_owned());
        let float = |high: usize| Distribution::float(0.0, high as f64, false, None).unwrap();
        for high in (1..=MOST + 1).chain(1..=2) {
            assert_eq!(read(&float(high).to_json()).unwrap(), float(high));
        }
        assert!(parsed.0.lock().unwrap().len() <= MOST);
        let long = vec![crate::space::ParamValue::Text("x".repeat(LONGEST))];
        let long = Distribution::categorical(long).unwrap();
        assert_eq!(read(&long.to_json()).unwrap(), long);
        assert!(!parsed.0.lock().unwrap().contains_key(&long.to_json()));
        for _ in 0..2 {
            assert!(read("{}").is_err(), "an error is none twice");
        }
    }
}
