//! All weights in one flat buffer, so that the optimizer, a copy and the resume file each are one pass.
use quintet_nlp::{
    checkpoint::{Checkpoint, NamedTensor},
    encoder::{EncoderConfig, Init, Layout, LeafSpec, TensorSpec},
    random::Stream,
};
use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    hyper::Lora,
    lora::{Adapters, Plan as LoraPlan},
};

/// Weights begin at multiples of this many elements: a cache line.
pub(crate) const ALIGNMENT: usize = 16;

/// A weight of the checkpoint: a part of a leaf, or a tensor that is only kept.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Name in a written checkpoint.
    pub(crate) file_name: String,
    pub(crate) shape: Vec<usize>,
    /// First element in the flat buffer.
    pub(crate) offset: usize,
}

/// A tensor of the computation. Query, key and value lie side by side and make one leaf, so that one product serves all three.
pub(crate) struct Leaf {
    pub(crate) tensor: Tensor,
    pub(crate) offset: usize,
    pub(crate) length: usize,
    /// Names in a written checkpoint of the weights that it joins.
    pub(crate) names: Vec<String>,
    /// Whether weight decay applies: not to biases and LayerNorm.
    pub(crate) decays: bool,
    /// 0 for embeddings, i + 1 for layer i, one more for what follows the layers.
    pub(crate) depth: usize,
    /// Whether it lies outside the base model.
    pub(crate) head: bool,
    /// Whether it was drawn, because the checkpoint does not have it.
    pub(crate) fresh: bool,
}

/// The weights.
pub(crate) struct Parameters {
    /// All elements in fp32; tensors are views of it, unless there is a copy.
    pub(crate) flat: Tensor,
    /// All elements in the numbers of the computation, when those are others; then tensors are views of it, but for those that are
    /// computed with in 32 bits always.
    pub(crate) copy: Option<Tensor>,
    /// What is trained; the word table comes first, at offset 0.
    pub(crate) leaves: Vec<Leaf>,
    /// Every tensor of the computation, in the order of the layout.
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) slots: Vec<Slot>,
    /// Low-rank changes, when those are trained in place of the weights; their factors are leaves in no slot.
    pub(crate) adapters: Option<Adapters>,
}

