//! The steps of an epoch: batches drawn, cut and accumulated, gradients taken, weights changed.
use std::time::Instant;

use quintet_nlp::{align::Encoded, batch, random::derive};
use tch::{Device, Tensor};

use super::{Run, memory};
use crate::{Directive, Error, Hyper, Observer, hyper::Accumulation, optimizer::Gradients, state::Saver};

/// Steps whose losses wait on a GPU before they are read: reading stalls it.
const LOSSES_KEPT: usize = 20;

/// How the training rows become steps.
pub(super) struct StepPlan {
    lengths: Vec<u32>,
    size: batch::Size,
    group_by_length: bool,
    seed: u64,
    /// Batches a step.
    accumulated: usize,
    steps: Vec<usize>,
}

impl StepPlan {
    pub(super) fn new(hyper: &Hyper, lengths: Vec<u32>) -> Self {
        let size = hyper.tokens_per_batch.map_or(batch::Size::Rows(hyper.batch_size), batch::Size::Tokens);
        let mut plan = Self {
            lengths,
            size,
            group_by_length: hyper.group_by_length,
            seed: hyper.seed,
            accumulated: hyper.gradient_accumulation_steps,
            steps: Vec::new(),
        };
        let count = |epoch: usize| match size {
            batch::Size::Rows(rows) => plan.lengths.len().div_ceil(rows),
            batch::Size::Tokens(_) => plan.epoch(epoch).len(),
        };
        plan.steps = (0..hyper.epochs).map(|epoch| count(epoch).div_ceil(plan.accumulated)).collect();
        plan
    }

    /// The batches of an epoch, counted from 0.
    fn epoch(&self, epoch: usize) -> batch::Epoch {
        batch::Epoch::new(&self.lengths, self.size, self.group_by_length, self.seed, epoch as u64)
    }

    /// The rows of each batch of a step of an epoch.
    fn step(&self, epoch: &batch::Epoch, step: usize) -> Vec<Vec<usize>> {
        let batches = (step * self.accumulated..(step + 1) * self.accumulated).map(|index| epoch.batch(index));
        let rows = |batch: &[u32]| batch.iter().map(|row| *row as usize).collect();
        batches.filter(|batch| !batch.is_empty()).map(rows).collect()
    }

    /// Steps of all epochs.
    pub(super) fn total(&self) -> usize {
        self.steps.iter().sum()
    }

    /// Steps of the first epoch.
    pub(super) fn of_first_epoch(&self) -> usize {
        self.steps.first().copied().unwrap_or(0)
    }
}

/// Rows computed at a time, with what its loss is divided by.
struct Piece<'a> {
    rows: &'a [Encoded],
    divisor: f64,
}

/// Wall-clock and processor time.
struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Self {
        Self { wall: Instant::now(), cpu: processor_seconds() }
    }

    /// Seconds since the last lap, by the wall clock and of all threads.
    fn lap(&mut self) -> (f64, f64) {
        let before = std::mem::replace(self, Self::start());
        ((self.wall - before.wall).as_secs_f64(), self.cpu - before.cpu)
    }
}

/// Processor time of all threads of this process.
fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

