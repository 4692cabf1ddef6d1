//! AdamW with decoupled decay (Loshchilov and Hutter 2019) and clipping by the global norm, as `torch.optim.AdamW` and
//! `clip_grad_norm_` compute them. On the processor norm, decay, moments and weights take one pass over the flat buffers each;
//! elsewhere they are tensor operations.
use tch::{Device, Kind, Tensor};

use crate::{Error, parameters::Parameters};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Added to the norm before dividing, as in `clip_grad_norm_`.
const NORM_EPSILON: f64 = 1e-6;
/// Elements that one thread takes at a time.
const PIECE: usize = 1 << 16;

/// Gradients of one step.
pub(crate) struct Gradients {
    /// One for each leaf; that of the word table is none when `words` holds its rows.
    pub(crate) leaves: Vec<Option<Tensor>>,
    /// Rows of the word table, ascending, and their gradients [rows, hidden].
    pub(crate) words: Option<(Vec<i64>, Tensor)>,
}

/// Optimizer and its state.
pub(crate) struct AdamW {
    weight_decay: f64,
    max_norm: f64,
    /// First and second moments, flat.
    pub(crate) moments: [Tensor; 2],
    /// Rows of the word table whose moments are not all zero.
    touched: Vec<bool>,
    hidden: usize,
}

/// The factors of one step.
#[derive(Clone, Copy)]
struct Factors {
    /// Gradients are multiplied by this: clipping.
    clip: f32,
    /// Weights that decay are multiplied by this.
    keep: f32,
    /// Learning rate over the first bias correction.
    rate: f32,
    /// Square root of the second bias correction.
    root: f32,
}

#[derive(Clone, Copy)]
enum Change<'a> {
    /// A gradient came.
    Gradient(&'a [f32]),
    /// The gradient is zero, moments fade.
    Fade,
    /// Gradient and moments are zero, only the weights decay.
    Decay,
}

struct Piece<'a> {
    weights: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    change: Change<'a>,
    decays: bool,
}

impl AdamW {
    pub(crate) fn new(parameters: &Parameters, weight_decay: f64, max_norm: f64) -> Result<Self, Error> {
        let (rows, hidden) = match parameters.leaves.first().map(|leaf| leaf.tensor.size()) {
            Some(size) if size.len() == 2 => (size[0] as usize, size[1] as usize),
            _ => return Err(Error::Internal("the first leaf is the word table")),
        };
        let moments = [parameters.flat.f_zeros_like()?, parameters.flat.f_zeros_like()?];
        Ok(Self { weight_decay, max_norm, moments, touched: vec![false; rows], hidden })
    }

    /// Takes up saved moments.
    pub(crate) fn resume(&mut self, first: &Tensor, second: &Tensor) -> Result<(), Error> {
        tch::no_grad(|| -> Result<(), Error> {
            self.moments[0].f_copy_(first)?;
            self.moments[1].f_copy_(second)?;
            Ok(())
        })?;
        let rows = self.touched.len() as i64;
        let table = self.moments[1].f_narrow(0, 0, rows * self.hidden as i64)?.f_view([rows, self.hidden as i64])?;
        let dims: &[i64] = &[1];
        let used: Vec<bool> = Vec::try_from(table.f_ne(0)?.f_any_dims(dims, false)?.f_to_device(Device::Cpu)?)?;
        self.touched = used;
        Ok(())
    }

