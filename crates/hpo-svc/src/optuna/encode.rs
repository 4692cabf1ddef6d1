//! Trials as the bytes of Optuna's `Trial` message, straight from the study's own form.
//!
//! A client takes a whole study in one answer, and the same few names and distributions stand in each of its trials: they are
//! encoded once and copied from then on. The fields are those of `proto/optuna/api.proto`; what has its default value is left out,
//! as proto3 has it.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes};
use jiff::{Timestamp, fmt::temporal::DateTimePrinter, tz::TimeZone};
use prost::encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint};

use super::wire::state_code;
use crate::{
    space::Distribution,
    study::{Param, Trial},
};

/// `YYYY-MM-DD HH:MM:SS.ffffff`.
const TIMES: DateTimePrinter = DateTimePrinter::new().separator(b' ').precision(Some(6));
/// Bytes of a double with the key before it.
const DOUBLE: usize = 9;

/// Parameters that an encoder keeps at most: to look for one among more would take longer than to write it.
const MOST: usize = 32;
/// Bytes of an entry that is kept at most.
const LONGEST: usize = 4096;

/// Encodes trials. What many of them share is made once.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// A study has few.
    params: Vec<Shared>,
}

/// What trials share that have a parameter of the same name and distribution.
#[derive(Debug)]
struct Shared {
    name: String,
    distribution: Distribution,
    /// The entry of `params` up to its value.
    head: Vec<u8>,
    /// The entry of `distributions`.
    entry: Vec<u8>,
}

impl Shared {
    fn new(param: &Param) -> Self {
        let (mut head, mut entry) = (Vec::new(), Vec::new());
        put_length(7, text_length(&param.name) + DOUBLE, &mut head);
        put_text(1, &param.name, &mut head);
        encode_key(2, WireType::SixtyFourBit, &mut head);
        put_texts(8, &param.name, &param.distribution.to_json(), &mut entry);
        Self { name: param.name.clone(), distribution: param.distribution.clone(), head, entry }
    }

    fn fits(&self, param: &Param) -> bool {
        self.name == param.name && self.distribution.same_text(&param.distribution)
    }

    fn put(&self, value: f64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.put_f64_le(value);
        out.extend_from_slice(&self.entry);
    }
}

impl Encoder {
    /// A message for each trial.
    pub(super) fn trials<'a>(&mut self, trials: impl IntoIterator<Item = &'a Trial>) -> Vec<Bytes> {
        let (mut out, mut lengths) = (Vec::new(), Vec::new());
        let zone = TimeZone::system();
        for trial in trials {
            let start = out.len();
            self.put(trial, &zone, &mut out);
            lengths.push(out.len() - start);
        }
        // They share one piece of memory.
        let mut rest = Bytes::from(out);
        lengths.into_iter().map(|length| rest.split_to(length)).collect()
    }

    /// The message of one trial.
    pub(super) fn trial(&mut self, trial: &Trial) -> Bytes {
        let mut out = Vec::new();
        self.put(trial, &TimeZone::system(), &mut out);
        out.into()
    }

    /// Optuna has the server's own zone on the wire, without saying so.
    fn put(&mut self, trial: &Trial, zone: &TimeZone, out: &mut Vec<u8>) {
        for (tag, number) in [(1, trial.id), (2, trial.number), (3, state_code(trial.state).into())] {
            if number != 0 {
                encoding::int64::encode(tag, &number, out);
            }
        }
        encoding::double::encode_packed(4, &trial.values, out);
        put_time(5, trial.start, zone, out);
        put_time(6, trial.complete, zone, out);
        for (place, param) in trial.params.iter().enumerate() {
            self.put_param(place, param, out);
        }
        put_map(9, &trial.user_attrs, out);
        put_map(10, &trial.system_attrs, out);
        for (step, value) in &trial.intermediate {
            put_length(11, encoding::int64::encoded_len(1, step) + DOUBLE, out);
            encoding::int64::encode(1, step, out);
            encoding::double::encode(2, value, out);
        }
    }

    fn put_param(&mut self, place: usize, param: &Param, out: &mut Vec<u8>) {
        // As a rule the trials have theirs in the same order.
        let near = self.params.get(place).filter(|known| known.fits(param));
        match near.or_else(|| self.params.iter().find(|known| known.fits(param))) {
            Some(known) => known.put(param.value, out),
            None => {
                let new = Shared::new(param);
                new.put(param.value, out);
                if new.entry.len() > LONGEST {
                    return;
                }
                match self.params.len() < MOST {
                    true => self.params.push(new),
                    // That one is of another study, or every trial has its own range.
                    false => self.params[place % MOST] = new,
                }
            }
        }
    }
}

fn put_time(tag: u32, time: Option<Timestamp>, zone: &TimeZone, out: &mut Vec<u8>) {
    let Some(time) = time else { return };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = TIMES.print_datetime(&zone.to_datetime(time), &mut text);
    put_text(tag, &text, out);
}

