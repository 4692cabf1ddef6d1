//! Prediction over a file with a trained model on libtorch.
use quintet_nlp::{
    batch::Batch,
    checkpoint::Checkpoint,
    crf::Crf,
    predict::{FunctionToApply, PipelineTokenizer, PredictOptions, Predictor, ResultWriter, Scorer, Summary},
};
use tch::Kind;
use train_svc::predict::{PREDICTIONS, PredictRequest};

use crate::{
    Directive, Error, Observer, device, memory,
    model::Model,
    parameters::{Parameters, elements},
};

/// A model that gives outputs for batches.
struct TorchScorer(Model);

impl Scorer for TorchScorer {
    type Error = Error;

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, Error> {
        let scores = || -> Result<Vec<f32>, Error> {
            let input = self.0.input(batch)?;
            elements(&self.0.logits(&input, None, false)?.f_to_kind(Kind::Float)?)
        };
        tch::no_grad(scores).map_err(|error| memory::told(error, batch.rows, batch.length))
    }
}

/// Predicts on every text of the input and writes [`PREDICTIONS`] into the output folder when all are done. An attempt that was broken
/// off is continued after its last whole batch.
pub fn predict(request: &PredictRequest, observer: &mut dyn Observer) -> Result<Summary, Error> {
    let checkpoint = Checkpoint::open(&request.checkpoint)?;
    if !checkpoint.has_head() {
        let problem = format!("`{}` has no head with labels: it is not trained yet", request.checkpoint.display());
        return Err(Error::field("checkpoint", problem));
    }
    let config = checkpoint.config.clone();
    let task = config.task.unwrap_or_default();
    let positions = config.max_length();
    let max_length = request.max_length.unwrap_or(positions);
    if max_length > positions {
        let problem = format!("found {max_length}, but the checkpoint has {positions} positions");
        return Err(Error::field("max_length", problem));
    }
    checkpoint.tokenizer()?;
    let tokenizer = PipelineTokenizer::load(&checkpoint.dir.join("tokenizer.json"), max_length, request.stride)?;
    let options = PredictOptions {
        task,
        labels: config.labels.clone(),
        crf: Crf::of(&checkpoint)?,
        pad_token_id: config.filler(),
        batch_size: request.batch_size,
        aggregation_strategy: request.aggregation_strategy,
        ignore_labels: request.ignore_labels.clone(),
        function_to_apply: request.function_to_apply.unwrap_or_else(|| FunctionToApply::of_config(&config)),
        top_k: request.top_k(task),
        threshold: request.threshold(task) as f32,
    };
    let key = key(request, &checkpoint, &options, max_length)?;
    let predictor = Predictor::new(tokenizer, options)?;

    let device = device::choose(request.device)?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if request.threads > 0 { request.threads } else { cores() };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    let parameters = Parameters::load(&checkpoint, &config, 0, device, Kind::Float)?;
    let mut scorer = TorchScorer(Model::new(&parameters, &config, device)?);
    let mut writer = ResultWriter::open(&request.resume_dir, &key)?;
    if writer.rows() > 0 {
        observer.log(&format!("going on after the {} texts of an earlier attempt", writer.rows()));
    }
    let mut go_on = |done: usize, total: usize| {
        observer.progress(done as u64, total as u64, "texts", "predicting");
        observer.directive() == Directive::Continue
    };
    let summary = predictor.run(&mut scorer, &request.input, &request.options, &mut writer, &mut go_on)?;
    if !summary.stopped {
        std::fs::create_dir_all(&request.out)
            .map_err(|source| quintet_nlp::Error::Io { path: request.out.clone(), source })?;
        writer.finish(&request.out.join(PREDICTIONS))?;
    }
    Ok(summary)
}

/// What results depend on.
fn key(
    request: &PredictRequest,
    checkpoint: &Checkpoint,
    options: &PredictOptions,
    max_length: usize,
) -> Result<String, Error> {
    let (model, input) = (checkpoint.digest()?, quintet_nlp::files::digest(&request.input)?);
    Ok(format!("{model}\n{input}\n{options:?}\n{:?}\n{max_length} {:?}\n", request.options, request.stride))
}
