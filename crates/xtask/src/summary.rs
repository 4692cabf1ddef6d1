//! Counting what passed and what failed, over all tools that the checks run.

use std::fmt;

use anyhow::{Context, Result};
use quick_xml::Reader;
use quick_xml::events::Event;

/// Checks and tests so far; its text is the last line of `cargo xtask test`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Summary {
    /// One check that is not made of tests.
    pub(crate) fn check(&mut self, passed: bool) {
        self.add(Summary { passed: u64::from(passed), failed: u64::from(!passed) });
    }

    pub(crate) fn add(&mut self, other: Summary) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The counts in a JUnit report, as `cargo nextest` writes it.
pub(crate) fn from_junit(xml: &str) -> Result<Summary> {
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event().context("broken JUnit report")? {
            Event::Start(start) | Event::Empty(start) if start.name().as_ref() == "testsuites" => {
                let count = |name: &str| -> Result<u64> {
                    let attribute = start.try_get_attribute(name).context("broken JUnit report")?;
                    let value = attribute.with_context(|| format!("the JUnit report does not count its {name}"))?;
                    value.value.parse().with_context(|| format!("broken count of {name} in the JUnit report"))
                };
                let failed = count("failures")? + count("errors")?;
                return Ok(Summary { passed: count("tests")?.saturating_sub(failed), failed });
            }
            Event::Eof => anyhow::bail!("the JUnit report is empty"),
            _ => {}
        }
    }
}

/// The counts in a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...`, if it is one.
pub(crate) fn from_libtest(line: &str) -> Option<Summary> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let count = |what: &str| {
        let (before, _) = rest.split_once(what)?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    Some(Summary { passed: count(" passed")?, failed: count(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_counts_failures_and_errors_as_failed() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="7" failures="2" errors="1" uuid="u" time="0.1"><testsuite name="a"/></testsuites>"#;
        assert_eq!(from_junit(xml).unwrap(), Summary { passed: 4, failed: 3 });
        assert_eq!(from_junit("<a/>").unwrap_err().to_string(), "the JUnit report is empty");
        let error = from_junit(r#"<testsuites tests="1"/>"#).unwrap_err().to_string();
        assert_eq!(error, "the JUnit report does not count its failures");
    }

    #[test]
    fn libtest_lines_are_told_from_others() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(from_libtest(line), Some(Summary { passed: 12, failed: 3 }));
        assert_eq!(from_libtest("test a ... ok"), None);
        assert_eq!(from_libtest("test result: nonsense"), None);
    }

    #[test]
    fn the_last_line_says_both_counts() {
        let mut summary = Summary::default();
        summary.check(true);
        summary.check(false);
        summary.add(Summary { passed: 5, failed: 1 });
        assert_eq!(summary.to_string(), "6 passed, 2 failed");
    }
}
