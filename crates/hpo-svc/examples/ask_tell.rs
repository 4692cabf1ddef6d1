//! The samplers as a program, for comparisons from other languages: JSON lines on standard input and output.
//!
//! `{"new": {"space": {"x": DISTRIBUTION}, "seed": 1, "sampler": "tpe"}}` starts a study to minimize (Optuna's distribution texts);
//! `{"ask": true}` answers with the parameters by name; `{"tell": 0.5}` ends that trial.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, Write as _, stdin, stdout},
};

use anyhow::{Context as _, bail};
use hpo_svc::{
    sampler::{Gp, Random, Request, Sampler, Tpe, suggest},
    space::{Distribution, Space},
    study::{Direction, State, Trial},
};
use serde_json::{Map, Value};

struct Study {
    space: Space,
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
            writeln!(out, "{}", Value::from(study.ask()))?;
            out.flush()?;
        } else if let Some(value) = line.get("tell").and_then(Value::as_f64) {
            let trial = study.trials.last_mut().context("no trial yet")?;
            trial.state = State::Complete;
            trial.values = vec![value];
        } else {
            bail!("neither new, ask nor tell: {line}");
        }
    }
    Ok(())
}

fn start(new: &Value) -> anyhow::Result<Study> {
    let mut parameters = Vec::new();
    for (name, text) in new["space"].as_object().context("no space")? {
        let text = text.as_str().context("a distribution is no text")?;
        parameters.push((name.clone(), Distribution::from_json(text).map_err(anyhow::Error::msg)?));
    }
    let sampler: Box<dyn Sampler> = match new["sampler"].as_str() {
        Some("random") => Box::new(Random),
        Some("gp") => Box::new(Gp::default()),
        _ => Box::new(Tpe::default()),
    };
    Ok(Study { space: Space::of(parameters), sampler, seed: new["seed"].as_u64().unwrap_or(0), trials: Vec::new() })
}

impl Study {
    fn ask(&mut self) -> Map<String, Value> {
        let number = i64::try_from(self.trials.len()).unwrap_or(i64::MAX);
        let request = Request {
            space: &self.space,
            directions: &[Direction::Minimize],
            trials: &self.trials,
            number,
            seed: self.seed,
        };
        let params = suggest(&*self.sampler, &request, &[]).params;
        let answer = params.iter().map(|param| (param.name.clone(), param.external().to_json())).collect();
        self.trials.push(Trial {
            id: number,
            number,
            state: State::Running,
            values: Vec::new(),
            params,
            intermediate: BTreeMap::new(),
            user_attrs: BTreeMap::new(),
            system_attrs: BTreeMap::new(),
            start: None,
            complete: None,
        });
        answer
    }
}
