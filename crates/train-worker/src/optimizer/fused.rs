//! AdamW with decoupled decay (Loshchilov and Hutter 2019) as `torch.optim.AdamW` computes it, and Lion (Chen et al. 2023). On the
//! processor norm, decay, moments and weights take one pass over the flat buffers each; elsewhere they are tensor operations.
//!
//! Rows of the word table that no batch has used yet only decay. What they owe is one factor, paid when a row is first used or when the
//! weights are read ([`Fused::settle`]): three quarters of a small encoder's weights need no pass then.
use half::bf16;
use tch::{Kind, Tensor};

use super::{
    Gradients, OptimizerState, Settings, clip_factor, on_processor,
    pass::{Change, PIECE, Piece, Rule, Values, narrow, square_sum, update_all},
};
use crate::{
    Error,
    hyper::Optim,
    parameters::{Leaf, Parameters},
};

/// Optimizer and its state.
pub(crate) struct Fused {
    settings: Settings,
    /// First moments, and second ones where the rule has them; flat, of the weights from `first` on.
    moments: Vec<Tensor>,
    /// The first element that is trained: what lies before it has no moments.
    first: usize,
    /// Rows of the word table that have had a gradient.
    touched: Vec<bool>,
    /// What the weights of the other rows are still to be multiplied by.
    owed: f64,
    hidden: usize,
}

impl Fused {
    pub(super) fn new(parameters: &Parameters, settings: Settings) -> Result<Self, Error> {
        let (rows, hidden) = match parameters.leaves.first().map(|leaf| leaf.tensor.size()) {
            Some(size) if size.len() == 2 => (size[0] as usize, size[1] as usize),
            _ => return Err(Error::Internal("the first leaf is the word table")),
        };
        let count = if settings.optim == Optim::Lion { 1 } else { 2 };
        let changing = parameters.changing()?;
        let moments = (0..count).map(|_| changing.f_zeros_like()).collect::<Result<_, _>>()?;
        Ok(Self { settings, moments, first: parameters.first_trained(), touched: vec![false; rows], owed: 1.0, hidden })
    }

