//! What becomes of a final training by its mode and the trainings of the same content before it: decisions without input and output.

use std::collections::BTreeMap;

use quintet_proto::v1::{FinalTrainingMode, SourceCheckpoint, source_checkpoint::Source};
use serde_json::Value;

use crate::request::FieldError;

/// Label with the number of a training among those of the same content.
pub const VARIANT: &str = "quintet.final_training.variant";
/// Label with the kind of weights that the training began with: `scratch`, `hpo_best_selected` or `final_training`.
pub const LINEAGE_SOURCE: &str = "code.lineage.source";

/// How an earlier training stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has succeeded, and its outputs are whole as far as was looked.
    Complete,
    /// It waits or runs.
    Live,
    /// It failed or was cancelled.
    Incomplete,
    /// It has succeeded, but its outputs cannot be used: the first problem.
    Broken(String),
}

/// An earlier training of the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// `jobs/{uid}`.
    pub job: String,
    /// Its number; 0 for a job that was not created as a final training.
    pub variant: u32,
    /// Milliseconds since 1970.
    pub created: i64,
    /// How it stands.
    pub standing: Standing,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new training.
    Create,
    /// A new job that goes on with the state of this one.
    Resume(String),
    /// This job has it already.
    Reuse(String),
    /// This job is at it.
    Follow(String),
}

/// A decision with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is done.
    pub action: Action,
    /// The number of the training that is created or found.
    pub variant: u32,
    /// Why, for a person.
    pub reason: String,
}

/// Decides; of the jobs under one number the newest counts.
///
/// # Errors
/// A number together with FORCE_NEW, which always takes the next one.
pub fn decide(mode: FinalTrainingMode, variant: Option<u32>, earlier: &[Earlier]) -> Result<Decision, FieldError> {
    let mut newest: BTreeMap<u32, &Earlier> = BTreeMap::new();
    for one in earlier {
        let held = newest.entry(one.variant).or_insert(one);
        if one.created >= held.created {
            *held = one;
        }
    }
    let next = newest.keys().next_back().map_or(1, |largest| largest + 1);
    let create = |reason: String| Decision { action: Action::Create, variant: variant.unwrap_or(next), reason };
    // The highest number first.
    let mut candidates = newest.values().rev().filter(|one| variant.is_none_or(|wanted| wanted == one.variant));
    let found = |action: Action, one: &Earlier, reason: String| Decision { action, variant: one.variant, reason };
    let reuse = |one: &Earlier| found(Action::Reuse(one.job.clone()), one, format!("{} is complete", one.job));
    let follow = |one: &Earlier| found(Action::Follow(one.job.clone()), one, format!("{} is at work", one.job));
    Ok(match mode {
        FinalTrainingMode::ForceNew => match variant {
            Some(given) => {
                let problem = format!("found {given}, but FORCE_NEW takes the next number, {next}; leave it out");
                return Err(FieldError { field: "variant".into(), problem });
            }
            None => create(format!("a new training was asked for; {} before it", newest.len())),
        },
        FinalTrainingMode::Unspecified | FinalTrainingMode::ReuseIfExists => {
            let candidates: Vec<&Earlier> = candidates.copied().collect();
            let of = |standing: Standing| candidates.iter().find(|one| one.standing == standing).copied();
            match (of(Standing::Complete), of(Standing::Live), candidates.first()) {
                (Some(complete), _, _) => reuse(complete),
                (None, Some(live), _) => follow(live),
                (None, None, Some(last)) => create(format!("{} {}", last.job, unusable(&last.standing))),
                (None, None, None) => create("there is no earlier one".into()),
            }
        }
        FinalTrainingMode::ResumeIfIncomplete => match candidates.next() {
            None => create("there is no earlier one to resume".into()),
            Some(one) => match &one.standing {
                Standing::Complete => reuse(one),
                Standing::Live => follow(one),
                Standing::Incomplete => {
                    let reason = format!("{} did not end well; it goes on where it saved its state", one.job);
                    found(Action::Resume(one.job.clone()), one, reason)
                }
                Standing::Broken(_) => create(format!("{} {}", one.job, unusable(&one.standing))),
            },
        },
    })
}

fn unusable(standing: &Standing) -> String {
    match standing {
        Standing::Broken(problem) => format!("has outputs that cannot be used: {problem}"),
        Standing::Incomplete => "did not end well".into(),
        Standing::Live | Standing::Complete => "is not asked for".into(),
    }
}