    /// One step, counted from 1; gives the gradient's norm before clipping (none where reading it would stall the device).
    pub(crate) fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        learning_rate: f64,
        step: usize,
    ) -> Result<Option<f64>, Error> {
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(step).unwrap_or(i32::MAX));
        let factors = Factors {
            clip: 1.0,
            keep: (1.0 - learning_rate * self.weight_decay) as f32,
            rate: (learning_rate / correction(BETA1)) as f32,
            root: correction(BETA2).sqrt() as f32,
        };
        if parameters.flat.device() == Device::Cpu {
            self.step_on_processor(parameters, gradients, factors).map(Some)
        } else {
            self.step_on_device(parameters, gradients, factors).map(|()| None)
        }
    }

    fn step_on_processor(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        factors: Factors,
    ) -> Result<f64, Error> {
        let dense: Vec<Option<Tensor>> = gradients
            .leaves
            .iter()
            .map(|gradient| gradient.as_ref().map(|tensor| tensor.f_contiguous()).transpose())
            .collect::<Result<_, _>>()?;
        let words = gradients.words.as_ref().map(|(ids, tensor)| Ok((ids, tensor.f_contiguous()?)));
        let words = words.transpose().map_err(|error: tch::TchError| error)?;
        let dense_slices: Vec<Option<&[f32]>> = dense.iter().map(|tensor| tensor.as_ref().map(slice)).collect();
        let word_slice = words.as_ref().map(|(ids, tensor)| (ids.as_slice(), slice(tensor)));

        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
        let all = dense_slices.iter().flatten().copied().chain(word_slice.map(|(_, values)| values));
        let pieces: Vec<&[f32]> = all.flat_map(|values| values.chunks(PIECE)).collect();
        let norm = square_sum(&pieces, threads)?.sqrt();
        // A norm that is not finite ends the run; the weights are left as they are.
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = if self.max_norm > 0.0 { (self.max_norm / (norm + NORM_EPSILON)).min(1.0) } else { 1.0 };
        let factors = Factors { clip: clip as f32, ..factors };

        let table = parameters.leaves.first().map_or(0, |leaf| leaf.length);
        let mut buffers = Buffers {
            weights: slice_mut(&mut parameters.flat),
            moments: self.moments.each_mut().map(slice_mut),
            pieces: Vec::new(),
            position: 0,
        };
        if let Some((ids, values)) = word_slice {
            let changes = word_changes(ids, values, &mut self.touched, self.hidden);
            for (rows, change) in changes {
                buffers.add(rows * self.hidden, change, true);
            }
            debug_assert_eq!(buffers.position, table);
        }
        for (leaf, gradient) in parameters.leaves.iter().zip(&dense_slices) {
            let Some(gradient) = gradient else { continue };
            buffers.skip_to(leaf.offset);
            for chunk in gradient.chunks(PIECE) {
                buffers.add(chunk.len(), Change::Gradient(chunk), leaf.decays);
            }
        }
        update_all(buffers.pieces, threads, factors)?;
        Ok(norm)
    }

    fn step_on_device(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        factors: Factors,
    ) -> Result<(), Error> {
        let no_words = Error::Internal("rows of the word table are for the processor");
        // The operations change their receiver; the tensor they give back is the same one.
        tch::no_grad(|| {
            let mut flat = parameters.flat.f_zeros_like()?;
            for (leaf, gradient) in parameters.leaves.iter().zip(&gradients.leaves) {
                let Some(gradient) = gradient else { return Err(no_words) };
                flat.f_narrow(0, leaf.offset as i64, leaf.length as i64)?.f_copy_(&gradient.f_reshape([-1])?)?;
            }
            if self.max_norm > 0.0 {
                // On the device: reading the norm would wait for all work before it.
                let clip = flat.f_norm()?.f_add_scalar(NORM_EPSILON)?.f_reciprocal()?.f_mul_scalar(self.max_norm)?;
                let _ = flat.f_mul_(&clip.f_clamp_max(1.0)?)?;
            }
            for leaf in parameters.leaves.iter().filter(|leaf| leaf.decays) {
                let mut part = parameters.flat.f_narrow(0, leaf.offset as i64, leaf.length as i64)?;
                let _ = part.f_mul_scalar_(f64::from(factors.keep))?;
            }
            let [first, second] = &mut self.moments;
            let _ = first.f_lerp_(&flat, 1.0 - BETA1)?;
            let _ = second.f_mul_scalar_(BETA2)?;
            let _ = second.f_add_(&flat.f_square()?.f_mul_scalar(1.0 - BETA2)?)?;
            let root = second.f_sqrt()?.f_div_scalar(f64::from(factors.root))?.f_add_scalar(EPSILON)?;
            let _ = parameters.flat.f_sub_(&first.f_div(&root)?.f_mul_scalar(f64::from(factors.rate))?)?;
            Ok(())
        })
    }
}

