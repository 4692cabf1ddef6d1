//! Opening the study of a sweep, and picking up what an earlier attempt left.

use quintet_proto::v1::{Job, sweep_spec::Trial as TrialKind};
use runtime_core::{
    status::{ErrorReason, FieldViolation},
    worker::Failure,
};

use super::{
    ATTR_BACKBONE, ATTR_METRICS, ATTR_SPACE, Control, Sweep,
    folds::folds,
    runner::{Run, Runner, store_failure},
};
use crate::{
    objective::metric_names,
    pruner::stopped_at,
    pyjson::dump_text,
    space,
    storage::{self, Attributes},
    study::{Direction, State, Study, Trial},
};

impl Runner {
    /// The study of a sweep: a new one, or one that exists and agrees with it.
    pub(super) async fn open_study(&self, sweep: &Sweep, job: &Job) -> Result<Study, Failure> {
        self.store.check_revision().await.map_err(store_failure)?;
        let name = sweep.study_name(&job.content_hash);
        if let Some(study) = self.store.find_study(&name).await.map_err(store_failure)? {
            return self.transferred(agree(study, sweep)?, sweep).await;
        }
        let (user_attrs, system_attrs) = attributes(sweep);
        let none: &[Trial] = &[];
        let (first, mark) = match &sweep.transfer {
            Some(transfer) => {
                let planned = transfer.trials(&self.store, &name, &sweep.space, none).await.map_err(store_failure)?;
                (planned.map_err(refused)?, Some(transfer.mark()))
            }
            None => Default::default(),
        };
        let new = Study {
            id: 0,
            name: name.clone(),
            directions: sweep.goals.directions(),
            user_attrs,
            system_attrs: system_attrs.into_iter().chain(mark).collect(),
        };
        match self.store.import(new, first).await {
            Err(storage::Error::StudyExists(_)) => {
                let study = self.store.find_study(&name).await.map_err(store_failure)?;
                let gone = || Failure::infrastructure(ErrorReason::Conflict, format!("study `{name}` was deleted"));
                self.transferred(agree(study.ok_or_else(gone)?, sweep)?, sweep).await
            }
            other => other.map_err(store_failure),
        }
    }

    /// A study that was there, with what the sweep takes over from earlier ones.
    async fn transferred(&self, study: Study, sweep: &Sweep) -> Result<Study, Failure> {
        if let Some(transfer) = &sweep.transfer {
            let queued = transfer.queue(&self.store, &study, &sweep.space).await.map_err(store_failure)?;
            queued.map_err(refused)?;
        }
        Ok(study)
    }
}

/// Earlier studies that cannot be used.
fn refused(wrong: Vec<FieldViolation>) -> Failure {
    let text: Vec<String> = wrong.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    Failure::user(ErrorReason::InvalidField, text.join("; "))
}

fn attributes(sweep: &Sweep) -> (Attributes, Attributes) {
    let mut user = Attributes::from([(ATTR_SPACE.to_owned(), sweep.space.to_json())]);
    if let Some(TrialKind::Train(train)) = &sweep.spec.trial {
        user.insert(ATTR_BACKBONE.to_owned(), dump_text(&train.checkpoint));
    }
    let metrics = sweep.goals.objectives.iter().map(|objective| objective.metric.as_str());
    (user, Attributes::from([(ATTR_METRICS.to_owned(), metric_names(metrics))]))
}

/// Refuses to mix trials that are not comparable.
fn agree(study: Study, sweep: &Sweep) -> Result<Study, Failure> {
    match disagreement(&study, sweep) {
        None => Ok(study),
        Some(problem) => Err(Failure::user(ErrorReason::InvalidField, format!("study_name: {problem}"))),
    }
}

/// Why the trials of a study that exists cannot be compared with those of the sweep. An attribute that the study lacks, being
/// Optuna's own, is no difference.
pub(crate) fn disagreement(study: &Study, sweep: &Sweep) -> Option<String> {
    let (user, system) = attributes(sweep);
    let mut differences = Vec::new();
    let ours = sweep.goals.directions();
    if study.directions != ours {
        let text = |directions: &[Direction]| directions.iter().map(|d| d.as_str()).collect::<Vec<_>>().join(", ");
        differences.push(format!("its direction is {}, not {}", text(&study.directions), text(&ours)));
    }
    let names = [(ATTR_METRICS, "objective"), (ATTR_SPACE, "search space"), (ATTR_BACKBONE, "checkpoint")];
    for (key, what) in names {
        let (theirs, ours) = match key {
            ATTR_METRICS => (study.system_attrs.get(key), system.get(key)),
            _ => (study.user_attrs.get(key), user.get(key)),
        };
        let (Some(theirs), Some(ours)) = (theirs, ours) else { continue };
        if key == ATTR_SPACE {
            let found = space::differences(theirs, ours);
            if !found.is_empty() {
                differences.push(format!("its {what} is another one: {}", found.join("; ")));
            }
        } else if theirs != ours {
            differences.push(format!("its {what} is {theirs}, not {ours}"));
        }
    }
    let differences = (!differences.is_empty()).then(|| differences.join(", and "))?;
    Some(format!("study `{}` exists and {differences}; give the sweep another study_name", study.name))
}

impl Run {
    /// Follows the trials that an earlier attempt started on, and ends those of sweeps that are over.
    pub(super) async fn resume(&mut self) -> Result<(), Failure> {
        self.update().await?;
        if Control::of(&self.study).closing(&self.job.uid) {
            self.set_closing(false).await?;
        }
        self.runner.end_orphans_of(&self.client, Some(self.study.id)).await?;
        let running: Vec<Trial> =
            self.history.trials().iter().filter(|trial| trial.state == State::Running).cloned().collect();
        for trial in &running {
            if self.owns(trial) {
                self.context.log(format_args!("trial {} is followed on", trial.number));
                match folds(trial).len() {
                    0 => {
                        self.follow(trial).await?;
                        // What its last report meant may not have been found out, or not been carried out.
                        let last = trial.last_report().map(|(step, _)| step);
                        self.fresh.entry(trial.number).or_default().extend(stopped_at(trial).into_iter().chain(last));
                    }
                    done => self.fold_done(trial.number, done),
                }
            }
        }
        Ok(())
    }
}