    pub(super) fn state(&self) -> OptimizerState {
        let names = ["first_moment", "second_moment"];
        let named = names.iter().zip(&self.moments).map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone()));
        let touched = (0..).zip(&self.touched).filter(|(_, touched)| **touched).map(|(row, _)| row);
        OptimizerState { tensors: named.collect(), touched: touched.collect(), owed: self.owed }
    }

    /// Takes up what is no tensor.
    pub(super) fn resume(&mut self, state: &OptimizerState) {
        self.owed = state.owed;
        self.touched.fill(false);
        for row in &state.touched {
            if let Some(touched) = usize::try_from(*row).ok().and_then(|row| self.touched.get_mut(row)) {
                *touched = true;
            }
        }
    }

    pub(super) fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        rate: f64,
        step: usize,
    ) -> Result<Option<f64>, Error> {
        let rule = self.rule(step);
        if on_processor(parameters) {
            self.step_on_processor(parameters, gradients, rate, rule).map(Some)
        } else {
            self.step_on_device(parameters, gradients, rate, rule).map(|()| None)
        }
    }

    fn rule(&self, step: usize) -> Rule {
        let Settings { optim, beta1, beta2, epsilon, .. } = self.settings;
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(step).unwrap_or(i32::MAX));
        match optim {
            Optim::Lion => Rule::Lion { beta1: beta1 as f32, beta2: beta2 as f32 },
            Optim::AdamW | Optim::Adafactor => Rule::AdamW {
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                epsilon: epsilon as f32,
                correction: correction(beta1) as f32,
                root: correction(beta2).sqrt() as f32,
            },
        }
    }

    /// Rate and decay of a leaf.
    fn factors(&self, leaf: usize, decays: bool, rate: f64) -> (f64, f64) {
        let rate = rate * self.settings.scales.get(leaf).copied().unwrap_or(1.0);
        (rate, if decays { 1.0 - rate * self.settings.weight_decay } else { 1.0 })
    }

    fn step_on_processor(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        rate: f64,
        rule: Rule,
    ) -> Result<f64, Error> {
        let dense: Vec<Option<Tensor>> = gradients
            .leaves
            .iter()
            .map(|gradient| gradient.as_ref().map(|tensor| tensor.f_contiguous()).transpose())
            .collect::<Result<_, _>>()?;
        let words = gradients.words.as_ref().map(|(ids, tensor)| Ok((ids, tensor.f_contiguous()?)));
        let words = words.transpose().map_err(|error: tch::TchError| error)?;
        let dense: Vec<Option<Values<'_>>> =
            dense.iter().map(|tensor| tensor.as_ref().map(values).transpose()).collect::<Result<_, _>>()?;
        let words = match &words {
            Some((ids, tensor)) => Some((ids.as_slice(), values(tensor)?)),
            None => None,
        };

        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
        let all = dense.iter().flatten().copied().chain(words.map(|(_, values)| values));
        let norm = square_sum(all.flat_map(|values| values.chunks(PIECE)).collect(), threads)?.sqrt();
        // A norm that is not finite ends the run; the weights are left as they are.
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = clip_factor(norm, self.settings.max_norm) as f32;

        let owed = self.owed;
        if words.is_some() {
            let decays = parameters.leaves.first().is_some_and(|leaf| leaf.decays);
            self.owed *= self.factors(0, decays, rate).1;
        }
        let factors: Vec<(f64, f64)> =
            (0..).zip(&parameters.leaves).map(|(index, leaf)| self.factors(index, leaf.decays, rate)).collect();
        let mut moments = self.moments.iter_mut().map(slice_mut);
        let mut buffers = Buffers {
            weights: slice_mut(&mut parameters.flat).get_mut(self.first..).unwrap_or_default(),
            copy: bf16_copy(parameters.copy.as_mut()).map(|copy| copy.get_mut(self.first..).unwrap_or_default()),
            first: moments.next().unwrap_or_default(),
            second: moments.next(),
            pieces: Vec::new(),
            position: self.first,
        };
        if let (Some((ids, rows)), Some((rate, keep))) = (words, factors.first()) {
            let parts = rows.chunks(self.hidden);
            for run in word_runs(ids, &mut self.touched, PIECE / self.hidden.max(1)) {
                buffers.skip_to(run.start * self.hidden);
                let change =
                    run.gradient.and_then(|at| parts.get(at)).map_or(Change::Fade, |row| Change::Gradient(*row));
                // A row that is used for the first time pays what it owes.
                let keep = if run.fresh { keep * owed } else { *keep };
                buffers.add(run.rows * self.hidden, change, (*rate as f32, keep as f32));
            }
        }
        for ((leaf, gradient), (rate, keep)) in parameters.leaves.iter().zip(&dense).zip(&factors) {
            let Some(gradient) = gradient else { continue };
            buffers.skip_to(leaf.offset);
            for chunk in gradient.chunks(PIECE) {
                buffers.add(chunk.len(), Change::Gradient(chunk), (*rate as f32, *keep as f32));
            }
        }
        update_all(buffers.pieces, threads, rule, clip)?;
        Ok(norm)
    }

    /// Multiplies the weights of rows that no batch has used by what they owe.
    pub(super) fn settle(&mut self, parameters: &mut Parameters) -> Result<(), Error> {
        let owed = std::mem::replace(&mut self.owed, 1.0) as f32;
        if owed == 1.0 || !on_processor(parameters) {
            return Ok(());
        }
        let weights = slice_mut(&mut parameters.flat).chunks_exact_mut(self.hidden);
        let mut copies = bf16_copy(parameters.copy.as_mut()).map(|copy| copy.chunks_exact_mut(self.hidden));
        for (row, touched) in weights.zip(&self.touched) {
            let copy = copies.as_mut().and_then(Iterator::next);
            if *touched {
                continue;
            }
            row.iter_mut().for_each(|weight| *weight *= owed);
            for (copy, weight) in copy.into_iter().flatten().zip(row) {
                *copy = narrow(*weight);
            }
        }
        Ok(())
    }

    fn step_on_device(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        rate: f64,
        rule: Rule,
    ) -> Result<(), Error> {
        // The operations change their receiver; the tensor they give back is the same one.
        tch::no_grad(|| {
            let mut flat = parameters.changing()?.f_zeros_like()?;
            let first = self.first;
            let part = |flat: &Tensor, leaf: &Leaf| flat.f_narrow(0, (leaf.offset - first) as i64, leaf.length as i64);
            for (leaf, gradient) in parameters.leaves.iter().zip(&gradients.leaves) {
                let Some(gradient) = gradient else { continue };
                part(&flat, leaf)?.f_copy_(&gradient.f_reshape([-1])?)?;
            }
            if self.settings.max_norm > 0.0 {
                // On the device: reading the norm would wait for all work before it.
                let norm = flat.f_norm()?.f_add_scalar(super::NORM_EPSILON)?;
                let clip = norm.f_reciprocal()?.f_mul_scalar(self.settings.max_norm)?;
                let _ = flat.f_mul_(&clip.f_clamp_max(1.0)?)?;
            }
            let update = self.direction(&flat, rule)?;
            for (index, (leaf, gradient)) in parameters.leaves.iter().zip(&gradients.leaves).enumerate() {
                if gradient.is_none() {
                    continue;
                }
                let (rate, keep) = self.factors(index, leaf.decays, rate);
                let mut weights = parameters.flat.f_narrow(0, leaf.offset as i64, leaf.length as i64)?;
                if keep != 1.0 {
                    let _ = weights.f_mul_scalar_(keep)?;
                }
                let _ = weights.f_sub_(&part(&update, leaf)?.f_mul_scalar(rate)?)?;
            }
            parameters.refresh()
        })
    }

    /// Takes a flat gradient into the moments; what the rates multiply.
    fn direction(&mut self, gradient: &Tensor, rule: Rule) -> Result<Tensor, Error> {
        Ok(match (rule, self.moments.as_mut_slice()) {
            (Rule::AdamW { correction, root, .. }, [first, second]) => {
                let Settings { beta1, beta2, epsilon, .. } = self.settings;
                let _ = first.f_lerp_(gradient, 1.0 - beta1)?;
                let _ = second.f_mul_scalar_(beta2)?;
                let _ = second.f_add_(&gradient.f_square()?.f_mul_scalar(1.0 - beta2)?)?;
                let root = second.f_sqrt()?.f_div_scalar(f64::from(root))?.f_add_scalar(epsilon)?;
                first.f_div(&root)?.f_div_scalar(f64::from(correction))?
            }
            (_, [first, ..]) => {
                let Settings { beta1, beta2, .. } = self.settings;
                let sign = first.f_lerp(gradient, 1.0 - beta1)?.f_sign()?;
                let _ = first.f_lerp_(gradient, 1.0 - beta2)?;
                sign
            }
            _ => return Err(Error::Internal("an optimizer without moments")),
        })
    }
}

