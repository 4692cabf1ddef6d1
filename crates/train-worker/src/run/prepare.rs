//! Everything that is checked and read before the first step.
use std::collections::BTreeMap;

use quintet_nlp::{align::encode, checkpoint::Checkpoint, data::DataSet, task::Task};

use super::{Run, resume, steps};
use crate::{
    Error, Hyper, Observer, TrainRequest, device,
    evaluate::Split,
    loss::Loss,
    model::Model,
    optimizer::{Optimizer, Settings},
    parameters::Parameters,
    schedule::Schedule,
    state::Position,
};

impl<'a> Run<'a> {
    /// Reads and checks all inputs, loads the weights, and takes up the state of an earlier attempt.
    pub(crate) fn prepare(request: &'a TrainRequest, observer: &mut dyn Observer) -> Result<Self, Error> {
        let hyper = &request.hyper;
        for output in [&request.checkpoint_out, &request.evaluation_out] {
            if !request.metrics_only && output.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(Error::field("out", format!("`{}` is not empty", output.display())));
            }
        }
        let device = device::choose(request.device)?;
        let precision = device::precision(hyper.precision, device)?;
        let checkpoint = Checkpoint::open(&request.checkpoint)?;
        request.check_encoder(&checkpoint.config)?;
        let tokenizer = checkpoint.tokenizer()?;
        let DataSet::Tokens { labels, splits: data, notes } = DataSet::load(&request.sources)? else {
            return Err(Error::field("text_classification", "sequence tasks cannot be trained yet"));
        };

        let mut alignments = BTreeMap::new();
        let mut prepare = |name: &'static str, sentences: Vec<_>| -> Result<Split, Error> {
            let (rows, alignment) = encode(&sentences, &tokenizer, &labels, hyper.max_length)?;
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
        let validation = prepare("validation", data.validation)?;
        let test = data.test.map(|sentences| prepare("test", sentences)).transpose()?;
        drop_unlabelled(&mut train);
        if train.rows.is_empty() {
            let problem = "no row has a word that the tokenizer keeps".to_owned();
            return Err(quintet_nlp::Error::Split { split: "train", problem }.into());
        }
        for note in &notes {
            observer.log(note);
        }

        let mut config = checkpoint.config.clone();
        config.task = Some(Task::TokenClassification);
        config.labels = labels.names().to_vec();
        if let Some(dropout) = hyper.dropout {
            config.set_dropout(dropout);
        }
        let threads = if request.threads > 0 { request.threads } else { all_cores() };
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        let mut parameters = Parameters::load(&checkpoint, &config, hyper.seed, device, precision)?;
        let fresh = parameters.fresh().join(", ");
        if !fresh.is_empty() {
            observer.log(&format!("not in the checkpoint, drawn anew: {fresh}"));
        }
        freeze(&mut parameters, hyper, config.num_hidden_layers)?;
        let model = Model::new(&parameters, &config, device)?;
        let loss = Loss::new(hyper, &config.labels, train.rows.iter().map(|row| &row.target), device)?;
        let layers = config.num_hidden_layers;
        let settings = Settings::new(hyper, &parameters, |leaf| hyper.rate_scale(leaf.depth, layers, leaf.head));
        let optimizer = Optimizer::new(&parameters, settings)?;
        let plan = steps::StepPlan::new(hyper, steps::lengths(&train.rows));
        let schedule = Schedule::new(hyper, plan.total());
        observer.log(&format!(
            "{} rows to train on, {} labels{}, {} steps an epoch, {} epochs, in {} on {} with {threads} threads",
            train.rows.len(),
            config.labels.len(),
            if fresh.is_empty() { " (head taken over from the checkpoint)" } else { "" },
            plan.of_first_epoch(),
            hyper.epochs,
            parameters.precision(),
            device::name(device),
        ));
        let fingerprint = match &request.resume_dir {
            Some(_) => resume::fingerprint(request, &checkpoint)?,
            None => String::new(),
        };
        let mut run = Self {
            request,
            config,
            labels,
            train,
            validation,
            test,
            alignments,
            notes,
            device,
            parameters,
            model,
            loss,
            optimizer,
            schedule,
            plan,
            position: Position { fingerprint, parts: 1, owed: 1.0, ..Position::default() },
            average: None,
            best: None,
            trained_rows: 0,
            trained_seconds: 0.0,
        };
        if let Some(dir) = &request.resume_dir {
            run.resume(dir, observer)?;
        }
        Ok(run)
    }
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
