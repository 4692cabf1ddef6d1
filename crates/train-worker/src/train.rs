//! The training loop.
use std::{collections::BTreeMap, path::Path, time::Instant};

use quintet_nlp::{
    align::{Alignment, Encoded, encode},
    batch,
    checkpoint::{Checkpoint, EncoderConfig},
    data::{DataSet, LabelSet},
    files,
    random::derive,
    task::Task,
};
use tch::{Device, Reduction, Tensor};

use crate::{
    Directive, EpochReport, Error, Observer, Outcome, SplitReport, TrainReport, TrainRequest, device,
    evaluate::{Split, evaluate},
    model::Model,
    optimizer::{AdamW, Gradients},
    outputs,
    parameters::Parameters,
    schedule::Schedule,
    state::{self, Position, Tensors},
};

/// Steps whose losses wait on a GPU before they are read: reading stalls it.
const LOSSES_KEPT: usize = 20;

/// Trains, evaluates and writes the outputs. Bad input is an error before work starts; nothing half-written remains.
///
/// Told to prune or cancel, it stops at the next step: the report holds the epochs done, and no outputs are written.
pub fn train(request: &TrainRequest, observer: &mut dyn Observer) -> Result<TrainReport, Error> {
    let mut run = Run::prepare(request, observer)?;
    match run.epochs(observer)? {
        Directive::Continue => {}
        stop => return Ok(run.report(outcome(stop), None)),
    }
    run.keep_best(observer)?;
    if request.metrics_only {
        return Ok(run.report(Outcome::Completed, None));
    }
    let split = run.test.take().unwrap_or_else(|| run.validation.take());
    let position = run.place();
    let evaluated = match evaluate(&run.model, &split, &run.labels, run.config.pad_token_id, observer, position)? {
        Ok(evaluated) => evaluated,
        Err(stop) => return Ok(run.report(outcome(stop), None)),
    };
    let report = evaluated.report.clone();
    if report.split == "test" {
        for (key, value) in test_metrics(&report) {
            observer.metric(key, value, run.position.epochs.len() as i64);
        }
    }
    observer.progress(position.0, position.1, "steps", "writing the checkpoint");
    outputs::evaluation(&request.evaluation_out, &run.model, &run.config, &split, evaluated, request.hyper.max_length)?;
    outputs::checkpoint(&request.checkpoint_out, &run.parameters, &run.config, &request.checkpoint)?;
    Ok(run.report(Outcome::Completed, Some(report)))
}

fn outcome(stop: Directive) -> Outcome {
    match stop {
        Directive::Prune => Outcome::Pruned,
        Directive::Cancel | Directive::Continue => Outcome::Cancelled,
    }
}

fn test_metrics(report: &SplitReport) -> [(&'static str, f64); 6] {
    let scores = &report.default.micro;
    [
        ("test_f1", scores.f1),
        ("test_precision", scores.precision),
        ("test_recall", scores.recall),
        ("test_f1_strict", report.strict.micro.f1),
        ("test_accuracy", report.default.accuracy),
        ("test_loss", report.loss),
    ]
}

/// A run and where it stands.
struct Run<'a> {
    request: &'a TrainRequest,
    config: EncoderConfig,
    labels: LabelSet,
    train: Split,
    validation: Validation,
    test: Option<Split>,
    alignments: BTreeMap<String, Alignment>,
    notes: Vec<String>,
    device: Device,
    parameters: Parameters,
    model: Model,
    optimizer: AdamW,
    schedule: Schedule,
    steps_per_epoch: usize,
    position: Position,
    best: Option<Tensor>,
    trained_rows: usize,
    trained_seconds: f64,
}

/// The validation split, which the final evaluation takes when there is no test split.
struct Validation(Split);

impl Validation {
    fn take(&mut self) -> Split {
        let empty = Split { name: "validation", sentences: Vec::new(), rows: Vec::new() };
        std::mem::replace(&mut self.0, empty)
    }
}

impl<'a> Run<'a> {
    fn prepare(request: &'a TrainRequest, observer: &mut dyn Observer) -> Result<Self, Error> {
        let hyper = &request.hyper;
        for output in [&request.checkpoint_out, &request.evaluation_out] {
            if !request.metrics_only && output.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(Error::field("out", format!("`{}` is not empty", output.display())));
            }
        }
        let checkpoint = Checkpoint::open(&request.checkpoint)?;
        request.check_encoder(&checkpoint.config)?;
        let tokenizer = checkpoint.tokenizer()?;
        let data = DataSet::load(&request.sources)?;

