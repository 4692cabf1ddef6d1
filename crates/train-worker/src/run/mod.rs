//! A training run: prepared before any work starts, trained by epochs, kept between steps.
mod average;
mod epochs;
mod prepare;
mod replicas;
mod resume;
mod share;
mod steps;

use std::collections::BTreeMap;

use quintet_nlp::{align::Alignment, encoder::EncoderConfig, prepare::Part, task::Task};
use tch::{Device, Tensor};

use self::{replicas::Replica, steps::StepPlan};
use crate::{
    EpochReport, Observer, Outcome, SplitReport, TrainReport, TrainRequest, device, loss::Loss, model::Model,
    optimizer::Optimizer, parameters::Parameters, schedule::Schedule, state::Position,
};

/// A run and where it stands.
pub(crate) struct Run<'a> {
    pub(crate) request: &'a TrainRequest,
    pub(crate) config: EncoderConfig,
    pub(crate) task: Task,
    train: Part,
    validation: Part,
    test: Option<Part>,
    alignments: BTreeMap<String, Alignment>,
    notes: Vec<String>,
    device: Device,
    pub(crate) parameters: Parameters,
    pub(crate) model: Model,
    pub(crate) loss: Loss,
    /// The model on further devices.
    replicas: Vec<Replica>,
    optimizer: Optimizer,
    schedule: Schedule,
    /// Batches and steps of each epoch.
    plan: StepPlan,
    pub(crate) position: Position,
    /// Moving average of the weights.
    average: Option<Tensor>,
    /// Weights of the best epoch.
    best: Option<Tensor>,
    trained_rows: usize,
    trained_seconds: f64,
}

impl Run<'_> {
    /// Steps done and steps in all.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.position.steps as u64, self.plan.total() as u64)
    }

    /// The devices, for people.
    fn device_names(&self) -> String {
        let all = std::iter::once(self.device).chain(self.replicas.iter().map(Replica::device));
        all.map(device::name).collect::<Vec<_>>().join(", ")
    }

    /// What the run leaves for people and for tracking.
    pub(crate) fn report(&self, outcome: Outcome, evaluation: Option<SplitReport>) -> TrainReport {
        let kept_epoch = match outcome {
            Outcome::Completed => {
                let best = self.position.best.filter(|_| self.request.hyper.load_best_model);
                best.or(Some(self.position.epochs.len()))
            }
            _ => None,
        };
        // A stopped run reports its last epoch.
        let shown = kept_epoch.unwrap_or(self.position.epochs.len());
        let mut metrics = BTreeMap::new();
        if let Some(epoch) = shown.checked_sub(1).and_then(|index| self.position.epochs.get(index)) {
            metrics.extend(epoch.metrics());
        }
        if let Some(report) = evaluation.as_ref().filter(|report| report.split == "test") {
            metrics.extend(report.test_metrics());
        }
        TrainReport {
            outcome,
            hyperparameters: self.request.hyper.clone(),
            labels: self.config.labels.clone(),
            splits: self.alignments.clone(),
            epochs: self.position.epochs.clone(),
            kept_epoch,
            steps: self.position.steps,
            evaluation,
            metrics,
            device: self.device_names(),
            precision: self.parameters.precision().to_owned(),
            skipped_steps: self.position.skipped_steps(),
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
            rows_per_second: self.trained_rows as f64 / self.trained_seconds.max(f64::MIN_POSITIVE),
            notes: self.notes.clone(),
        }
    }
}

fn report_epoch(epoch: &EpochReport, observer: &mut dyn Observer) {
    for (key, value) in epoch.metrics() {
        observer.metric(&key, value, epoch.epoch as i64);
    }
}
