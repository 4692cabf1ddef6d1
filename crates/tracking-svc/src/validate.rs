//! MLflow's rules for names, values and batch sizes, checked before anything is written.

use std::sync::Arc;

use crate::{
    error::Error,
    model::{Metric, Pair, RUN_KEY_TAG},
};

/// Longest name of a metric, a parameter or a tag, in characters.
const MAX_KEY: usize = 250;
/// Longest value of a parameter, in characters; longer ones are cut, as MLflow does by default.
const MAX_PARAM: usize = 6000;
/// Longest value of a run's tag, in characters; longer ones are cut.
const MAX_TAG: usize = 8000;
/// Longest value of an experiment's tag, in characters.
const MAX_EXPERIMENT_TAG: usize = 20_000;
/// Longest value of the tag by which runs are found, in characters: it is indexed.
const MAX_RUN_KEY: usize = 500;
/// Longest name of an experiment or a run, in characters.
const MAX_NAME: usize = 500;
/// Metrics, and items in all, of one batch.
const MAX_BATCH: usize = 1000;
/// Parameters, and tags, of one batch.
const MAX_PAIRS: usize = 100;

/// Refuses text that a database cannot hold.
fn no_nul(field: &str, text: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(Error::invalid(field.to_owned(), "holds a NUL character, which cannot be stored"));
    }
    Ok(())
}

fn at_most(field: &str, text: &str, limit: usize) -> Result<(), Error> {
    // Characters are counted only where there can be too many.
    if text.len() > limit {
        let length = text.chars().count();
        if length > limit {
            return Err(Error::invalid(
                field.to_owned(),
                format!("has {length} characters; at most {limit} are allowed"),
            ));
        }
    }
    no_nul(field, text)
}

fn cut(value: String, limit: usize) -> String {
    match value.char_indices().nth(limit) {
        Some((end, _)) => value[..end].to_owned(),
        None => value,
    }
}

/// A name of a metric, a parameter or a tag: at most 250 characters, letters, digits and `_ - . / : space`, a plain relative path.
pub(crate) fn key(field: &'static str, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid(field, "is empty"));
    }
    at_most(field, name, MAX_KEY)?;
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | ' ');
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        let reason = format!("`{name}` holds {bad:?}; letters, digits and _ - . / : space are allowed");
        return Err(Error::invalid(field, reason));
    }
    // Clients keep metrics in files of these names.
    let plain = !name.starts_with("..") && name != "." && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !plain {
        return Err(Error::invalid(
            field,
            format!("`{name}` is not a plain relative path (such as `loss` or `eval/f1`)"),
        ));
    }
    Ok(())
}

/// A run id of a caller's choice.
pub(crate) fn run_id(id: &str) -> Result<(), Error> {
    let mut bytes = id.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !first || id.len() > 256 || !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        let reason =
            format!("`{id}` is not a run id: at most 256 letters, digits, `_` and `-`, and first a letter or digit");
        return Err(Error::invalid("run_id", reason));
    }
    Ok(())
}

/// The name of an experiment.
pub(crate) fn experiment_name(name: &str) -> Result<(), Error> {
    if name.trim().is_empty() {
        return Err(Error::invalid("name", "is empty"));
    }
    at_most("name", name, MAX_NAME)
}

/// The name of a run.
pub(crate) fn run_name(name: &str) -> Result<(), Error> {
    at_most("run_name", name, MAX_NAME)
}

/// Text of any kind that is stored as it is.
pub(crate) fn text(field: &'static str, value: &str) -> Result<(), Error> {
    at_most(field, value, MAX_TAG)
}

/// The root below which an experiment keeps its artifacts.
pub(crate) fn artifact_location(uri: &str) -> Result<(), Error> {
    at_most("artifact_location", uri, 2000)?;
    if uri.contains(['#', '?', ';']) {
        let reason = format!("`{uri}` holds a fragment, a query or parameters, which a location may not have");
        return Err(Error::invalid("artifact_location", reason));
    }
    if uri.split('/').any(|part| part == "..") {
        return Err(Error::invalid("artifact_location", format!("`{uri}` holds `..`")));
    }
    Ok(())
}

/// A tag of an experiment.
pub(crate) fn experiment_tag(tag: &Pair) -> Result<(), Error> {
    key("key", &tag.key)?;
    at_most("value", &tag.value, MAX_EXPERIMENT_TAG)
}

