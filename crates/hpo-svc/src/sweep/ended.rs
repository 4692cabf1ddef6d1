//! Why a sweep has ended, kept with its study: it outlives the log of the job, and whoever shows the study finds it.

use std::borrow::Borrow;

use jiff::Timestamp;

use super::End;
use crate::{
    pyjson::{PyValue, dump_text},
    study::{Study, Trial},
};

/// User attribute of a study: why its latest sweep has ended, a JSON object of the sweep's uid, the reason in words or null when all of its
/// trials have ended, and the time.
pub const ATTR_ENDED: &str = "quintet:ended";

impl End {
    /// In words.
    pub fn why(&self) -> &str {
        match self {
            Self::MaxTrials => "all trials have ended",
            Self::Timeout => "the time is over",
            Self::Cost => "max_cost is spent",
            Self::NoProgress => "too many trials in a row brought nothing new",
            Self::Exhausted => "every combination of the grid was tried",
            Self::Failed(problem) => problem,
        }
    }

    /// The value of [`ATTR_ENDED`].
    pub(super) fn to_json(&self, sweep: &str, now: Timestamp) -> String {
        let why = if *self == Self::MaxTrials { "null".to_owned() } else { dump_text(self.why()) };
        format!("{{\"sweep\": {}, \"why\": {why}, \"at\": {}}}", dump_text(sweep), dump_text(&now.to_string()))
    }
}

/// A sweep that tried fewer trials than it might have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedEarly {
    /// Its uid.
    pub sweep: String,
    /// In words.
    pub why: String,
}

/// Why the latest sweep of a study has ended early; `None` when it has not, or when the search has gone on since.
pub fn ended_early<T: Borrow<Trial>>(study: &Study, trials: &[T]) -> Option<EndedEarly> {
    let end = PyValue::parse(study.user_attrs.get(ATTR_ENDED)?).ok()?;
    let text = |key: &str| match end.get(key) {
        Some(PyValue::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let at: Timestamp = text("at")?.parse().ok()?;
    let since = trials.iter().any(|trial| trial.borrow().start.is_some_and(|start| start > at));
    (!since).then_some(EndedEarly { sweep: text("sweep")?, why: text("why")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{Direction, State, tests::trial};

    #[test]
    fn an_early_end_is_told_until_the_search_goes_on() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let study = |json: String| {
            let user_attrs = [(ATTR_ENDED.to_owned(), json)].into();
            let (name, directions) = ("s".to_owned(), vec![Direction::Minimize]);
            Study { id: 1, name, directions, user_attrs, system_attrs: Default::default() }
        };
        let mut trials = [trial(0, State::Complete, Some(1.0))];
        trials[0].start = Some(at(5));
        let told = |end: &End, trials: &[Trial]| ended_early(&study(end.to_json("ab", at(10))), trials);
        let early = |why: &str| Some(EndedEarly { sweep: "ab".into(), why: why.into() });
        assert_eq!(told(&End::Timeout, &trials), early("the time is over"));
        assert_eq!(told(&End::Failed("all \"3\" failed".into()), &trials), early("all \"3\" failed"));
        assert_eq!(told(&End::MaxTrials, &trials), None);
        trials[0].start = Some(at(11));
        assert_eq!(told(&End::Timeout, &trials), None, "another sweep tries more");
        for wrong in ["7", "{", r#"{"why": "x"}"#] {
            assert_eq!(ended_early(&study(wrong.into()), &trials), None);
        }
    }
}