/// What happens to the rows of the word table, in runs of rows that fare alike.
fn word_changes<'a>(ids: &[i64], values: &'a [f32], touched: &mut [bool], hidden: usize) -> Vec<(usize, Change<'a>)> {
    let mut changes: Vec<(usize, Change<'a>)> = Vec::new();
    let mut wanted = ids.iter().zip(values.chunks_exact(hidden)).peekable();
    for (row, touched) in touched.iter_mut().enumerate() {
        if let Some((_, gradient)) = wanted.next_if(|(id, _)| **id == row as i64) {
            *touched = true;
            changes.push((1, Change::Gradient(gradient)));
            continue;
        }
        let limit = PIECE / hidden.max(1);
        match (changes.last_mut(), *touched) {
            (Some((rows, Change::Fade)), true) if *rows < limit => *rows += 1,
            (Some((rows, Change::Decay)), false) if *rows < limit => *rows += 1,
            (_, true) => changes.push((1, Change::Fade)),
            (_, false) => changes.push((1, Change::Decay)),
        }
    }
    changes
}

/// Cuts the flat buffers into pieces that threads may change independently.
struct Buffers<'a> {
    weights: &'a mut [f32],
    moments: [&'a mut [f32]; 2],
    pieces: Vec<Piece<'a>>,
    position: usize,
}

impl<'a> Buffers<'a> {
    fn take(buffer: &mut &'a mut [f32], count: usize) -> &'a mut [f32] {
        let (head, tail) = std::mem::take(buffer).split_at_mut(count);
        *buffer = tail;
        head
    }

    fn skip_to(&mut self, offset: usize) {
        let count = offset - self.position;
        Self::take(&mut self.weights, count);
        for moment in &mut self.moments {
            Self::take(moment, count);
        }
        self.position = offset;
    }

    fn add(&mut self, count: usize, change: Change<'a>, decays: bool) {
        let weights = Self::take(&mut self.weights, count);
        let [first, second] = self.moments.each_mut().map(|moment| Self::take(moment, count));
        self.pieces.push(Piece { weights, first, second, change, decays });
        self.position += count;
    }
}

/// Gives every thread about as many elements.
fn shares<T>(items: Vec<T>, threads: usize, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let total: usize = items.iter().map(&size).sum();
    let mut shares: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    let mut done = 0;
    for item in items {
        let share = (done * threads / total.max(1)).min(threads - 1);
        done += size(&item);
        shares[share].push(item);
    }
    shares
}

fn update_all(pieces: Vec<Piece<'_>>, threads: usize, factors: Factors) -> Result<(), Error> {
    let mut shares = shares(pieces, threads, |piece| piece.weights.len());
    let own = shares.pop().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().for_each(|piece| update(piece, factors))))
            .collect();
        own.into_iter().for_each(|piece| update(piece, factors));
        let ended = others.into_iter().map(|thread| thread.join()).fold(Ok(()), Result::and);
        ended.map_err(|_| Error::Internal("a thread of the optimizer died"))
    })
}

fn square_sum(pieces: &[&[f32]], threads: usize) -> Result<f64, Error> {
    let mut shares = shares(pieces.to_vec(), threads, |piece| piece.len());
    let own = shares.pop().unwrap_or_default();
    let sum = |share: Vec<&[f32]>| share.into_iter().map(squares).sum::<f64>();
    std::thread::scope(|scope| {
        let others: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || sum(share))).collect();
        let mut total = sum(own);
        for thread in others {
            total += thread.join().map_err(|_| Error::Internal("a thread of the optimizer died"))?;
        }
        Ok(total)
    })
}