        let mut alignments = BTreeMap::new();
        let mut prepare = |name: &'static str, sentences: Vec<_>| -> Result<Split, Error> {
            let (rows, alignment) = encode(&sentences, &tokenizer, &data.labels, hyper.max_length)?;
            if alignment.truncated_rows > 0 {
                observer.log(&format!(
                    "{name}: {} of {} rows are longer than max_length {} and were cut; {} words are unseen",
                    alignment.truncated_rows, alignment.rows, hyper.max_length, alignment.unseen_words
                ));
            }
            alignments.insert(name.to_owned(), alignment);
            Ok(Split { name, sentences, rows })
        };
        let mut train = prepare("train", data.train)?;
        let validation = Validation(prepare("validation", data.validation)?);
        let test = data.test.map(|sentences| prepare("test", sentences)).transpose()?;
        drop_unlabelled(&mut train);
        if train.rows.is_empty() {
            let problem = "no row has a word that the tokenizer keeps".to_owned();
            return Err(quintet_nlp::Error::Split { split: "train", problem }.into());
        }
        for note in &data.notes {
            observer.log(note);
        }

        let mut config = checkpoint.config.clone();
        config.task = Some(Task::TokenClassification);
        config.labels = data.labels.names().to_vec();
        if let Some(dropout) = hyper.dropout {
            config.set_dropout(dropout);
        }
        let device = device::choose(request.device)?;
        let threads = if request.threads > 0 { request.threads } else { all_cores() };
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        let parameters = Parameters::load(&checkpoint, &config, hyper.seed, device)?;
        let model = Model::new(&parameters, &config, device)?;
        let optimizer = AdamW::new(&parameters, hyper.weight_decay, hyper.max_grad_norm)?;
        let steps_per_epoch = train.rows.len().div_ceil(hyper.batch_size);
        let schedule = Schedule::new(hyper.learning_rate, hyper.warmup_ratio, steps_per_epoch * hyper.epochs);
        if !parameters.fresh().is_empty() {
            observer.log(&format!("not in the checkpoint, drawn anew: {}", parameters.fresh().join(", ")));
        }
        observer.log(&format!(
            "{} rows to train on, {} labels{}, {steps_per_epoch} steps an epoch, {} epochs, on {} with {threads} threads",
            train.rows.len(),
            config.labels.len(),
            if parameters.fresh().is_empty() { " (head taken over from the checkpoint)" } else { "" },
            hyper.epochs,
            device::name(device),
        ));
        let fingerprint = match &request.resume_dir {
            Some(_) => fingerprint(request, &checkpoint)?,
            None => String::new(),
        };
        let mut run = Self {
            request,
            config,
            labels: data.labels,
            train,
            validation,
            test,
            alignments,
            notes: data.notes,
            device,
            parameters,
            model,
            optimizer,
            schedule,
            steps_per_epoch,
            position: Position { fingerprint, steps: 0, epochs: Vec::new(), best: None },
            best: None,
            trained_rows: 0,
            trained_seconds: 0.0,
        };
        run.resume(observer)?;
        Ok(run)
    }

    /// Takes up the newest state of this run.
    fn resume(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let Some(dir) = &self.request.resume_dir else { return Ok(()) };
        let count = self.parameters.flat.numel();
        let found = state::load(dir, &self.position.fingerprint, count, |line| observer.log(line));
        let Some((position, tensors)) = found else { return Ok(()) };
        self.parameters.set(&tensors.weights)?;
        self.optimizer.resume(&tensors.moments[0], &tensors.moments[1])?;
        self.best = match tensors.best {
            Some(best) => Some(best.f_to_device(self.device)?),
            None => position.best.map(|_| self.parameters.copy()).transpose()?,
        };
        observer.log(&format!("resuming after epoch {}, step {}", position.epochs.len(), position.steps));
        for epoch in &position.epochs {
            report_epoch(epoch, observer);
        }
        self.position = position;
        Ok(())
    }

    /// Trains the epochs left.
    fn epochs(&mut self, observer: &mut dyn Observer) -> Result<Directive, Error> {
        let hyper = &self.request.hyper;
        let mut saved = Instant::now();
        while self.position.epochs.len() < hyper.epochs {
            let started = Instant::now();
            let train_loss = match self.epoch(observer)? {
                Ok(loss) => loss,
                Err(stop) => return Ok(stop),
            };
            let seconds = started.elapsed().as_secs_f64();
            self.trained_rows += self.train.rows.len();
            self.trained_seconds += seconds;
            let place = self.place();
            let pad = self.config.pad_token_id;
            let report = match evaluate(&self.model, &self.validation.0, &self.labels, pad, observer, place)? {
                Ok(evaluated) => evaluated.report,
                Err(stop) => return Ok(stop),
            };
            let epoch = EpochReport {
                epoch: self.position.epochs.len() + 1,
                train_loss,
                loss: report.loss,
                f1: report.default.micro.f1,
                precision: report.default.micro.precision,
                recall: report.default.micro.recall,
                f1_strict: report.strict.micro.f1,
                seconds,
            };
            let best_before =
                self.position.best.and_then(|best| self.position.epochs.get(best - 1)).map(|best| best.f1);
            self.position.epochs.push(epoch.clone());
            let improves = best_before.is_none_or(|before| epoch.f1 > before);
            if hyper.load_best_model && improves {
                self.position.best = Some(epoch.epoch);
                self.best = Some(self.parameters.copy()?);
            }
            report_epoch(&epoch, observer);
            observer.log(&format!(
                "epoch {}: train loss {train_loss:.4}, validation loss {:.4}, F1 {:.4} (strict {:.4}), {seconds:.1} s",
                epoch.epoch, epoch.loss, epoch.f1, epoch.f1_strict
            ));
            let more = epoch.epoch < hyper.epochs;
            if let Some(dir) = self.request.resume_dir.as_deref().filter(|_| more)
                && saved.elapsed() >= self.request.resume_every
            {
                self.save(dir)?;
                saved = Instant::now();
            }
        }
        Ok(Directive::Continue)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        let present_is_best = self.position.best == Some(self.position.epochs.len());
        let tensors = Tensors {
            weights: self.parameters.flat.shallow_clone(),
            moments: self.optimizer.moments.each_ref().map(Tensor::shallow_clone),
            best: self.best.as_ref().filter(|_| !present_is_best).map(Tensor::shallow_clone),
        };
        state::save(dir, &self.position, &tensors)
    }

    /// One pass over the training rows; gives the mean of the steps' losses.
    fn epoch(&mut self, observer: &mut dyn Observer) -> Result<Result<f64, Directive>, Error> {
        let hyper = &self.request.hyper;
        let number = self.position.epochs.len();
        let lengths: Vec<usize> = self.train.rows.iter().map(Encoded::length).collect();
        let batches = batch::epoch(&lengths, hyper.batch_size, hyper.group_by_length, hyper.seed, number as u64);
        let count = batches.len();
        let (mut sum, mut known) = (0.0, 0usize);
        let mut waiting: Vec<(usize, Vec<usize>, Tensor)> = Vec::new();
        for (index, members) in batches.into_iter().enumerate() {
            match observer.directive() {
                Directive::Continue => {}
                stop => return Ok(Err(stop)),
            }
            let loss = self.step(&members)?;
            waiting.push((self.position.steps, members, loss));
            if self.device == Device::Cpu || waiting.len() == LOSSES_KEPT || index + 1 == count {
                for (step, members, loss) in waiting.drain(..) {
                    let value = loss.f_double_value(&[])?;
                    if !value.is_finite() {
                        return Err(self.diverged(step, "loss", &members));
                    }
                    sum += value;
                    known += 1;
                }
            }
            let message = format!("epoch {} of {}, loss {:.4}", number + 1, hyper.epochs, sum / known.max(1) as f64);
            let (done, total) = self.place();
            observer.progress(done, total, "steps", &message);
        }
        Ok(Ok(sum / count.max(1) as f64))
    }

    /// One step; gives the loss on the device.
    fn step(&mut self, members: &[usize]) -> Result<Tensor, Error> {
        let padded = batch::pad(members.iter().map(|row| &self.train.rows[*row]), 0, self.config.pad_token_id);
        let step = self.position.steps;
        // Dropout of a step depends on the seed and the step alone, so a resumed attempt draws the same.
        tch::manual_seed((derive(self.request.hyper.seed, "step", step as u64) >> 1) as i64);
        let (loss, gradients) = if self.device == Device::Cpu {
            let (input, words) = self.model.input_with_rows(&padded)?;
            let logits = self.model.logits(&input, Some(&words), true)?;
            let loss = input.wanted.loss(&logits, Reduction::Mean)?;
            let others = self.parameters.leaves.iter().skip(1).map(|leaf| &leaf.tensor);
            let leaves: Vec<&Tensor> = std::iter::once(&words.tensor).chain(others).collect();
            let mut found = Tensor::f_run_backward(&[&loss], &leaves, false, false)?.into_iter();
            let rows = found.next().ok_or(Error::Internal("no gradient of the word table"))?;
            let leaves = std::iter::once(None).chain(found.map(Some)).collect();
            (loss, Gradients { leaves, words: Some((words.ids, rows)) })
        } else {
            let input = self.model.input(&padded)?;
            let logits = self.model.logits(&input, None, true)?;
            let loss = input.wanted.loss(&logits, Reduction::Mean)?;
            let leaves: Vec<&Tensor> = self.parameters.leaves.iter().map(|leaf| &leaf.tensor).collect();
            let found = Tensor::f_run_backward(&[&loss], &leaves, false, false)?;
            (loss, Gradients { leaves: found.into_iter().map(Some).collect(), words: None })
        };
        let rate = self.schedule.rate(step);
        let norm = self.optimizer.step(&mut self.parameters, &gradients, rate, step + 1)?;
        self.position.steps += 1;
        let loss = loss.f_detach()?;
        if norm.is_some_and(|norm| !norm.is_finite()) && loss.f_double_value(&[])?.is_finite() {
            return Err(self.diverged(step + 1, "gradient norm", members));
        }
        Ok(loss)
    }

    fn diverged(&self, step: usize, what: &'static str, members: &[usize]) -> Error {
        let lines: Vec<String> = members.iter().map(|row| self.train.sentences[*row].line.to_string()).collect();
        let rows = format!("`{}` lines {}", self.request.sources.train.display(), lines.join(", "));
        Error::Diverged { step, what, rows }
    }

    /// Puts the weights of the best epoch back.
    fn keep_best(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let last = self.position.epochs.len();
        if let (Some(best), Some(epoch)) = (self.best.take(), self.position.best) {
            if epoch != last {
                self.parameters.set(&best)?;
            }
            observer.log(&format!("keeping the weights of epoch {epoch}"));
        }
        Ok(())
    }

    /// Steps done and steps in all.
    fn place(&self) -> (u64, u64) {
        (self.position.steps as u64, (self.steps_per_epoch * self.request.hyper.epochs) as u64)
    }

    fn report(&self, outcome: Outcome, evaluation: Option<SplitReport>) -> TrainReport {
        let kept_epoch = match outcome {
            Outcome::Completed => self.position.best.or(Some(self.position.epochs.len())),
            _ => None,
        };
        // A stopped run reports its last epoch.
        let shown = kept_epoch.unwrap_or(self.position.epochs.len());
        let mut metrics = BTreeMap::new();
        if let Some(epoch) = shown.checked_sub(1).and_then(|index| self.position.epochs.get(index)) {
            metrics.extend(epoch.metrics().map(|(key, value)| (key.to_owned(), value)));
        }
        if let Some(report) = evaluation.as_ref().filter(|report| report.split == "test") {
            metrics.extend(test_metrics(report).map(|(key, value)| (key.to_owned(), value)));
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
            device: device::name(self.device),
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
            rows_per_second: self.trained_rows as f64 / self.trained_seconds.max(f64::MIN_POSITIVE),
            notes: self.notes.clone(),
        }
    }
}

fn report_epoch(epoch: &EpochReport, observer: &mut dyn Observer) {
    for (key, value) in epoch.metrics() {
        observer.metric(key, value, epoch.epoch as i64);
    }
}

/// Rows without a label would make a batch's mean loss 0/0.
fn drop_unlabelled(split: &mut Split) {
    let keep: Vec<bool> = split.rows.iter().map(|row| row.counts()).collect();
    let mut flags = keep.iter();
    split.rows.retain(|_| *flags.next().unwrap_or(&true));
    let mut flags = keep.iter();
    split.sentences.retain(|_| *flags.next().unwrap_or(&true));
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Identifies a run by everything that its result depends on.
fn fingerprint(request: &TrainRequest, checkpoint: &Checkpoint) -> Result<String, Error> {
    let sources = &request.sources;
    let mut parts = vec![checkpoint.digest()?, format!("{:?}", request.hyper), format!("{:?}", sources.options)];
    parts.push(format!("{} {} {:?}", sources.validation_fraction, sources.seed, sources.fold));
    for path in [Some(&sources.train), sources.validation.as_ref()].into_iter().flatten() {
        parts.push(files::digest(path)?);
    }
    Ok(parts.join("\n"))
}
