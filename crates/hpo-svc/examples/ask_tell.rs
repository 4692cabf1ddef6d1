//! The samplers as a program, for comparisons from other languages: JSON lines on standard input and output.
//!
//! `{"new": {"search_space": [{"name": "x", "float": {"low": 0, "high": 1}}], "seed": 1, "sampler": "tpe"}}` starts a study. The space,
//! with its conditions, has the form of the contract's `Parameter`; `sampler` and `settings` are name and message of a sampler there,
//! TPE without them; `directions` may list `minimize` and `maximize`, and is one to minimize else.
//!
//! `{"ask": true}` opens a trial and answers `{"number": 0, "params": {"x": 0.5}}`. `{"tell": 0.5, "number": 0}` ends it, or the trial
//! asked for last without a number; several objectives are a list, and a trial that failed is told `null`. Beside it `constraints` may
//! list numbers, of which those above 0 are broken. Any number of trials may be open.
//!
//! `{"add": {"x": 0.5}, "tell": 0.5}` adds a trial of somebody else's, running without `tell`, so that the answers to one history can be
//! compared.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, Write as _, stdin, stdout},
};

use anyhow::{Context as _, bail, ensure};
use hpo_svc::{
    pyjson::PyValue,
    sampler::{self, Request, Sampler, Suggestion, suggest},
    space::{ParamValue, Space},
    study::{Direction, Param, State, Trial},
};
use quintet_proto::v1;
use serde_json::{Map, Value, json};

struct Study {
    space: Space,
    directions: Vec<Direction>,
    sampler: Box<dyn Sampler>,
    seed: u64,
    trials: Vec<Trial>,
}

fn main() -> anyhow::Result<()> {
    let mut study = None;
    for line in stdin().lock().lines() {
        let line: Value = serde_json::from_str(&line?)?;
        if let Some(new) = line.get("new") {
            study = Some(start(new)?);
            continue;
        }
        let study = study.as_mut().context("no study yet")?;
        if line.get("ask").is_some() {
            let mut out = stdout().lock();
            writeln!(out, "{}", study.ask())?;
            out.flush()?;
        } else if let Some(params) = line.get("add") {
            study.add(params)?;
            if let Some(values) = line.get("tell") {
                study.tell(&Value::Null, numbers(values)?, &numbers(&line["constraints"])?)?;
            }
        } else if let Some(values) = line.get("tell") {
            study.tell(&line["number"], numbers(values)?, &numbers(&line["constraints"])?)?;
        } else {
            bail!("neither new, ask, add nor tell: {line}");
        }
    }
    Ok(())
}

/// A number, a list of them, or nothing.
fn numbers(value: &Value) -> anyhow::Result<Vec<f64>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => values.iter().map(|value| value.as_f64().context("no number")).collect(),
        value => Ok(vec![value.as_f64().with_context(|| format!("{value} is no number"))?]),
    }
}

fn start(new: &Value) -> anyhow::Result<Study> {
    let parameters: Vec<v1::Parameter> = serde_json::from_value(new["search_space"].clone())?;
    let space = Space::from_proto(&parameters).map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
    let direction = |word: &Value| match word.as_str() {
        Some("minimize") => Ok(Direction::Minimize),
        Some("maximize") => Ok(Direction::Maximize),
        _ => bail!("{word} is no direction"),
    };
    let directions = match new["directions"].as_array() {
        Some(words) => words.iter().map(direction).collect::<anyhow::Result<_>>()?,
        None => vec![Direction::Minimize],
    };
    let mut document = Map::new();
    document.insert(new["sampler"].as_str().unwrap_or("tpe").into(), new.get("settings").cloned().unwrap_or(json!({})));
    let settings: v1::Sampler = serde_json::from_value(document.into())?;
    let mut wrong = Vec::new();
    let sampler = sampler::from_proto(Some(&settings), Some(&space), directions.len(), "sampler", &mut wrong);
    ensure!(wrong.is_empty(), "{wrong:?}");
    let seed = new["seed"].as_u64().unwrap_or(0);
    Ok(Study { space, directions, sampler, seed, trials: Vec::new() })
}

impl Study {
    fn ask(&mut self) -> Value {
        let number = i64::try_from(self.trials.len()).unwrap_or(i64::MAX);
        let request =
            Request { space: &self.space, directions: &self.directions, trials: &self.trials, number, seed: self.seed };
        let Suggestion { params, system_attrs } = suggest(&*self.sampler, &request, &[]);
        let external: Map<_, _> = params.iter().map(|param| (param.name.clone(), param.external().to_json())).collect();
        self.open(params, system_attrs);
        json!({"number": number, "params": external})
    }

    fn open(&mut self, params: Vec<Param>, system_attrs: BTreeMap<String, String>) {
        let number = i64::try_from(self.trials.len()).unwrap_or(i64::MAX);
        self.trials.push(Trial {
            id: number,
            number,
            state: State::Running,
            values: Vec::new(),
            params,
            intermediate: BTreeMap::new(),
            user_attrs: BTreeMap::new(),
            system_attrs,
            start: None,
            complete: None,
        });
    }

    fn add(&mut self, external: &Value) -> anyhow::Result<()> {
        let mut params = Vec::new();
        for parameter in self.space.parameters() {
            let Some(value) = external.get(&parameter.name) else { continue };
            let choice = ParamValue::choice(&PyValue::parse(&value.to_string())?);
            let internal = parameter.distribution.internal(&choice);
            let value = internal.with_context(|| format!("{value} is no value of {}", parameter.name))?;
            let (name, distribution) = (parameter.name.clone(), parameter.distribution.clone());
            params.push(Param { name, value, distribution });
        }
        self.open(params, BTreeMap::new());
        Ok(())
    }

    fn tell(&mut self, number: &Value, values: Vec<f64>, constraints: &[f64]) -> anyhow::Result<()> {
        let trial = match number.as_u64() {
            Some(number) => self.trials.get_mut(usize::try_from(number)?),
            None => self.trials.last_mut(),
        };
        let trial = trial.with_context(|| format!("there is no trial {number}"))?;
        ensure!(trial.state == State::Running, "trial {} has ended", trial.number);
        trial.state = if values.is_empty() { State::Fail } else { State::Complete };
        trial.values = values;
        for (index, value) in constraints.iter().enumerate() {
            trial.system_attrs.insert(format!("constraints:{index}"), value.to_string());
        }
        Ok(())
    }
}
