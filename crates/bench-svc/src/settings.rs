//! How to measure: the specification with its defaults, checked.

use std::time::Duration;

use quintet_proto::v1::BenchmarkSpec;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Settings of a benchmark; part of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Rows of each run.
    pub batch_sizes: Vec<usize>,
    /// Sub-tokens of each row.
    pub sequence_lengths: Vec<usize>,
    /// Threads inside one operator, each on a processor of its own, not spinning.
    pub threads: usize,
    /// Runs before measuring; then windows follow until three agree.
    pub warmup_runs: usize,
    /// Least number of measured runs of each shape.
    pub min_runs: usize,
    /// Least seconds of measuring for each shape.
    pub min_seconds: f64,
    /// Rounds in which the models take turns; each measures its part of the runs and seconds in each.
    pub rounds: usize,
    /// Largest ratio, minus one, of throughputs that count as equal: of warm-up windows and of rounds.
    pub stability: f64,
    /// Largest share of the measuring processors that others may use.
    pub max_others_share: f64,
    /// Seed of token ids and of the order of models in each round.
    pub seed: u64,
}

/// Larger values are mistakes rather than wishes.
const MAX_BATCH: i32 = 65_536;
const MAX_LENGTH: i32 = 1 << 20;

impl Settings {
    /// Checks a specification and fills in the defaults of `benchmark.proto`.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field, the value and what is allowed.
    pub fn from_spec(spec: &BenchmarkSpec) -> Result<Self, Error> {
        let min_duration = match &spec.min_duration {
            None => Duration::from_secs(1),
            Some(duration) => u64::try_from(duration.seconds)
                .ok()
                .zip(u32::try_from(duration.nanos).ok())
                .filter(|(seconds, nanos)| *seconds <= 86_400 && *nanos < 1_000_000_000)
                .map(|(seconds, nanos)| Duration::new(seconds, nanos))
                .ok_or_else(|| Error::Argument {
                    field: "min_duration",
                    problem: format!("{} s {} ns; allowed is 0 to one day", duration.seconds, duration.nanos),
                })?,
        };
        Ok(Self {
            batch_sizes: sizes("batch_sizes", &spec.batch_sizes, &[1, 8], MAX_BATCH)?,
            sequence_lengths: sizes("sequence_lengths", &spec.sequence_lengths, &[32, 128], MAX_LENGTH)?,
            threads: count("threads", spec.threads, 1, 1024)?,
            warmup_runs: count("warmup_runs", spec.warmup_runs, 5, 1_000_000)?,
            min_runs: count("min_runs", spec.min_runs, 50, 10_000_000)?,
            min_seconds: min_duration.as_secs_f64(),
            rounds: 5,
            stability: 0.10,
            max_others_share: 0.10,
            seed: 42,
        })
    }

    /// Shapes (rows, sub-tokens) in the order of measuring: by the number of sub-tokens, so that the peak memory of the
    /// process after a shape is that shape's.
    pub fn shapes(&self) -> Vec<(usize, usize)> {
        let mut shapes: Vec<_> = self
            .batch_sizes
            .iter()
            .flat_map(|batch| self.sequence_lengths.iter().map(move |length| (*batch, *length)))
            .collect();
        shapes.sort_unstable_by_key(|(batch, length)| (batch * length, *length));
        shapes.dedup();
        shapes
    }
}

fn sizes(field: &'static str, values: &[i32], default: &[usize], most: i32) -> Result<Vec<usize>, Error> {
    if values.is_empty() {
        return Ok(default.to_vec());
    }
    values
        .iter()
        .map(|value| match usize::try_from(*value) {
            Ok(size) if (1..=most).contains(value) => Ok(size),
            _ => Err(Error::Argument { field, problem: format!("{value}; allowed is 1 to {most}") }),
        })
        .collect()
}

fn count(field: &'static str, value: i32, default: usize, most: i32) -> Result<usize, Error> {
    match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(count) if value <= most => Ok(count),
        _ => Err(Error::Argument { field, problem: format!("{value}; allowed is 1 to {most}, or 0 for {default}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = Settings::from_spec(&BenchmarkSpec::default()).unwrap();
        assert_eq!(settings.shapes(), [(1, 32), (1, 128), (8, 32), (8, 128)]);
        assert_eq!((settings.threads, settings.warmup_runs, settings.min_runs), (1, 5, 50));
        assert_eq!(settings.min_seconds, 1.0);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let cases: [(BenchmarkSpec, &str); 6] = [
            (BenchmarkSpec { batch_sizes: vec![1, 0], ..Default::default() }, "batch_sizes: 0;"),
            (BenchmarkSpec { sequence_lengths: vec![-3], ..Default::default() }, "sequence_lengths: -3;"),
            (BenchmarkSpec { threads: -1, ..Default::default() }, "threads: -1;"),
            (BenchmarkSpec { warmup_runs: -1, ..Default::default() }, "warmup_runs: -1;"),
            (BenchmarkSpec { min_runs: -1, ..Default::default() }, "min_runs: -1;"),
            (
                BenchmarkSpec {
                    min_duration: Some(quintet_proto::types::Duration { seconds: -1, nanos: 0 }),
                    ..Default::default()
                },
                "min_duration: -1 s",
            ),
        ];
        for (spec, expected) in cases {
            let error = Settings::from_spec(&spec).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