/// Rows of the word table that fare alike.
struct WordRun {
    start: usize,
    rows: usize,
    /// Place among the rows with a gradient; none: moments fade.
    gradient: Option<usize>,
    /// Used for the first time.
    fresh: bool,
}

/// The rows of the word table that change, in runs of at most `limit`; `ids` have a gradient and are touched from now on.
fn word_runs(ids: &[i64], touched: &mut [bool], limit: usize) -> Vec<WordRun> {
    let mut runs: Vec<WordRun> = Vec::new();
    let mut wanted = ids.iter().enumerate().peekable();
    for (row, touched) in touched.iter_mut().enumerate() {
        if let Some((at, _)) = wanted.next_if(|(_, id)| **id == row as i64) {
            runs.push(WordRun { start: row, rows: 1, gradient: Some(at), fresh: !*touched });
            *touched = true;
            continue;
        }
        if !*touched {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.gradient.is_none() && run.start + run.rows == row && run.rows < limit => run.rows += 1,
            _ => runs.push(WordRun { start: row, rows: 1, gradient: None, fresh: false }),
        }
    }
    runs
}

/// Cuts the flat buffers into pieces that threads may change independently.
struct Buffers<'a> {
    weights: &'a mut [f32],
    copy: Option<&'a mut [bf16]>,
    first: &'a mut [f32],
    second: Option<&'a mut [f32]>,
    pieces: Vec<Piece<'a>>,
    position: usize,
}

impl<'a> Buffers<'a> {
    fn take<T>(buffer: &mut &'a mut [T], count: usize) -> &'a mut [T] {
        let (head, tail) = std::mem::take(buffer).split_at_mut(count);
        *buffer = tail;
        head
    }

    fn skip_to(&mut self, offset: usize) {
        let count = offset - self.position;
        Self::take(&mut self.weights, count);
        Self::take(&mut self.first, count);
        self.second.as_mut().map(|second| Self::take(second, count));
        self.copy.as_mut().map(|copy| Self::take(copy, count));
        self.position = offset;
    }

    fn add(&mut self, count: usize, change: Change<'a>, (rate, keep): (f32, f32)) {
        let weights = Self::take(&mut self.weights, count);
        let first = Self::take(&mut self.first, count);
        let second = self.second.as_mut().map(|second| Self::take(second, count)).unwrap_or_default();
        let copy = self.copy.as_mut().map(|copy| Self::take(copy, count)).unwrap_or_default();
        self.pieces.push(Piece { weights, copy, first, second, change, rate, keep });
        self.position += count;
    }
}

/// The elements of a contiguous gradient in this process's memory.
fn values(tensor: &Tensor) -> Result<Values<'_>, Error> {
    let count = tensor.numel();
    match tensor.kind() {
        _ if count == 0 => Ok(Values::Fp32(&[])),
        // SAFETY: the tensor owns (a share of) `numel` initialized elements of this type at this address, contiguous, and lives as long
        // as the slice; nothing writes to a gradient while the optimizer reads it.
        Kind::Float => Ok(Values::Fp32(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), count) })),
        // SAFETY: as above; `half::bf16` is a transparent u16.
        Kind::BFloat16 => Ok(Values::Bf16(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), count) })),
        _ => Err(Error::Internal("a gradient is neither fp32 nor bf16")),
    }
}

/// The elements of a flat buffer, for writing.
fn slice_mut(tensor: &mut Tensor) -> &mut [f32] {
    debug_assert!(tensor.kind() == Kind::Float && tensor.is_contiguous());
    // SAFETY: as in `values`; weights and moments are written by the optimizer alone, between two runs of the model, and every
    // thread gets another part.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// As [`slice_mut`], for the copy of the weights that the model computes with, where it is of bf16: the same pass writes it. A copy of
/// other numbers is brought up to date by [`super::Optimizer`].
fn bf16_copy(copy: Option<&mut Tensor>) -> Option<&mut [bf16]> {
    let tensor = copy.filter(|copy| copy.kind() == Kind::BFloat16)?;
    debug_assert!(tensor.is_contiguous());
    // SAFETY: as in `slice_mut`.
    Some(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
}
