//! Everything that is checked and read before the first step.
use std::collections::BTreeMap;

use quintet_nlp::{
    checkpoint::Checkpoint,
    encoder::EncoderConfig,
    prepare::{Options, Part, Prepared, prepare_watched},
    task::Task,
};

use tch::{Device, Kind};

use super::{Run, replicas::Replica, resume, steps};
use crate::{
    Directive, Error, Hyper, Observer, TrainRequest, device,
    loss::Loss,
    loss_scale::LossScale,
    model::Model,
    optimizer::{Optimizer, Settings},
    parameters::Parameters,
    schedule::Schedule,
    state::Position,
};

impl<'a> Run<'a> {
    /// Reads and checks all inputs, loads the weights, and takes up the state of an earlier attempt; a directive when told to stop
    /// meanwhile.
    pub(crate) fn prepare(
        request: &'a TrainRequest,
        observer: &mut dyn Observer,
    ) -> Result<Result<Self, Directive>, Error> {
        let hyper = &request.hyper;
        for output in [&request.checkpoint_out, &request.evaluation_out, &request.last_good_out] {
            if !request.metrics_only && output.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(Error::field("out", format!("`{}` is not empty", output.display())));
            }
        }
        let device = device::choose(request.device)?;
        let others = device::beside(device, request.devices)?;
        let precision = device::precision(hyper.precision, device)?;
        let checkpoint = Checkpoint::open(&request.checkpoint)?;
        request.check_encoder(&checkpoint.config)?;
        let tokenizer = checkpoint.tokenizer()?;
        let threads = if request.threads > 0 { request.threads } else { all_cores() };
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        let options =
            Options { max_length: hyper.max_length, work_dir: request.work_dir.clone(), threads, ..Options::default() };
        let mut stopped = Directive::Continue;
        let mut watch = |split: &'static str, documents: usize| {
            observer.progress(0, 0, "steps", &format!("reading {split}: {documents} rows"));
            stopped = observer.directive();
            stopped == Directive::Continue
        };
        let prepared = match prepare_watched(&request.sources, &tokenizer, &options, &mut watch) {
            Err(quintet_nlp::Error::Stopped) => return Ok(Err(stopped)),
            other => other?,
        };
        let Prepared { task, labels, train, validation, test, notes } = prepared;
        if task == Task::Regression
            && let Some(setting) = hyper.of_terms_by_label().next()
        {
            let problem = "the loss of numbers has no labels that it could change; leave it out".to_owned();
            return Err(Error::field(format!("hyperparameters.{setting}"), problem));
        }
        let mut alignments = BTreeMap::new();
        for part in [Some(&train), Some(&validation), test.as_ref()].into_iter().flatten() {
            let alignment = part.alignment;
            if alignment.truncated_rows > 0 {
                let unseen = if task.is_sequence() {
                    String::new()
                } else {
                    format!("; {} words are unseen", alignment.unseen_words)
                };
                observer.log(&format!(
                    "{}: {} of {} rows are longer than max_length {} and were cut{unseen}",
                    part.name, alignment.truncated_rows, alignment.rows, hyper.max_length
                ));
            }
            alignments.insert(part.name.to_owned(), alignment);
        }
        for note in &notes {
            observer.log(note);
        }

        let mut config = checkpoint.config.clone();
        config.task = Some(task);
        config.labels = labels;
        config.crf = hyper.crf;
        if checkpoint.config.has_crf() && !hyper.crf && !task.is_sequence() {
            observer.log("the checkpoint's CRF is left out; `crf: true` goes on with it");
        }
        if let Some(dropout) = hyper.dropout {
            config.set_dropout(dropout);
        }
        let load = |device| load(&checkpoint, &config, hyper, device, precision);
        let parameters = load(device)?;
        let fresh = parameters.fresh().join(", ");
        if !fresh.is_empty() {
            observer.log(&format!("not in the checkpoint, drawn anew: {fresh}"));
        }
        let model = Model::new(&parameters, &config, device)?;
        let loss = Loss::new(hyper, &config.labels, &train.rows, device)?;
        let replica = |device| -> Result<Replica, Error> {
            let parameters = load(device)?;
            let model = Model::new(&parameters, &config, device)?;
            Replica::new(device, parameters, model, Loss::new(hyper, &config.labels, &train.rows, device)?)
        };
        let replicas = others.into_iter().map(replica).collect::<Result<Vec<_>, _>>()?;
        let layers = config.num_hidden_layers;
        let settings = Settings::new(hyper, &parameters, |leaf| hyper.rate_scale(leaf.depth, layers, leaf.head));
        let optimizer = Optimizer::new(&parameters, settings)?;
        let plan = steps::StepPlan::new(hyper, train.rows.lengths());
        let schedule = Schedule::new(hyper, plan.total());
        let fingerprint = match &request.resume_dir {
            Some(_) => resume::fingerprint(request, &checkpoint)?,
            None => String::new(),
        };
        let mut run = Self {
            request,
            config,
            task,
            train,
            validation,
            test,
            alignments,
            notes,
            device,
            parameters,
            model,
            loss,
            replicas,
            optimizer,
            schedule,
            plan,
            position: Position {
                fingerprint,
                parts: 1,
                owed: 1.0,
                loss_scale: (precision == Kind::Half).then(LossScale::default),
                ..Position::default()
            },
            average: None,
            best: None,
            trained_rows: 0,
            trained_seconds: 0.0,
        };
        run.check_metric()?;
        observer.log(&format!(
            "{} rows to train on, {} labels{}, {} steps an epoch, {} epochs, in {} on {} with {threads} threads",
            run.train.rows.len(),
            run.config.labels.len(),
            if fresh.is_empty() { " (head taken over from the checkpoint)" } else { "" },
            run.plan.of_first_epoch(),
            hyper.epochs,
            run.parameters.precision(),
            run.device_names(),
        ));
        if let Some(dir) = &request.resume_dir {
            run.resume(dir, observer)?;
        }
        Ok(Ok(run))
    }

    /// The split that the final evaluation is of.
    pub(crate) fn final_part(&self) -> &Part {
        self.test.as_ref().unwrap_or(&self.validation)
    }
}

/// The weights on a device.
fn load(
    checkpoint: &Checkpoint,
    config: &EncoderConfig,
    hyper: &Hyper,
    device: Device,
    kind: Kind,
) -> Result<Parameters, Error> {
    let mut parameters = Parameters::load_adapted(checkpoint, config, hyper.seed, device, kind, hyper.lora)?;
    freeze(&mut parameters, hyper, config.num_hidden_layers)?;
    Ok(parameters)
}

/// Takes the embeddings and the lowest layers out of training.
fn freeze(parameters: &mut Parameters, hyper: &Hyper, layers: usize) -> Result<(), Error> {
    let Some(frozen) = hyper.freeze_layers else { return Ok(()) };
    if frozen > layers {
        let problem = format!("found {frozen}, but the encoder has {layers} layers");
        return Err(Error::field("hyperparameters.freeze_layers", problem));
    }
    for leaf in parameters.leaves.iter_mut().filter(|leaf| !leaf.head && leaf.depth <= frozen) {
        leaf.tensor = leaf.tensor.f_set_requires_grad(false)?;
    }
    Ok(())
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