impl Parameters {
    /// Loads a checkpoint; `config` carries task and labels. What the checkpoint lacks of a head (or a pooler) is drawn as
    /// `transformers` draws it, and so is the last layer when the checkpoint's labels are others. The model computes in `kind`; the optimizer
    /// changes weights in fp32 and keeps the copy up to date.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        config: &EncoderConfig,
        seed: u64,
        device: Device,
        kind: Kind,
    ) -> Result<Self, Error> {
        Self::load_adapted(checkpoint, config, seed, device, kind, None)
    }

    /// As [`Self::load`]; with `lora` the factors of low-rank changes follow the weights, and of those that the checkpoint gives only
    /// the head's are trained.
    pub(crate) fn load_adapted(
        checkpoint: &Checkpoint,
        config: &EncoderConfig,
        seed: u64,
        device: Device,
        kind: Kind,
        lora: Option<Lora>,
    ) -> Result<Self, Error> {
        let layout = config.layout();
        let plan = Plan::new(&layout);
        let same_labels = checkpoint.config.labels == config.labels;
        let low_rank = lora.map(|lora| LoraPlan::new(&layout, &plan.leaves, plan.total, lora));
        let mut elements = vec![0f32; low_rank.as_ref().map_or(plan.total, |low_rank| low_rank.total)];
        if let Some(low_rank) = &low_rank {
            low_rank.draw(seed, &mut elements);
        }
        let mut stream = Stream::new(seed, "head", 0);
        let mut slots = Vec::new();
        let mut fresh = Vec::new();
        for (leaf, offset) in layout.leaves.iter().zip(&plan.leaves) {
            let known = !leaf.optional || (!leaf.labels || same_labels) && holds(checkpoint, leaf);
            let length: usize = leaf.shape.iter().product();
            if known {
                take(checkpoint, &leaf.parts, *offset, &mut elements, &mut slots)?;
            } else {
                draw(leaf.init, &mut stream, &mut elements[*offset..offset + length]);
                slots.extend(places(&leaf.parts, *offset));
            }
            fresh.push(!known);
        }
        take(checkpoint, &layout.unused, plan.unused, &mut elements, &mut slots)?;

        let flat = Tensor::f_from_slice(&elements)?.f_to_device(device)?;
        let copy = if kind == Kind::Float { None } else { Some(flat.f_to_kind(kind)?) };
        let (mut leaves, mut tensors) = (Vec::new(), Vec::new());
        for ((spec, offset), fresh) in layout.leaves.into_iter().zip(plan.leaves).zip(fresh) {
            let length: usize = spec.shape.iter().product();
            let shape: Vec<i64> = spec.shape.iter().map(|size| *size as i64).collect();
            let numbers = copy.as_ref().filter(|_| !spec.full_precision).unwrap_or(&flat);
            let part = numbers.f_narrow(0, offset as i64, length as i64)?;
            let tensor = part
                .f_view(shape.as_slice())?
                .f_detach()?
                .f_set_requires_grad(!spec.frozen && (lora.is_none() || spec.head || fresh))?;
            tensors.push(tensor.shallow_clone());
            if !spec.frozen {
                let names = spec.parts.into_iter().map(|part| part.file_name).collect();
                let LeafSpec { decays, depth, head, .. } = spec;
                leaves.push(Leaf { tensor, offset, length, names, decays, depth, head, fresh });
            }
        }
        let adapters = low_rank.map(|plan| plan.bind(copy.as_ref().unwrap_or(&flat), &mut leaves)).transpose()?;
        Ok(Self { flat, copy, leaves, tensors, slots, adapters })
    }

    /// Names of the weights that were drawn.
    pub(crate) fn fresh(&self) -> Vec<&str> {
        self.leaves.iter().filter(|leaf| leaf.fresh).flat_map(|leaf| &leaf.names).map(String::as_str).collect()
    }

    /// The weights that leaves hold, each with the place of its leaf. A leaf in no slot is one weight.
    pub(crate) fn weights(&self) -> Vec<(usize, Slot)> {
        let mut weights = Vec::with_capacity(self.slots.len());
        for (index, leaf) in self.leaves.iter().enumerate() {
            let place = leaf.offset..leaf.offset + leaf.length;
            let before = weights.len();
            weights.extend(
                self.slots.iter().filter(|slot| place.contains(&slot.offset)).map(|slot| (index, slot.clone())),
            );
            if weights.len() == before {
                let shape = leaf.tensor.size().iter().filter_map(|size| usize::try_from(*size).ok()).collect();
                weights.push((index, Slot { file_name: leaf.names.join("+"), shape, offset: leaf.offset }));
            }
        }
        weights
    }

    /// The weights of a written checkpoint, out of the elements of [`Self::flat`].
    pub(crate) fn named<'a>(&self, elements: &'a [f32]) -> Vec<NamedTensor<'a>> {
        let named = |slot: &Slot| {
            let end = slot.offset + slot.shape.iter().product::<usize>();
            (slot.file_name.clone(), slot.shape.clone(), &elements[slot.offset..end])
        };
        self.slots.iter().map(named).collect()
    }

    /// The first element that training changes: what is frozen lies before it, but for what never has a gradient.
    pub(crate) fn first_trained(&self) -> usize {
        let trained = self.leaves.iter().filter(|leaf| leaf.tensor.requires_grad());
        trained.map(|leaf| leaf.offset).min().unwrap_or(self.flat.numel())
    }

    /// The elements from there on, as a view.
    pub(crate) fn changing(&self) -> Result<Tensor, Error> {
        let first = self.first_trained();
        Ok(self.flat.f_narrow(0, first as i64, (self.flat.numel() - first) as i64)?)
    }

    /// A copy of the elements that training changes.
    pub(crate) fn copy(&self) -> Result<Tensor, Error> {
        let changing = self.changing()?;
        let mut copy = changing.f_empty_like()?;
        tch::no_grad(|| copy.f_copy_(&changing))?;
        Ok(copy)
    }

    /// Replaces the elements that training changes.
    pub(crate) fn set(&mut self, elements: &Tensor) -> Result<(), Error> {
        let mut changing = self.changing()?;
        tch::no_grad(|| changing.f_copy_(elements))?;
        self.refresh()
    }

    /// Brings the copy up to date with the weights.
    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        if let Some(copy) = &mut self.copy {
            tch::no_grad(|| copy.f_copy_(&self.flat))?;
        }
        Ok(())
    }

    /// The numbers of the computation, as `hyperparameters.precision` calls them.
    pub(crate) fn precision(&self) -> &'static str {
        match self.copy.as_ref().map(Tensor::kind) {
            None => "fp32",
            Some(Kind::Half) => "fp16",
            Some(_) => "bf16",
        }
    }
}

/// The elements of a flat tensor in this process's memory.
pub(crate) fn elements(flat: &Tensor) -> Result<Vec<f32>, Error> {
    let mut values = vec![0f32; flat.numel()];
    let count = values.len();
    flat.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_copy_data(&mut values, count)?;
    Ok(values)
}

/// Where leaves and kept tensors lie in the flat buffer.
struct Plan {
    leaves: Vec<usize>,
    unused: usize,
    total: usize,
}

impl Plan {
    fn new(layout: &Layout) -> Self {
        let mut offset = 0usize;
        let mut leaves = Vec::with_capacity(layout.leaves.len());
        for leaf in &layout.leaves {
            offset = offset.next_multiple_of(ALIGNMENT);
            leaves.push(offset);
            offset += leaf.shape.iter().product::<usize>();
        }
        let unused = offset.next_multiple_of(ALIGNMENT);
        let total = layout.unused.iter().fold(unused, |end, spec| end + spec.shape.iter().product::<usize>());
        Self { leaves, unused, total }
    }
}