fn squares(values: &[f32]) -> f64 {
    // Eight sums side by side: the compiler makes vector instructions of them.
    let (chunks, rest) = values.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>()
}

fn update(piece: Piece<'_>, factors: Factors) {
    let Factors { clip, rate, root, .. } = factors;
    let keep = if piece.decays { factors.keep } else { 1.0 };
    let (beta1, beta2, epsilon) = (BETA1 as f32, BETA2 as f32, EPSILON as f32);
    let (fresh1, fresh2) = ((1.0 - BETA1) as f32, (1.0 - BETA2) as f32);
    let moments = piece.weights.iter_mut().zip(piece.first.iter_mut()).zip(piece.second.iter_mut());
    match piece.change {
        Change::Gradient(gradient) => {
            for (((weight, first), second), gradient) in moments.zip(gradient) {
                let gradient = gradient * clip;
                *first += fresh1 * (gradient - *first);
                *second = beta2 * *second + fresh2 * gradient * gradient;
                *weight = *weight * keep - rate * *first / (second.sqrt() / root + epsilon);
            }
        }
        Change::Fade => {
            for ((weight, first), second) in moments {
                *first *= beta1;
                *second *= beta2;
                *weight = *weight * keep - rate * *first / (second.sqrt() / root + epsilon);
            }
        }
        Change::Decay => piece.weights.iter_mut().for_each(|weight| *weight *= keep),
    }
}

