//! What users ask of a sweep while it runs: to pause, to go on, to try more trials. It is kept with the study, so that it outlives
//! every process.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    pyjson::{PyValue, dump_text},
    study::Study,
};

/// User attribute of a study: when its sweeps were paused, a JSON list of pairs of times; the last end may be null.
pub const ATTR_PAUSES: &str = "quintet:pauses";
/// User attribute of a study: the trials that it may have in all, when a sweep was extended.
pub const ATTR_MAX_TRIALS: &str = "quintet:max_trials";

/// What was asked of the sweeps of a study. By default nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Control {
    /// In order; only the last one may go on.
    pauses: Vec<(Timestamp, Option<Timestamp>)>,
    max_trials: Option<usize>,
}

impl Control {
    /// Of a study. What cannot be read was not asked.
    pub fn of(study: &Study) -> Self {
        let read = |key: &str| PyValue::parse(study.user_attrs.get(key)?).ok();
        let time = |value: &PyValue| match value {
            PyValue::Text(text) => text.parse::<Timestamp>().ok(),
            _ => None,
        };
        let pause = |pair: PyValue| match pair {
            PyValue::List(pair) => Some((time(pair.first()?)?, pair.get(1).and_then(time))),
            _ => None,
        };
        let pauses = match read(ATTR_PAUSES) {
            Some(PyValue::List(pauses)) => pauses.into_iter().filter_map(pause).collect(),
            _ => Vec::new(),
        };
        let max_trials = match read(ATTR_MAX_TRIALS) {
            Some(PyValue::Int(count)) => usize::try_from(count).ok(),
            _ => None,
        };
        Self { pauses, max_trials }
    }

    /// Whether no new trials are to start.
    pub fn paused(&self) -> bool {
        self.pauses.last().is_some_and(|(_, end)| end.is_none())
    }

    /// Pauses, or goes on; whether that was a change.
    pub fn set_paused(&mut self, paused: bool, now: Timestamp) -> bool {
        if paused == self.paused() {
            return false;
        }
        match self.pauses.last_mut().filter(|_| !paused) {
            Some((_, end)) => *end = Some(now),
            None => self.pauses.push((now, None)),
        }
        true
    }

    /// The value of [`ATTR_PAUSES`].
    pub fn pauses_json(&self) -> String {
        let text = |at: &Timestamp| dump_text(&at.to_string());
        let pair = |(from, to): &(Timestamp, Option<Timestamp>)| {
            format!("[{}, {}]", text(from), to.as_ref().map_or_else(|| "null".to_owned(), text))
        };
        format!("[{}]", self.pauses.iter().map(pair).collect::<Vec<_>>().join(", "))
    }

    /// The trials that the study may have when a sweep was to have `given`: as many as it was extended to, never fewer.
    pub fn max_trials(&self, given: usize) -> usize {
        self.max_trials.map_or(given, |extended| extended.max(given))
    }

    /// Time from `start` to `now` that was not a pause.
    pub fn working_time(&self, start: Timestamp, now: Timestamp) -> Duration {
        let span = |from: Timestamp, to: Timestamp| now.min(to).duration_since(from.max(start));
        let paused = self.pauses.iter().map(|(from, to)| span(*from, to.unwrap_or(now)));
        let paused: Duration = paused.filter(|span| span.is_positive()).map(|span| span.unsigned_abs()).sum();
        Duration::try_from(now.duration_since(start)).unwrap_or_default().saturating_sub(paused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::Direction;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn study(attributes: &[(&str, &str)]) -> Study {
        let user_attrs = attributes.iter().map(|(key, json)| ((*key).to_owned(), (*json).to_owned())).collect();
        let (name, directions) = ("s".to_owned(), vec![Direction::Minimize]);
        Study { id: 1, name, directions, user_attrs, system_attrs: Default::default() }
    }

    #[test]
    fn pauses_stop_the_clock_and_come_back_from_the_study() {
        let mut control = Control::default();
        assert!(!control.set_paused(false, at(0)) && !control.paused());
        assert!(control.set_paused(true, at(100)) && !control.set_paused(true, at(105)) && control.paused());
        assert!(control.set_paused(false, at(110)) && control.set_paused(true, at(200)));
        let control = Control::of(&study(&[(ATTR_PAUSES, &control.pauses_json())]));
        assert!(control.paused());
        let worked = |start, now| control.working_time(at(start), at(now)).as_secs();
        assert_eq!((worked(50, 90), worked(50, 105), worked(50, 150), worked(50, 999)), (40, 50, 90, 140));
        assert_eq!((worked(105, 150), worked(300, 999), worked(50, 10)), (40, 0, 0), "earlier pauses were of others");
    }

    #[test]
    fn an_extension_never_shortens_a_sweep() {
        let control = Control::of(&study(&[(ATTR_MAX_TRIALS, "20"), (ATTR_PAUSES, "7")]));
        assert_eq!((control.max_trials(10), control.max_trials(30), control.paused()), (20, 30, false));
        assert_eq!(Control::of(&study(&[(ATTR_MAX_TRIALS, "\"many\"")])), Control::default());
    }
}