fn put_length(tag: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn put_text(tag: u32, text: &str, out: &mut Vec<u8>) {
    put_length(tag, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Of a text in a map's entry, with its key (of one byte) and its length.
fn text_length(text: &str) -> usize {
    1 + encoded_len_varint(text.len() as u64) + text.len()
}

/// An entry of a `map<string, string>`.
fn put_texts(tag: u32, key: &str, value: &str, out: &mut Vec<u8>) {
    put_length(tag, text_length(key) + text_length(value), out);
    put_text(1, key, out);
    put_text(2, value, out);
}

fn put_map(tag: u32, map: &BTreeMap<String, String>, out: &mut Vec<u8>) {
    for (key, value) in map {
        put_texts(tag, key, value, out);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quintet_proto::optuna as proto;

    use super::{super::wire, *};
    use crate::{space::ParamValue, study::State};

    fn trial(number: i64) -> Trial {
        let text = |text: &str| ParamValue::Text(text.into());
        let choice = Distribution::categorical(vec![text("a"), text("ä"), ParamValue::Null]).unwrap();
        let low = if number == 2 { -2.5 } else { -1.0 };
        let float = Distribution::float(low, 1.0, false, None).unwrap();
        let param = |name: &str, value, distribution: &Distribution| Param {
            name: name.into(),
            value,
            distribution: distribution.clone(),
        };
        let mut params = vec![param("x", -0.5, &float), param("größe", 0.0, &choice), param("y", 1.0, &float)];
        params.rotate_left(usize::from(number == 3));
        let texts = |key: &str| BTreeMap::from([(key.to_owned(), "\"ü\"".to_owned()), (String::new(), String::new())]);
        Trial {
            id: number << 40,
            number,
            state: [State::Running, State::Complete, State::Waiting, State::Fail][number as usize],
            values: if number == 1 { vec![f64::INFINITY, -0.0] } else { Vec::new() },
            params: if number == 0 { Vec::new() } else { params },
            intermediate: BTreeMap::from([(0, 0.5), (-7, f64::NEG_INFINITY), (300, 0.0)]),
            user_attrs: texts("user"),
            system_attrs: texts("system"),
            start: (number > 0).then(|| Timestamp::from_microsecond(1_790_000_000_123_456).unwrap()),
            complete: (number == 1).then_some(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn clients_read_what_the_study_holds() {
        let trials: Vec<Trial> = (0..4).map(trial).collect();
        let encoded = Encoder::default().trials(&trials);
        assert_eq!(encoded.len(), 4);
        for (bytes, trial) in encoded.into_iter().zip(&trials) {
            assert_eq!(bytes, Encoder::default().trial(trial), "what was shared changes nothing");
            let read = proto::Trial::decode(bytes).unwrap();
            assert_eq!((read.trial_id, read.number), (trial.id, trial.number));
            assert_eq!(wire::state(read.state).unwrap(), trial.state);
            assert_eq!((&read.values, &read.intermediate_values), (&trial.values, &trial.intermediate));
            assert_eq!((&read.user_attributes, &read.system_attributes), (&trial.user_attrs, &trial.system_attrs));
            let time = |text: &str| wire::time("t", text).unwrap();
            assert_eq!((time(&read.datetime_start), time(&read.datetime_complete)), (trial.start, trial.complete));
            assert_eq!((read.params.len(), read.distributions.len()), (trial.params.len(), trial.params.len()));
            for Param { name, value, distribution } in &trial.params {
                assert_eq!((read.params[name], &read.distributions[name]), (*value, &distribution.to_json()));
            }
        }
    }

    #[test]
    fn choices_that_are_only_equal_keep_their_texts() {
        let with = |choice: ParamValue| {
            let distribution = Distribution::categorical(vec![choice]).unwrap();
            Trial { params: vec![Param { name: "n".into(), value: 0.0, distribution }], ..trial(0) }
        };
        let trials = [with(ParamValue::Int(1)), with(ParamValue::Float(1.0)), with(ParamValue::Int(1))];
        let texts = Encoder::default().trials(&trials).into_iter().map(|bytes| {
            let read = proto::Trial::decode(bytes).unwrap();
            read.distributions["n"].rsplit_once(": ").unwrap().1.to_owned()
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["[1]}}", "[1.0]}}", "[1]}}"]);
    }

    #[test]
    fn times_have_six_digits_after_the_second() {
        let at = Trial { start: Some(Timestamp::UNIX_EPOCH), ..trial(0) };
        let read = proto::Trial::decode(Encoder::default().trial(&at)).unwrap();
        assert!(read.datetime_start.ends_with(":00.000000") && read.datetime_start.len() == 26, "{read:?}");
        assert_eq!(read.datetime_complete, "");
    }

    #[test]
    fn many_distributions_are_more_than_what_is_kept() {
        let with = |high: f64| {
            let distribution = Distribution::float(0.0, high, false, None).unwrap();
            Trial { params: vec![Param { name: "x".into(), value: 0.5, distribution }], ..trial(0) }
        };
        let trials: Vec<Trial> = (1..100).map(|high| with(high.into())).collect();
        for (bytes, trial) in Encoder::default().trials(&trials).into_iter().zip(&trials) {
            let read = proto::Trial::decode(bytes).unwrap();
            assert_eq!(read.distributions["x"], trial.params[0].distribution.to_json());
        }
    }
}