/// The elements of a contiguous f32 tensor in this process's memory.
fn slice(tensor: &Tensor) -> &[f32] {
    debug_assert!(tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous());
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: the tensor owns (a share of) `numel` initialized f32 elements at this address and lives as long as the slice;
    // nothing writes to a gradient while the optimizer reads it.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// As [`slice`], for writing.
fn slice_mut(tensor: &mut Tensor) -> &mut [f32] {
    debug_assert!(tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous());
    // SAFETY: as in `slice`; weights and moments are written by the optimizer alone, between two runs of the model, and every
    // thread gets another part.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

#[cfg(test)]
mod tests {
    use tch::nn::{self, OptimizerConfig as _};

    use super::*;
    use crate::parameters::Leaf;

    const ROWS: i64 = 40;
    const HIDDEN: i64 = 6;

    /// A word table, a weight and a bias.
    fn parameters(initial: &[f32]) -> Parameters {
        let flat = Tensor::from_slice(initial);
        let leaf = |offset: i64, shape: &[i64], decays| {
            let length: i64 = shape.iter().product();
            let tensor = flat.narrow(0, offset, length).view(shape).detach().set_requires_grad(true);
            let (offset, length) = (offset as usize, length as usize);
            Leaf { tensor, offset, length, names: Vec::new(), decays, depth: 0, head: false, fresh: false }
        };
        let leaves = vec![leaf(0, &[ROWS, HIDDEN], true), leaf(240, &[10, 10], true), leaf(352, &[10], false)];
        Parameters { flat, leaves, tensors: Vec::new(), slots: Vec::new() }
    }

    /// Gradients of a step: a few rows of the table, a dense weight, a bias.
    fn gradients(step: i64) -> (Gradients, Gradients) {
        tch::manual_seed(100 + step);
        let ids: Vec<i64> = (0..ROWS).filter(|row| row % 7 == step % 7 || *row == 3).collect();
        let options = (Kind::Float, Device::Cpu);
        let rows = Tensor::randn([ids.len() as i64, HIDDEN], options);
        let index = Tensor::from_slice(&ids);
        let table = Tensor::zeros([ROWS, HIDDEN], options).index_copy(0, &index, &rows);
        let others = [Tensor::randn([10, 10], options), Tensor::randn([10], options)];
        let list = |first: Option<Tensor>| {
            std::iter::once(first).chain(others.iter().map(|tensor| Some(tensor.shallow_clone()))).collect()
        };
        let sparse = Gradients { leaves: list(None), words: Some((ids, rows)) };
        (sparse, Gradients { leaves: list(Some(table)), words: None })
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn equals_libtorchs_adamw_with_clipping() {
        tch::manual_seed(1);
        let initial: Vec<f32> = Vec::try_from(Tensor::randn([362], (Kind::Float, Device::Cpu))).unwrap();
        let (rate, decay, clip) = (0.05, 0.1, 1.5);

        let store = nn::VarStore::new(Device::Cpu);
        let source = parameters(&initial);
        let variables: Vec<Tensor> = source
            .leaves
            .iter()
            .enumerate()
            .map(|(n, leaf)| {
                let path = store.root();
                let path = if leaf.decays { path } else { path.set_group(1) };
                path.var_copy(&format!("v{n}"), &leaf.tensor)
            })
            .collect();
        let mut reference = nn::AdamW::default().build(&store, rate).unwrap();
        reference.set_weight_decay_group(0, decay);
        reference.set_weight_decay_group(1, 0.0);

        let mut processor = parameters(&initial);
        let mut ours = AdamW::new(&processor, decay, clip).unwrap();
        let mut device = parameters(&initial);
        let mut by_tensors = AdamW::new(&device, decay, clip).unwrap();

        for step in 1..=20 {
            let (sparse, dense) = gradients(step as i64);
            reference.zero_grad();
            let terms = variables.iter().zip(&dense.leaves).map(|(v, g)| (v * g.as_ref().unwrap()).sum(Kind::Float));
            terms.sum::<Tensor>().backward();
            reference.clip_grad_norm(clip);
            reference.step();

            let norm = ours.step(&mut processor, &sparse, rate, step).unwrap().unwrap();
            let squares: f64 =
                dense.leaves.iter().flatten().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum();
            assert!((norm - squares.sqrt()).abs() < 1e-4 * norm);
            let factors = |beta: f64| 1.0 - beta.powi(step as i32);
            let factors = Factors {
                clip: 1.0,
                keep: (1.0 - rate * decay) as f32,
                rate: (rate / factors(BETA1)) as f32,
                root: factors(BETA2).sqrt() as f32,
            };
            by_tensors.step_on_device(&mut device, &dense, factors).unwrap();
        }
        for ((variable, ours), by_tensors) in variables.iter().zip(&processor.leaves).zip(&device.leaves) {
            assert!(largest_difference(variable, &ours.tensor) < 2e-5);
            assert!(largest_difference(variable, &by_tensors.tensor) < 2e-5);
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing() {
        let initial = vec![0.5; 362];
        let mut parameters = parameters(&initial);
        let mut optimizer = AdamW::new(&parameters, 0.1, 1.0).unwrap();
        let (mut sparse, _) = gradients(1);
        sparse.leaves[2] = Some(Tensor::full([10], f64::NAN, (Kind::Float, Device::Cpu)));
        let norm = optimizer.step(&mut parameters, &sparse, 0.1, 1).unwrap().unwrap();
        assert!(norm.is_nan());
        assert_eq!(Vec::<f32>::try_from(&parameters.flat).unwrap(), initial);
    }

    #[test]
    fn threads_and_saved_moments_do_not_change_the_result() {
        let initial = vec![0.5; 362];
        let run = |threads: i32, break_at: Option<usize>| {
            tch::set_num_threads(threads);
            let mut parameters = parameters(&initial);
            let mut optimizer = AdamW::new(&parameters, 0.1, 0.0).unwrap();
            for step in 1..=10 {
                if break_at == Some(step) {
                    let mut fresh = AdamW::new(&parameters, 0.1, 0.0).unwrap();
                    fresh.resume(&optimizer.moments[0], &optimizer.moments[1]).unwrap();
                    optimizer = fresh;
                }
                optimizer.step(&mut parameters, &gradients(step as i64).0, 0.01, step).unwrap();
            }
            Vec::<f32>::try_from(&parameters.flat).unwrap()
        };
        let plain = run(1, None);
        assert_eq!(plain, run(3, None));
        assert_eq!(plain, run(1, Some(5)));
    }
}
