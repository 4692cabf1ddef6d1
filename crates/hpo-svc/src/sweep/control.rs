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
/// User attribute of a study: its latest extension, a JSON object of the sweep's uid, the trials that the study may have in all, and
/// when that was asked for.
pub const ATTR_MAX_TRIALS: &str = "quintet:max_trials";
/// User attribute of a study: uid of the sweep that has nothing left to do and looks for the last time whether it was extended, as JSON
/// text. An extension that finds it waits until that sweep has ended or goes on.
pub const ATTR_CLOSING: &str = "quintet:closing";

/// What was asked of the sweeps of a study. By default nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Control {
    /// In order; only the last one may go on.
    pauses: Vec<(Timestamp, Option<Timestamp>)>,
    extension: Option<Extension>,
    closing: Option<String>,
}

/// More trials for one sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Extension {
    /// Uid of the sweep; `None`: of whichever, as earlier versions stored it.
    pub sweep: Option<String>,
    /// Trials of the study in all.
    pub max_trials: usize,
    /// When it was asked for.
    pub at: Option<Timestamp>,
}

impl Extension {
    /// Of [`ATTR_MAX_TRIALS`].
    fn read(value: &PyValue) -> Option<Self> {
        let count = |value: &PyValue| match value {
            PyValue::Int(count) => usize::try_from(*count).ok(),
            _ => None,
        };
        match value {
            PyValue::Object(_) => Some(Self {
                sweep: Some(text(value.get("sweep")?)?),
                max_trials: count(value.get("max_trials")?)?,
                at: value.get("at").and_then(time),
            }),
            bare => Some(Self { sweep: None, max_trials: count(bare)?, at: None }),
        }
    }

    /// The value of [`ATTR_MAX_TRIALS`].
    pub fn to_json(&self) -> String {
        let text = |text: &Option<String>| text.clone().map_or(PyValue::Null, PyValue::Text);
        let entries = [
            ("sweep", text(&self.sweep)),
            ("max_trials", PyValue::Int(i64::try_from(self.max_trials).unwrap_or(i64::MAX))),
            ("at", text(&self.at.map(|at| at.to_string()))),
        ];
        PyValue::Object(entries.map(|(key, value)| (key.to_owned(), value)).into()).dump()
    }
}

fn text(value: &PyValue) -> Option<String> {
    match value {
        PyValue::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn time(value: &PyValue) -> Option<Timestamp> {
    text(value)?.parse().ok()
}

impl Control {
    /// Of a study. What cannot be read was not asked.
    pub fn of(study: &Study) -> Self {
        let read = |key: &str| PyValue::parse(study.user_attrs.get(key)?).ok();
        let pause = |pair: PyValue| match pair {
            PyValue::List(pair) => Some((time(pair.first()?)?, pair.get(1).and_then(time))),
            _ => None,
        };
        let pauses = match read(ATTR_PAUSES) {
            Some(PyValue::List(pauses)) => pauses.into_iter().filter_map(pause).collect(),
            _ => Vec::new(),
        };
        let extension = read(ATTR_MAX_TRIALS).and_then(|value| Extension::read(&value));
        Self { pauses, extension, closing: read(ATTR_CLOSING).and_then(|value| text(&value)) }
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

    /// What the sweep of that uid was extended to.
    pub fn extension(&self, sweep: &str) -> Option<&Extension> {
        self.extension.as_ref().filter(|extension| extension.sweep.as_deref().is_none_or(|of| of == sweep))
    }

    /// Whether the sweep of that uid looks for the last time whether it was extended.
    pub fn closing(&self, sweep: &str) -> bool {
        self.closing.as_deref() == Some(sweep)
    }

    /// The trials that the study may have when that sweep was to have `given`: as many as it was extended to, never fewer.
    pub fn max_trials(&self, sweep: &str, given: usize) -> usize {
        self.extension(sweep).map_or(given, |extended| extended.max_trials.max(given))
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
    fn an_extension_is_of_one_sweep_and_never_shortens_it() {
        let extension = Extension { sweep: Some("a".into()), max_trials: 20, at: Some(at(7)) };
        let control = Control::of(&study(&[(ATTR_MAX_TRIALS, &extension.to_json()), (ATTR_PAUSES, "7")]));
        let [most, longer, of_another] =
            [("a", 10), ("a", 30), ("b", 10)].map(|(of, given)| control.max_trials(of, given));
        assert_eq!((most, longer, of_another, control.paused()), (20, 30, 10, false));
        assert_eq!((control.extension("a"), control.extension("b")), (Some(&extension), None));
        // As earlier versions stored it.
        let control = Control::of(&study(&[(ATTR_MAX_TRIALS, "20")]));
        assert_eq!((control.max_trials("a", 10), control.max_trials("b", 30)), (20, 30));
        for wrong in ["\"many\"", "{}", r#"{"sweep": null, "max_trials": 5}"#] {
            assert_eq!(Control::of(&study(&[(ATTR_MAX_TRIALS, wrong)])), Control::default());
        }
    }

    #[test]
    fn the_sweep_that_is_about_to_end_is_known_by_its_uid() {
        let closing = |json| Control::of(&study(&[(ATTR_CLOSING, json)]));
        assert!(closing("\"a\"").closing("a") && !closing("\"a\"").closing("b") && !closing("null").closing("a"));
    }
}
