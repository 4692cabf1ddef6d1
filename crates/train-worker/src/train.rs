//! From a request to a report: a run prepared, trained, evaluated and written.
use crate::{Directive, Error, Observer, Outcome, TrainReport, TrainRequest, evaluate::Depth, outputs, run::Run};

/// Trains, evaluates and writes the outputs. Bad input is an error before work starts; nothing half-written remains.
///
/// When the loss is no number any more, the checkpoint of the best epoch before, if there is one, is written to `last_good_out`.
///
/// Told to prune or cancel, it stops at the next step: the report holds the epochs done, and no outputs are written.
pub fn train(request: &TrainRequest, observer: &mut dyn Observer) -> Result<TrainReport, Error> {
    let mut run = match Run::prepare(request, observer)? {
        Ok(run) => run,
        Err(stop) => return Ok(TrainReport::stopped(request, outcome(stop))),
    };
    match run.epochs(observer) {
        Err(error) => return Err(with_last_good(error, &mut run, observer)),
        Ok(Directive::Continue) => {}
        Ok(stop) => return Ok(run.report(outcome(stop), None)),
    }
    if request.metrics_only {
        return Ok(run.report(Outcome::Completed, None));
    }
    let evaluated = match run.evaluate(run.final_part(), Depth::Whole, observer)? {
        Ok(evaluated) => evaluated,
        Err(stop) => return Ok(run.report(outcome(stop), None)),
    };
    let mut report = evaluated.report.clone();
    run.leave_out_labels(&mut report.metrics);
    if report.split == "test" {
        for (key, value) in report.test_metrics() {
            observer.metric(&key, value, run.position.epochs.len() as i64);
        }
    }
    let (done, total) = run.place();
    observer.progress(done, total, "steps", "writing the checkpoint");
    outputs::evaluation(&request.evaluation_out, &run.model, &run.config, evaluated, request.hyper.max_length)?;
    outputs::checkpoint(&request.checkpoint_out, &run.parameters, &run.config, &request.checkpoint)?;
    Ok(run.report(Outcome::Completed, Some(report)))
}

/// Writes the checkpoint of the best epoch when training has diverged after it. When that is not possible the divergence is told all the
/// same.
fn with_last_good(mut error: Error, run: &mut Run<'_>, observer: &mut dyn Observer) -> Error {
    let Error::Diverged { kept, .. } = &mut error else { return error };
    let request = run.request;
    if request.metrics_only {
        return error;
    }
    let written = run.go_back().and_then(|epoch| {
        if epoch.is_some() {
            outputs::checkpoint(&request.last_good_out, &run.parameters, &run.config, &request.checkpoint)?;
        }
        Ok(epoch)
    });
    match written {
        Ok(epoch) => *kept = epoch.map(Box::new),
        Err(problem) => observer.log(&format!("the last good checkpoint was not written: {problem}")),
    }
    error
}

fn outcome(stop: Directive) -> Outcome {
    match stop {
        Directive::Prune => Outcome::Pruned,
        Directive::Cancel | Directive::Continue => Outcome::Cancelled,
    }
}