fn holds(checkpoint: &Checkpoint, leaf: &LeafSpec) -> bool {
    leaf.parts.iter().all(|part| checkpoint.weights.check(&part.name, &part.shape).is_ok())
}

/// Slots of tensors that lie side by side.
fn places(parts: &[TensorSpec], mut offset: usize) -> Vec<Slot> {
    let place = |part: &TensorSpec| {
        let slot = Slot { file_name: part.file_name.clone(), shape: part.shape.clone(), offset };
        offset += part.shape.iter().product::<usize>();
        slot
    };
    parts.iter().map(place).collect()
}

fn take(
    checkpoint: &Checkpoint,
    parts: &[TensorSpec],
    offset: usize,
    elements: &mut [f32],
    slots: &mut Vec<Slot>,
) -> Result<(), Error> {
    for (part, slot) in parts.iter().zip(places(parts, offset)) {
        let values = checkpoint.weights.f32(&part.name, &part.shape)?;
        elements[slot.offset..slot.offset + values.len()].copy_from_slice(&values);
        slots.push(slot);
    }
    Ok(())
}

fn draw(init: Init, stream: &mut Stream, target: &mut [f32]) {
    match init {
        Init::Zeros => target.fill(0.0),
        Init::Ones => target.fill(1.0),
        Init::Uniform { bound } => target.fill_with(|| (bound * (2.0 * stream.uniform() - 1.0)) as f32),
        Init::Normal { deviation, cutoff } => target.fill_with(|| {
            let mut value = stream.normal();
            while cutoff.is_some_and(|cutoff| value.abs() > cutoff) {
                value = stream.normal();
            }
            (value * deviation) as f32
        }),
    }
}

#[cfg(test)]
mod tests {
    use quintet_nlp::{checkpoint::write_checkpoint, task::Task, testing::TinyCheckpoint};

    use super::*;

    fn base(dir: &std::path::Path, model_type: &'static str) -> Checkpoint {
        TinyCheckpoint { model_type, ..TinyCheckpoint::default() }.write(&dir.join("base")).unwrap();
        Checkpoint::open(&dir.join("base")).unwrap()
    }

    fn deviation(parameters: &Parameters, name: &str) -> f64 {
        let values = elements(&parameters.flat).unwrap();
        let named = parameters.named(&values).into_iter().find(|(found, ..)| found == name);
        let (_, _, values) = named.unwrap_or_else(|| panic!("no {name}"));
        (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn a_missing_head_and_pooler_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = base(dir.path(), "bert");
        let mut config = checkpoint.config.clone();
        config.task = Some(Task::SequenceClassification);
        config.labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let parameters = Parameters::load(&checkpoint, &config, 1, Device::Cpu, Kind::Float).unwrap();
        let expected = ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"];
        assert_eq!(parameters.fresh(), expected);
        assert!((deviation(&parameters, "bert.pooler.dense.weight") / 0.02 - 1.0).abs() < 0.1);
        assert_eq!(deviation(&parameters, "classifier.bias"), 0.0);
        let head: Vec<bool> = parameters.leaves.iter().rev().take(5).map(|leaf| leaf.head).collect();
        assert_eq!(head, [true, true, false, false, false]);
        let depths: Vec<usize> = parameters.leaves.iter().map(|leaf| leaf.depth).collect();
        assert!(depths.is_sorted() && depths.first() == Some(&0) && depths.last() == Some(&3));

        // With other labels the last layer is drawn anew, and the pooler is kept.
        let values = elements(&parameters.flat).unwrap();
        write_checkpoint(&dir.path().join("next"), &config, &parameters.named(&values), dir.path()).unwrap();
        let next = Checkpoint::open(&dir.path().join("next")).unwrap();
        assert!(Parameters::load(&next, &config, 1, Device::Cpu, Kind::Float).unwrap().fresh().is_empty());
        config.labels.reverse();
        let parameters = Parameters::load(&next, &config, 1, Device::Cpu, Kind::Float).unwrap();
        assert_eq!(parameters.fresh(), ["classifier.weight", "classifier.bias"]);
    }

    #[test]
    fn modernbert_draws_its_head_as_transformers_does() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = base(dir.path(), "modernbert");
        let mut config = checkpoint.config.clone();
        config.task = Some(Task::TokenClassification);
        config.labels = (0..40).map(|label| label.to_string()).collect();
        let parameters = Parameters::load(&checkpoint, &config, 1, Device::Cpu, Kind::Float).unwrap();
        assert_eq!(
            parameters.fresh().join(" "),
            "head.dense.weight head.norm.weight classifier.weight classifier.bias"
        );
        // Cutting at two deviations leaves 0.88 of the spread; the deviations are 0.02 / sqrt(2 * layers) and 1 / sqrt(hidden).
        assert!((deviation(&parameters, "head.dense.weight") / (0.88 * 0.01) - 1.0).abs() < 0.1);
        assert!((deviation(&parameters, "classifier.weight") / (0.88 / 32f64.sqrt()) - 1.0).abs() < 0.1);
        assert_eq!(deviation(&parameters, "head.norm.weight"), 1.0);
    }
}
