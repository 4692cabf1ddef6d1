//! Epochs: trained, evaluated, the best one kept, stopped early.
use std::collections::BTreeMap;

use quintet_nlp::{
    metrics::{canonical, greater_is_better},
    prepare::Part,
    task::Task,
};

use super::{Run, report_epoch};
use crate::{
    Directive, EpochReport, Error, Observer, SplitReport,
    evaluate::{Depth, Evaluated, Evaluation, metric_names},
    state::Saver,
};

impl Run<'_> {
    /// Trains the epochs left. Its end leaves the weights to be published in place.
    pub(crate) fn epochs(&mut self, observer: &mut dyn Observer) -> Result<Directive, Error> {
        let mut saver = self.request.resume_dir.as_deref().map(|dir| Saver::new(dir, self.request.resume_every));
        while self.position.epochs.len() < self.request.hyper.epochs {
            if self.is_stale() {
                let epochs = self.request.hyper.early_stopping_patience.unwrap_or(0);
                observer.log(&format!("stopping early: no improvement in {epochs} epochs"));
                break;
            }
            let train_loss = match self.epoch(observer, &mut saver)? {
                Ok(loss) => loss,
                Err(stop) => return Ok(stop),
            };
            match self.end_epoch(train_loss, observer)? {
                Directive::Continue => {}
                stop => return Ok(stop),
            }
            let more = self.position.epochs.len() < self.request.hyper.epochs;
            if let Some(saver) = saver.as_mut().filter(|saver| more && saver.is_due()) {
                self.save(saver, observer);
            }
        }
        if let Some(Err(error)) = saver.as_mut().map(Saver::finish) {
            observer.log(&format!("the last state was not kept: {error}"));
        }
        self.keep_best(observer)?;
        Ok(Directive::Continue)
    }

    /// Evaluates a split with the present weights.
    pub(crate) fn evaluate(
        &self,
        part: &Part,
        depth: Depth,
        observer: &mut dyn Observer,
    ) -> Result<Result<Evaluated, Directive>, Error> {
        let evaluation = Evaluation {
            model: &self.model,
            part,
            task: self.task,
            labels: &self.config.labels,
            pad_token_id: self.config.filler(),
            depth,
            place: self.place(),
        };
        evaluation.run(observer)
    }

    fn end_epoch(&mut self, train_loss: f64, observer: &mut dyn Observer) -> Result<Directive, Error> {
        let seconds = self.position.seconds_of_epoch;
        self.trained_seconds += seconds;
        self.optimizer.settle(&mut self.parameters)?;
        let own = self.use_average()?;
        let report = match self.evaluate(&self.validation, Depth::Metrics, observer)? {
            Ok(evaluated) => evaluated.report,
            Err(stop) => return Ok(stop),
        };
        let SplitReport { mut metrics, .. } = report;
        self.leave_out_labels(&mut metrics);
        let epoch = EpochReport {
            epoch: self.position.epochs.len() + 1,
            train_loss,
            seconds,
            cpu_seconds: self.position.cpu_seconds_of_epoch,
            metrics,
        };
        let before = self.position.best.and_then(|best| self.position.epochs.get(best - 1));
        let gain = match (self.chosen(&epoch), before.and_then(|before| self.chosen(before))) {
            (None, _) => f64::NEG_INFINITY,
            (Some(_), None) => f64::INFINITY,
            (Some(value), Some(before)) => self.gain(value, before),
        };
        let improves = gain > self.request.hyper.early_stopping_threshold;
        self.position.stale = if improves { 0 } else { self.position.stale + 1 };
        if gain > 0.0 {
            self.position.best = Some(epoch.epoch);
            if self.request.hyper.load_best_model {
                self.best = Some(self.parameters.copy()?);
            }
        }
        if let Some(own) = own {
            self.parameters.set(&own)?;
        }
        report_epoch(&epoch, observer);
        observer.log(&format!(
            "epoch {}: train loss {train_loss:.4}, {}, {seconds:.1} s",
            epoch.epoch,
            epoch.summary()
        ));
        self.position.epochs.push(epoch);
        self.position.steps_of_epoch = 0;
        self.position.loss_of_epoch = 0.0;
        self.position.seconds_of_epoch = 0.0;
        self.position.cpu_seconds_of_epoch = 0.0;
        Ok(Directive::Continue)
    }

    /// The metric that chooses the best epoch; none where it is not defined, as a correlation with equal predictions is not.
    fn chosen(&self, epoch: &EpochReport) -> Option<f64> {
        epoch.metrics.get(self.metric_name()).copied().filter(|value| value.is_finite())
    }

    /// Refuses a metric that this task does not have.
    pub(super) fn check_metric(&self) -> Result<(), Error> {
        let (name, labels) = (self.metric_name(), &self.config.labels);
        let known = metric_names(self.task, labels)?;
        if known.contains(name) {
            return Ok(());
        }
        let general: Vec<&str> = known.iter().map(String::as_str).filter(|name| !is_of_a_label(name, labels)).collect();
        let problem = format!("found `{name}`; this task has {}", general.join(", "));
        Err(Error::field("hyperparameters.metric_for_best_model", problem))
    }

    fn metric_name(&self) -> &str {
        let default = if self.task == Task::Regression { "mse" } else { "f1" };
        canonical(self.request.hyper.metric_for_best_model.as_deref().unwrap_or(default))
    }

    /// Leaves out the metrics of single labels, which the report of the final split has; the one that chooses the best epoch stays.
    pub(crate) fn leave_out_labels(&self, metrics: &mut BTreeMap<String, f64>) {
        let chosen = self.metric_name();
        metrics.retain(|name, _| name == chosen || !is_of_a_label(name, &self.config.labels));
    }

    /// By how much a value is better than another.
    fn gain(&self, value: f64, before: f64) -> f64 {
        if greater_is_better(self.metric_name()) == Some(false) { before - value } else { value - before }
    }

    /// Whether patience has come to its end.
    fn is_stale(&self) -> bool {
        self.request.hyper.early_stopping_patience.is_some_and(|patience| self.position.stale >= patience)
    }

    /// Puts the weights of the best epoch before training diverged in place, and gives its report; none when no epoch was kept.
    pub(crate) fn go_back(&mut self) -> Result<Option<EpochReport>, Error> {
        let Some(best) = self.best.take() else { return Ok(None) };
        self.parameters.set(&best)?;
        self.parameters.merge()?;
        Ok(self.position.best.and_then(|epoch| self.position.epochs.get(epoch - 1)).cloned())
    }

    /// Puts the weights to be published in place: those of the best epoch, else the average, else the last ones.
    fn keep_best(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        self.optimizer.settle(&mut self.parameters)?;
        let last = self.position.epochs.len();
        match (self.best.take(), self.position.best) {
            (Some(best), Some(epoch)) => {
                if epoch != last || self.average.is_some() {
                    self.parameters.set(&best)?;
                }
                observer.log(&format!("keeping the weights of epoch {epoch}"));
            }
            _ => {
                self.use_average()?;
            }
        }
        self.parameters.merge()
    }
}

/// Whether a metric is that of one label or entity type: there may be hundreds, and their names are no keys of metrics.
fn is_of_a_label(metric: &str, labels: &[String]) -> bool {
    let ends = ["_f1", "_precision", "_recall"];
    ends.iter().filter_map(|end| metric.strip_suffix(end)).any(|stem| {
        let names = labels.iter().map(String::as_str);
        names.flat_map(|label| [label, label.get(2..).unwrap_or(label)]).any(|name| name == stem)
    })
}