/// Where a final training comes from, as labels of its job and tags of its run; `held_out`: whether rows of `train` are, when that is
/// known.
pub fn lineage(
    source: Option<&SourceCheckpoint>,
    best_config: &Value,
    sweep: &str,
    held_out: Option<bool>,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut label = |key: &str, value: String| {
        if !value.is_empty() {
            labels.insert(key.to_owned(), value);
        }
    };
    let run = |job: &str| job.strip_prefix("jobs/").unwrap_or(job).to_owned();
    let (kind, parent) = match source.and_then(|source| source.source.as_ref()) {
        Some(Source::BestSelected(job)) => ("hpo_best_selected", run(job)),
        Some(Source::FinalTraining(job)) => ("final_training", run(job)),
        Some(Source::Scratch(_)) | None => ("scratch", String::new()),
    };
    label(LINEAGE_SOURCE, kind.to_owned());
    label("code.lineage.parent_run_id", parent);
    label("code.lineage.hpo_sweep_run_id", run(sweep));
    let text = |key: &str| match best_config.get(key) {
        Some(Value::String(text)) => text.clone(),
        // JSON numbers of a protobuf Struct are doubles.
        Some(Value::Number(number)) => number.as_f64().map(|number| number.to_string()).unwrap_or_default(),
        _ => String::new(),
    };
    for (key, from) in [("hpo_study", "study"), ("hpo_trial", "trial"), ("hpo_trial_name", "trial_name")] {
        label(&format!("code.lineage.{key}"), text(from));
    }
    label("code.trained_on_full_data", held_out.map_or(String::new(), |held_out| (!held_out).to_string()));
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn earlier(rows: &[(&str, u32, Standing)]) -> Vec<Earlier> {
        let row = |(created, (job, variant, standing)): (usize, &(&str, u32, Standing))| Earlier {
            job: (*job).to_owned(),
            variant: *variant,
            created: created as i64,
            standing: standing.clone(),
        };
        rows.iter().enumerate().map(row).collect()
    }

    #[test]
    fn each_mode_does_what_it_says() {
        use FinalTrainingMode::{ForceNew, ResumeIfIncomplete, ReuseIfExists, Unspecified};
        use Standing::{Complete, Incomplete, Live};
        let broken = || Standing::Broken("no weights".into());
        let (reuse, follow, resume) = (
            |job: &str| Action::Reuse(job.to_owned()),
            |job: &str| Action::Follow(job.to_owned()),
            |job: &str| Action::Resume(job.to_owned()),
        );
        let none: Vec<Earlier> = Vec::new();
        let done = earlier(&[("a", 1, Complete), ("b", 2, Incomplete)]);
        let live = earlier(&[("a", 1, Incomplete), ("b", 2, Live)]);
        let failed = earlier(&[("a", 1, Incomplete)]);
        let again = earlier(&[("a", 1, Incomplete), ("b", 1, Complete)]);
        let spoiled = earlier(&[("a", 1, broken())]);
        let plain = earlier(&[("a", 0, Complete)]);
        let several = earlier(&[("a", 1, Complete), ("b", 3, Complete), ("c", 2, Complete)]);
        for (mode, variant, before, action, number) in [
            (ReuseIfExists, None, &none, Action::Create, 1),
            (Unspecified, None, &done, reuse("a"), 1),
            (ReuseIfExists, None, &live, follow("b"), 2),
            (ReuseIfExists, None, &failed, Action::Create, 2),
            (ReuseIfExists, None, &again, reuse("b"), 1),
            (ReuseIfExists, None, &spoiled, Action::Create, 2),
            (ReuseIfExists, None, &plain, reuse("a"), 0),
            (ReuseIfExists, None, &several, reuse("b"), 3),
            (ReuseIfExists, Some(2), &several, reuse("c"), 2),
            (ReuseIfExists, Some(2), &done, Action::Create, 2),
            (ReuseIfExists, Some(7), &several, Action::Create, 7),
            (ForceNew, None, &none, Action::Create, 1),
            (ForceNew, None, &several, Action::Create, 4),
            (ForceNew, None, &live, Action::Create, 3),
            (ForceNew, None, &plain, Action::Create, 1),
            (ResumeIfIncomplete, None, &none, Action::Create, 1),
            (ResumeIfIncomplete, None, &failed, resume("a"), 1),
            (ResumeIfIncomplete, None, &done, resume("b"), 2),
            (ResumeIfIncomplete, None, &again, reuse("b"), 1),
            (ResumeIfIncomplete, None, &live, follow("b"), 2),
            (ResumeIfIncomplete, None, &spoiled, Action::Create, 2),
            (ResumeIfIncomplete, Some(1), &done, reuse("a"), 1),
            (ResumeIfIncomplete, Some(5), &done, Action::Create, 5),
        ] {
            let decided = decide(mode, variant, before).unwrap();
            assert_eq!((&decided.action, decided.variant), (&action, number), "{mode:?} {variant:?} {before:?}");
            assert!(!decided.reason.is_empty());
        }
        assert_eq!(decide(ForceNew, Some(2), &done).unwrap_err().field, "variant");
        let told = decide(ReuseIfExists, None, &spoiled).unwrap().reason;
        assert!(told.contains("a has outputs") && told.contains("no weights"), "{told}");
    }

    #[test]
    fn labels_say_where_a_training_comes_from() {
        let best = json!({"study": "hpo_bert", "trial": 3.0, "trial_name": "t-3", "hyperparameters": {}});
        let source = SourceCheckpoint { source: Some(Source::BestSelected("jobs/ab".into())) };
        let labels = lineage(Some(&source), &best, "jobs/cd", Some(false));
        let expected = [
            ("code.lineage.hpo_study", "hpo_bert"),
            ("code.lineage.hpo_sweep_run_id", "cd"),
            ("code.lineage.hpo_trial", "3"),
            ("code.lineage.hpo_trial_name", "t-3"),
            ("code.lineage.parent_run_id", "ab"),
            ("code.lineage.source", "hpo_best_selected"),
            ("code.trained_on_full_data", "true"),
        ];
        assert_eq!(labels, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let labels = lineage(None, &Value::Null, "", Some(true));
        assert_eq!(
            (labels[LINEAGE_SOURCE].as_str(), labels["code.trained_on_full_data"].as_str()),
            ("scratch", "false")
        );
        assert_eq!(labels.len(), 2);
        assert_eq!(lineage(None, &Value::Null, "", None).len(), 1);
    }
}