/// A parameter, its value cut to what is kept.
pub(crate) fn param(param: Pair) -> Result<Pair, Error> {
    key("key", &param.key)?;
    no_nul("value", &param.value)?;
    Ok(Pair { value: cut(param.value, MAX_PARAM), ..param })
}

/// A tag of a run or a model, its value cut to what is kept.
pub(crate) fn tag(tag: Pair) -> Result<Pair, Error> {
    key("key", &tag.key)?;
    if &*tag.key == RUN_KEY_TAG {
        at_most("value", &tag.value, MAX_RUN_KEY)?;
    }
    no_nul("value", &tag.value)?;
    Ok(Pair { value: cut(tag.value, MAX_TAG), ..tag })
}

/// A point of a metric, infinities brought to the largest finite numbers as MLflow does.
pub(crate) fn metric(metric: Metric) -> Result<Metric, Error> {
    key("key", &metric.key)?;
    if metric.timestamp < 0 {
        let reason = format!("{} is negative; milliseconds since 1970 are expected", metric.timestamp);
        return Err(Error::invalid("timestamp", reason));
    }
    let value = if metric.value.is_infinite() { f64::MAX.copysign(metric.value) } else { metric.value };
    Ok(Metric { value, ..metric })
}

/// What one call writes to a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Points of metrics.
    pub metrics: Vec<Metric>,
    /// Parameters.
    pub params: Vec<Pair>,
    /// Tags.
    pub tags: Vec<Pair>,
}

impl Batch {
    /// Checks every item. `limited` applies the batch sizes of MLflow's REST API (1,000 items, 100 parameters, 100 tags).
    ///
    /// # Errors
    /// The first item that breaks a rule; parameters given twice.
    pub(crate) fn check(self, limited: bool) -> Result<Self, Error> {
        if limited {
            for (field, count, limit) in [
                ("metrics", self.metrics.len(), MAX_BATCH),
                ("params", self.params.len(), MAX_PAIRS),
                ("tags", self.tags.len(), MAX_PAIRS),
                ("batch", self.metrics.len() + self.params.len() + self.tags.len(), MAX_BATCH),
            ] {
                if count > limit {
                    return Err(Error::invalid(field, format!("has {count} items; at most {limit} are allowed")));
                }
            }
        }
        let params: Vec<Pair> = self.params.into_iter().map(param).collect::<Result<_, _>>()?;
        let mut names: Vec<&Arc<str>> = params.iter().map(|pair| &pair.key).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid("params", format!("`{}` is given twice", twice[0])));
        }
        Ok(Self {
            metrics: self.metrics.into_iter().map(metric).collect::<Result<_, _>>()?,
            params,
            tags: self.tags.into_iter().map(tag).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_mlflow() {
        for good in ["loss", "eval/f1", "a.b-c:d e", "größe", ".hidden", "a..b"] {
            key("key", good).unwrap();
        }
        for bad in
            ["", "/a", "a/", "a//b", "./a", "a/../b", "..", "..a", ".", "a\u{0}", "a*b", "a\\b", &"x".repeat(251)]
        {
            assert!(matches!(key("key", bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }

    #[test]
    fn batches_are_cut_clamped_and_limited() {
        let metric = |value| Metric { key: "m".into(), value, timestamp: 1, step: -3 };
        let batch = Batch {
            metrics: vec![metric(f64::NEG_INFINITY), metric(f64::NAN)],
            params: vec![Pair::new("p", "ä".repeat(6001))],
            tags: vec![Pair::new("t", "x".repeat(8001))],
        };
        let checked = batch.clone().check(true).unwrap();
        assert_eq!(checked.metrics[0].value, f64::MIN);
        assert!(checked.metrics[1].value.is_nan());
        assert_eq!((checked.params[0].value.chars().count(), checked.tags[0].value.len()), (6000, 8000));
        let twice = Batch { params: vec![Pair::new("p", "1"), Pair::new("p", "1")], ..Batch::default() };
        assert!(twice.check(true).is_err());
        let many = Batch { metrics: vec![metric(1.0); 1001], ..Batch::default() };
        assert!(many.clone().check(true).is_err());
        assert!(many.check(false).is_ok());
        let early = Batch { metrics: vec![Metric { timestamp: -1, ..metric(1.0) }], ..Batch::default() };
        assert!(early.check(false).is_err());
    }
}