impl Run<'_> {
    /// One pass over the training rows, or what is left of it; gives the mean of the steps' losses.
    pub(super) fn epoch(
        &mut self,
        observer: &mut dyn Observer,
        saver: &mut Option<Saver>,
    ) -> Result<Result<f64, Directive>, Error> {
        let hyper = &self.request.hyper;
        let number = self.position.epochs.len();
        let order = self.plan.epoch(number);
        let count = order.len().div_ceil(hyper.gradient_accumulation_steps);
        let mut waiting: Vec<(usize, Vec<Vec<usize>>, Tensor)> = Vec::new();
        let mut clock = Clock::start();
        while self.position.steps_of_epoch < count {
            let batches = self.plan.step(&order, self.position.steps_of_epoch);
            match observer.directive() {
                Directive::Continue => {}
                stop => return Ok(Err(stop)),
            }
            let loss = self.step(&batches, observer)?;
            self.trained_rows += batches.iter().map(Vec::len).sum::<usize>();
            let last = self.position.steps_of_epoch == count;
            let due = saver.as_ref().is_some_and(|saver| !last && saver.is_due() && !saver.is_busy());
            waiting.push((self.position.steps, batches, loss));
            if self.device == Device::Cpu || waiting.len() == LOSSES_KEPT || last || due {
                for (step, batches, loss) in waiting.drain(..) {
                    let value = loss.f_double_value(&[])?;
                    if !value.is_finite() {
                        return Err(self.diverged(step, "loss", &batches.concat()));
                    }
                    self.position.loss_of_epoch += value;
                }
                let (seconds, cpu_seconds) = clock.lap();
                self.position.seconds_of_epoch += seconds;
                self.position.cpu_seconds_of_epoch += cpu_seconds;
            }
            if let Some(saver) = saver.as_mut().filter(|_| due) {
                self.save(saver, observer);
                clock = Clock::start();
            }
            let known = (self.position.steps_of_epoch - waiting.len()).max(1);
            let mean = self.position.loss_of_epoch / known as f64;
            let (done, total) = self.place();
            observer.progress(
                done,
                total,
                "steps",
                &format!("epoch {} of {}, loss {mean:.4}", number + 1, hyper.epochs),
            );
        }
        Ok(Ok(self.position.loss_of_epoch / count.max(1) as f64))
    }

    /// One step over its batches; gives the loss on the device.
    fn step(&mut self, batches: &[Vec<usize>], observer: &mut dyn Observer) -> Result<Tensor, Error> {
        let step = self.position.steps;
        let read = |rows: &Vec<usize>| rows.iter().map(|row| self.train.rows.get(*row)).collect::<Result<Vec<_>, _>>();
        let rows = batches.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let (loss, gradients) = loop {
            match self.gradients(&rows, step) {
                Err(error) if memory::is_exhausted(&error) => self.halve(&error, &rows, observer)?,
                other => break other?,
            }
        };
        let rate = self.schedule.rate(step);
        let norm = self.optimizer.step(&mut self.parameters, &gradients, rate, step + 1)?;
        if norm.is_some_and(|norm| !norm.is_finite()) {
            // The weights are those before the step. A loss that is no number is the plainer reason.
            let what = if loss.f_double_value(&[])?.is_finite() { "gradient norm" } else { "loss" };
            return Err(self.diverged(step + 1, what, &batches.concat()));
        }
        self.position.steps += 1;
        self.position.steps_of_epoch += 1;
        self.take_into_average()?;
        Ok(loss)
    }

    /// Loss and gradients of a step, without a change of anything.
    fn gradients(&self, batches: &[Vec<Encoded>], step: usize) -> Result<(Tensor, Gradients), Error> {
        // Dropout of a step depends on the seed and the step alone, so a resumed attempt draws the same.
        self.model.seed_dropout(derive(self.request.hyper.seed, "step", step as u64));
        let mut sum = Gradients::default();
        let mut total: Option<Tensor> = None;
        for piece in self.pieces(batches) {
            let padded = batch::pad(piece.rows, 0, self.config.pad_token_id);
            let (loss, gradients) = self.parameters.gradients(&self.model, &padded, true, |logits, wanted| {
                Ok(self.loss.sum(logits, wanted)?.f_div_scalar(piece.divisor)?)
            })?;
            sum.add(gradients)?;
            let loss = loss.f_detach()?;
            total = Some(match total {
                Some(total) => total.f_add(&loss)?,
                None => loss,
            });
        }
        Ok((total.ok_or(Error::Internal("a step without a batch"))?, sum))
    }

    /// Cuts the batches of a step, when memory ran out before, and says what each piece's sum is divided by.
    fn pieces<'b>(&self, batches: &'b [Vec<Encoded>]) -> Vec<Piece<'b>> {
        let terms = |rows: &[Encoded]| rows.iter().map(|row| self.loss.terms(&row.target)).sum::<f64>();
        let all: f64 = batches.iter().map(|rows| terms(rows)).sum();
        let mut pieces = Vec::new();
        for rows in batches {
            let divisor = match self.request.hyper.gradient_accumulation {
                Accumulation::Tokens => all,
                Accumulation::Mean => terms(rows) * batches.len() as f64,
            };
            // Where no term counts the sum is 0, and so is its mean.
            let divisor = if divisor > 0.0 { divisor } else { 1.0 };
            let size = rows.len().div_ceil(self.position.parts.max(1)).max(1);
            pieces.extend(rows.chunks(size).map(|rows| Piece { rows, divisor }));
        }
        pieces
    }

    /// Cuts batches into twice as many parts; the refusal itself when it is not allowed or a part is one row already.
    fn halve(&mut self, error: &Error, batches: &[Vec<Encoded>], observer: &mut dyn Observer) -> Result<(), Error> {
        let rows = batches.iter().map(Vec::len).max().unwrap_or(0).div_ceil(self.position.parts.max(1));
        let longest = batches.iter().flatten().map(Encoded::length).max().unwrap_or(0);
        let detail = memory::size(error);
        if !self.request.hyper.auto_find_batch_size || rows <= 1 {
            return Err(Error::OutOfMemory { rows, length: longest, detail });
        }
        self.position.parts = self.position.parts.max(1) * 2;
        observer.log(&format!(
            "memory ran out at {rows} rows of up to {longest} sub-tokens ({detail}); going on with {} rows, {} parts a batch",
            rows.div_ceil(2),
            self.position.parts
        ));
        Ok(())
    }

    fn diverged(&self, step: usize, what: &'static str, members: &[usize]) -> Error {
        let rows = &self.train.rows;
        // A row that cannot be read again has no line to tell; the divergence is what counts.
        let line = |row: &usize| rows.example(rows.document(*row)).ok().map(|example| example.line().to_string());
        let lines: Vec<String> = members.iter().filter_map(line).collect();
        let rows = format!("`{}` lines {}", self.request.sources.train.display(), lines.join(", "));
        Error::Diverged { step, what, rows, kept: None }
    }
}
