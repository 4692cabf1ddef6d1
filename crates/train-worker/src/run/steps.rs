//! The steps of an epoch: batches drawn, cut and accumulated, gradients taken, weights changed.
use std::time::Instant;

use quintet_nlp::{align::Encoded, batch, random::derive};
use tch::{Device, Tensor};

use super::{
    Run,
    replicas::{self, Common, Worker},
    share,
};
use crate::{
    Directive, Error, Hyper, Observer, backward::Pass, evaluate::lines, hyper::Accumulation, memory,
    optimizer::Gradients, state::Saver,
};

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

/// Rows computed at a time.
pub(super) struct Piece<'a> {
    pub(super) rows: &'a [Encoded],
    /// What the sum of its losses is divided by.
    pub(super) divisor: f64,
    /// Of its dropout: a piece has the same, whichever device computes it.
    pub(super) seed: u64,
}

impl Piece<'_> {
    /// Sub-tokens, padding included.
    fn tokens(&self) -> usize {
        self.rows.len() * self.rows.iter().map(Encoded::length).max().unwrap_or(0)
    }
}

/// What became of the gradients of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The weights are changed.
    Applied,
    /// A gradient overflowed in fp16; another scale of the loss will do better.
    Skipped,
    /// They are not finite, and nothing can be done about it.
    Diverged,
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
        let (loss, mut gradients) = loop {
            match self.gradients(&rows, step) {
                Err(error) if memory::is_exhausted(&error) => self.halve(&error, &rows, observer)?,
                other => break other?,
            }
        };
        let taken = self.take(&mut gradients, observer)?;
        if taken == Taken::Diverged {
            // The weights are those before the step. A loss that is no number is the plainer reason.
            let what = if loss.f_double_value(&[])?.is_finite() { "gradient norm" } else { "loss" };
            return Err(self.diverged(step + 1, what, &batches.concat()));
        }
        self.position.steps += 1;
        self.position.steps_of_epoch += 1;
        if taken == Taken::Applied {
            self.take_into_average()?;
        }
        Ok(loss)
    }

    /// Changes the weights by the gradients of a step.
    fn take(&mut self, gradients: &mut Gradients, observer: &mut dyn Observer) -> Result<Taken, Error> {
        // A skipped step counts neither for the schedule nor for the optimizer, as in `accelerate`.
        let done = self.position.steps - self.position.skipped_steps();
        if let Some(scale) = &mut self.position.loss_scale {
            let finite = gradients.unscale(scale.scale())?;
            scale.update(finite);
            if scale.is_exhausted() {
                return Ok(Taken::Diverged);
            }
            if !finite {
                let step = self.position.steps + 1;
                let scale = scale.scale();
                observer.log(&format!(
                    "step {step}: a gradient is too large for fp16, the step is skipped; the loss is scaled by {scale} now"
                ));
                return Ok(Taken::Skipped);
            }
        }
        let norm = self.optimizer.step(&mut self.parameters, gradients, self.schedule.rate(done), done + 1)?;
        Ok(if norm.is_none_or(f64::is_finite) { Taken::Applied } else { Taken::Diverged })
    }

    /// Loss and gradients of a step, without a change of anything.
    fn gradients(&mut self, batches: &[Vec<Encoded>], step: usize) -> Result<(Tensor, Gradients), Error> {
        let common = Common {
            pass: Pass { train: true, recompute: self.request.hyper.gradient_checkpointing },
            pad_token_id: self.config.filler(),
            scale: self.position.loss_scale.map_or(1.0, |scale| scale.scale()),
        };
        let pieces = self.pieces(batches, step);
        let sizes: Vec<usize> = pieces.iter().map(Piece::tokens).collect();
        let shares = share::share(&sizes, self.replicas.len() + 1);
        let Self { parameters, model, loss, replicas, .. } = self;
        let first = Worker { parameters, model, loss, common: &common };
        replicas::compute(&first, replicas, &pieces, &shares)
    }

    /// Cuts the batches of a step, for several devices or when memory ran out before, and says what each piece's sum is divided by.
    fn pieces<'b>(&self, batches: &'b [Vec<Encoded>], step: usize) -> Vec<Piece<'b>> {
        let terms = |rows: &[Encoded]| rows.iter().map(|row| self.loss.terms(&row.target)).sum::<f64>();
        let all: f64 = batches.iter().map(|rows| terms(rows)).sum();
        let parts = self.parts(batches.len());
        // Dropout depends on the seed, the step and the piece alone, so a resumed attempt draws the same.
        let seed = derive(self.request.hyper.seed, "step", step as u64);
        let mut pieces = Vec::new();
        for rows in batches {
            let divisor = match self.request.hyper.gradient_accumulation {
                Accumulation::Tokens => all,
                Accumulation::Mean => terms(rows) * batches.len() as f64,
            };
            // Where no term counts the sum is 0, and so is its mean.
            let divisor = if divisor > 0.0 { divisor } else { 1.0 };
            let size = rows.len().div_ceil(parts).max(1);
            for rows in rows.chunks(size) {
                let seed = if pieces.is_empty() { seed } else { derive(seed, "piece", pieces.len() as u64) };
                pieces.push(Piece { rows, divisor, seed });
            }
        }
        pieces
    }

    /// Parts that each batch of a step of `batches` is cut into.
    fn parts(&self, batches: usize) -> usize {
        self.position.parts.max(1) * share::parts(batches, self.replicas.len() + 1)
    }

    /// Cuts batches into twice as many parts; the refusal itself when it is not allowed or a part is one row already.
    fn halve(&mut self, error: &Error, batches: &[Vec<Encoded>], observer: &mut dyn Observer) -> Result<(), Error> {
        let rows = batches.iter().map(Vec::len).max().unwrap_or(0).div_ceil(self.parts(batches.len()));
        let longest = batches.iter().flatten().map(Encoded::length).max().unwrap_or(0);
        let detail = memory::size(error);
        if !self.request.hyper.auto_find_batch_size || rows <= 1 {
            return Err(Error::OutOfMemory { rows, length: longest, detail });
        }
        // Half the rows, accumulated: the mathematics of the step stay.
        self.position.parts = self.position.parts.max(1) * 2;
        observer.log(&format!(
            "memory ran out at {rows} rows of up to {longest} sub-tokens ({detail}); going on with {} rows, {} parts a batch",
            rows.div_ceil(2),
            self.parts(batches.len())
        ));
        Ok(())
    }

    fn diverged(&self, step: usize, what: &'static str, members: &[usize]) -> Error {
        let lines = lines(self.train.rows.as_ref(), members.iter().copied());
        let rows = format!("`{}` lines {lines}", self.request.sources.train.display());
        let narrow = self.position.loss_scale.map(|_| "; fp16 has a small range, bf16 and fp32 have a large one");
        Error::Diverged { step, what, rows: rows + narrow.unwrap_or_default(), kept: None }
    }
}
