//! All weights in one flat buffer, so that the optimizer, a copy and the resume file each are one pass.
use quintet_nlp::{
    checkpoint::{Checkpoint, EncoderConfig, encoder_tensors, head_tensors},
    random::Stream,
};
use tch::{Device, Kind, Tensor};

use crate::Error;

/// Weights begin at multiples of this many elements: a cache line.
const ALIGNMENT: usize = 16;

/// A weight of the checkpoint: a part of a leaf.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Name without the family's prefix.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// First element in the flat buffer.
    pub(crate) offset: usize,
}

/// A tensor of the computation. Query, key and value lie side by side and make one leaf, so that one product serves all three.
pub(crate) struct Leaf {
    pub(crate) tensor: Tensor,
    pub(crate) offset: usize,
    pub(crate) length: usize,
    /// Whether weight decay applies: not to biases and LayerNorm.
    pub(crate) decays: bool,
    /// 0 for the embeddings, the number of the layer from 1, more for what follows.
    pub(crate) depth: usize,
    /// Whether it belongs to the head.
    pub(crate) head: bool,
}

/// The weights.
pub(crate) struct Parameters {
    /// All elements in fp32; the leaves are views of it, unless there is a copy.
    pub(crate) flat: Tensor,
    /// All elements in the numbers of the computation, when those are others; then the leaves are views of it.
    pub(crate) copy: Option<Tensor>,
    /// The word table comes first, at offset 0.
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) slots: Vec<Slot>,
}

/// Leaves of a layer in order, each with the weights that it joins.
pub(crate) const LAYER_LEAVES: [&[&str]; 12] = [
    &["attention.self.query.weight", "attention.self.key.weight", "attention.self.value.weight"],
    &["attention.self.query.bias", "attention.self.key.bias", "attention.self.value.bias"],
    &["attention.output.dense.weight"],
    &["attention.output.dense.bias"],
    &["attention.output.LayerNorm.weight"],
    &["attention.output.LayerNorm.bias"],
    &["intermediate.dense.weight"],
    &["intermediate.dense.bias"],
    &["output.dense.weight"],
    &["output.dense.bias"],
    &["output.LayerNorm.weight"],
    &["output.LayerNorm.bias"],
];

/// Leaves before the layers.
pub(crate) const EMBEDDING_LEAVES: [&str; 5] = [
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "embeddings.LayerNorm.weight",
    "embeddings.LayerNorm.bias",
];

impl Parameters {
    /// Loads a checkpoint; `config` carries the labels. A head in the file is taken over when its labels are the same, else the
    /// head is drawn from N(0, `initializer_range`), biases 0. Also tells whether the head was taken over.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        config: &EncoderConfig,
        seed: u64,
        device: Device,
    ) -> Result<(Self, bool), Error> {
        let known_head = checkpoint.has_head() && checkpoint.config.labels == config.labels;
        let (plan, slots, total) = lay_out(config);
        let mut elements = vec![0f32; total];
        let mut stream = Stream::new(seed, "head", 0);
        for slot in &slots {
            let count: usize = slot.shape.iter().product();
            let target = &mut elements[slot.offset..slot.offset + count];
            if !slot.name.starts_with("classifier.") || known_head {
                target.copy_from_slice(&checkpoint.weights.f32(&slot.name, &slot.shape)?);
            } else if slot.name == "classifier.weight" {
                target.fill_with(|| (stream.normal() * config.initializer_range) as f32);
            }
        }
        let flat = Tensor::f_from_slice(&elements)?.f_to_device(device)?;
        let leaves = plan
            .into_iter()
            .map(|plan| {
                let tensor = flat
                    .f_narrow(0, plan.offset as i64, plan.length as i64)?
                    .f_view(plan.shape.as_slice())?
                    .f_detach()?
                    .f_set_requires_grad(true)?;
                let Plan { offset, length, decays, depth, head, .. } = plan;
                Ok(Leaf { tensor, offset, length, decays, depth, head })
            })
            .collect::<Result<_, tch::TchError>>()?;
        Ok((Self { flat, copy: None, leaves, slots }, known_head))
    }

    /// A copy of all elements.
    pub(crate) fn copy(&self) -> Result<Tensor, Error> {
        let mut copy = self.flat.f_empty_like()?;
        tch::no_grad(|| copy.f_copy_(&self.flat))?;
        Ok(copy)
    }

    /// Replaces all elements.
    pub(crate) fn set(&mut self, elements: &Tensor) -> Result<(), Error> {
        tch::no_grad(|| self.flat.f_copy_(elements))?;
        self.refresh()
    }

    /// Lets the model compute in other numbers than fp32: leaves become views of a copy, which the optimizer keeps up to date.
    pub(crate) fn compute_in(&mut self, kind: Kind) -> Result<(), Error> {
        let copy = tch::no_grad(|| self.flat.f_to_kind(kind))?;
        for leaf in &mut self.leaves {
            let trained = leaf.tensor.requires_grad();
            let view = copy.f_narrow(0, leaf.offset as i64, leaf.length as i64)?.f_view_as(&leaf.tensor)?;
            leaf.tensor = view.f_detach()?.f_set_requires_grad(trained)?;
        }
        self.copy = Some(copy);
        Ok(())
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
            Some(Kind::BFloat16) => "bf16",
            Some(_) => "fp16",
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

struct Plan {
    shape: Vec<i64>,
    offset: usize,
    length: usize,
    decays: bool,
    depth: usize,
    head: bool,
}

fn lay_out(config: &EncoderConfig) -> (Vec<Plan>, Vec<Slot>, usize) {
    let specs: std::collections::HashMap<String, Vec<usize>> =
        encoder_tensors(config).into_iter().chain(head_tensors(config)).map(|spec| (spec.name, spec.shape)).collect();
    let mut groups: Vec<Vec<String>> = EMBEDDING_LEAVES.iter().map(|name| vec![(*name).to_owned()]).collect();
    for layer in 0..config.num_hidden_layers {
        let full = |name: &&str| format!("encoder.layer.{layer}.{name}");
        groups.extend(LAYER_LEAVES.iter().map(|names| names.iter().map(full).collect()));
    }
    groups.extend(["classifier.weight", "classifier.bias"].map(|name| vec![name.to_owned()]));

    let (mut plans, mut slots, mut offset) = (Vec::new(), Vec::new(), 0usize);
    for names in groups {
        offset = offset.next_multiple_of(ALIGNMENT);
        let start = offset;
        let first = names.first().map(String::as_str).unwrap_or_default();
        let head = first.starts_with("classifier.");
        let layer = first.strip_prefix("encoder.layer.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let depth = if head { config.num_hidden_layers + 1 } else { layer.map_or(0, |layer| layer + 1) };
        let decays = names.iter().all(|name| !name.ends_with(".bias") && !name.contains("LayerNorm"));
        let mut shape: Vec<i64> = Vec::new();
        for name in names {
            let slot_shape = specs.get(&name).cloned().unwrap_or_default();
            let slot_dims: Vec<i64> = slot_shape.iter().map(|size| *size as i64).collect();
            if shape.is_empty() {
                shape = slot_dims;
            } else {
                shape[0] += slot_dims[0];
            }
            let count: usize = slot_shape.iter().product();
            slots.push(Slot { name, shape: slot_shape, offset });
            offset += count;
        }
        plans.push(Plan { shape, offset: start, length: offset - start, decays, depth, head });
    }
    (plans, slots, offset)
}
