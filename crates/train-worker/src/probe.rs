//! What a checkpoint computes of given rows, in files: logits, loss, gradients of a step, and the weights after some steps. For
//! comparisons with other programs (`tests/peers/transformers_parity.py`).
use std::path::Path;

use quintet_nlp::{
    batch::Batch,
    checkpoint::{Checkpoint, Dtype, Elements, Weights, write_checkpoint, write_safetensors},
    task::{Targets, Task},
};
use quintet_proto::v1::Hyperparameters;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::{
    Error, Hyper,
    backward::Pass,
    loss::Loss,
    model::Model,
    optimizer::{Gradients, Optimizer, Settings},
    parameters::{Parameters, elements},
};

/// Steps of AdamW after the first gradient.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// How many.
    pub count: usize,
    /// The same in each step.
    pub learning_rate: f64,
    /// Of the weights that decay.
    pub weight_decay: f64,
    /// Gradients are cut to this norm; 0 means not at all.
    pub max_grad_norm: f64,
}

impl Steps {
    /// The optimizer's settings.
    pub(crate) fn settings(&self, parameters: &Parameters) -> Result<Settings, Error> {
        let given = Hyperparameters {
            weight_decay: Some(self.weight_decay),
            max_grad_norm: Some(self.max_grad_norm),
            ..Hyperparameters::default()
        };
        Ok(Settings::new(&Hyper::from_proto(&given)?, parameters, |_| 1.0))
    }
}

/// Computes without dropout, on the processor. `inputs` is a safetensors file of `input_ids`, `attention_mask` and, where wanted,
/// `token_type_ids` [rows, length], and of `labels`: I64 [rows, length] for tokens, I64 [rows] for one label, F32 [rows, labels] for
/// many, F32 [rows] or [rows, labels] for numbers. Writes into the new folder `out`:
/// `probe.safetensors` (`logits`, `loss`, `grad.NAME`, `after.NAME`), `leaves.json`, and the weights before and after the steps as
/// checkpoints.
pub fn probe(checkpoint: &Path, inputs: &Path, out: &Path, steps: Steps) -> Result<(), Error> {
    let opened = Checkpoint::open(checkpoint)?;
    let config = &opened.config;
    let mut parameters = Parameters::load(&opened, config, 0, Device::Cpu, Kind::Float)?;
    let batch = read_batch(inputs, config.task)?;
    let model = Model::new(&parameters, config, Device::Cpu)?;
    std::fs::create_dir_all(out).map_err(|source| quintet_nlp::Error::Io { path: out.to_owned(), source })?;
    let values = elements(&parameters.flat)?;
    write_checkpoint(&out.join("checkpoint"), config, &parameters.named(&values), checkpoint)?;

    let mut found: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let mut optimizer = Optimizer::new(&parameters, steps.settings(&parameters)?)?;
    for step in 0..=steps.count {
        let (logits, loss, gradients) = backward(&model, &parameters, &batch)?;
        if step == 0 {
            let shape = logits.size().iter().map(|size| *size as usize).collect();
            found.push(("logits".to_owned(), shape, elements(&logits)?));
            found.push(("loss".to_owned(), vec![1], elements(&loss)?));
            let flat = flat_gradient(&parameters, &gradients)?;
            found.extend(parts(&parameters, "grad", &flat));
        }
        if step < steps.count {
            optimizer.step(&mut parameters, &gradients, steps.learning_rate, step + 1)?;
        }
    }
    optimizer.settle(&mut parameters)?;
    let values = elements(&parameters.flat)?;
    found.extend(parts(&parameters, "after", &values));
    write_checkpoint(&out.join("trained"), config, &parameters.named(&values), checkpoint)?;
    let tensors: Vec<_> =
        found.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), Elements::F32(values))).collect();
    write_safetensors(&out.join("probe.safetensors"), &tensors)?;
    let leaves: Vec<_> = parameters
        .leaves
        .iter()
        .map(|leaf| {
            json!({"names": leaf.names, "decays": leaf.decays, "depth": leaf.depth, "head": leaf.head, "fresh": leaf.fresh})
        })
        .collect();
    Ok(quintet_nlp::files::write_file(&out.join("leaves.json"), json!(leaves).to_string().as_bytes())?)
}

/// Logits, loss and gradients, those of the word table by the rows that the batch uses.
pub(crate) fn backward(
    model: &Model,
    parameters: &Parameters,
    batch: &Batch,
) -> Result<(Tensor, Tensor, Gradients), Error> {
    let mut kept = None;
    let (loss, gradients) = parameters.gradients(model, batch, Pass::default(), |logits, wanted| {
        kept = Some(logits.shallow_clone());
        let loss = Loss::default();
        Ok(loss.sum(logits, wanted)?.f_div_scalar(batch.targets.count() as f64)?)
    })?;
    Ok((kept.ok_or(Error::Internal("a loss without logits"))?, loss, gradients))
}

/// The gradient of each weight of the checkpoint, laid out like the flat buffer.
pub(crate) fn flat_gradient(parameters: &Parameters, gradients: &Gradients) -> Result<Vec<f32>, Error> {
    let mut flat = vec![0f32; parameters.flat.numel()];
    for (leaf, gradient) in parameters.leaves.iter().zip(&gradients.leaves) {
        if let Some(gradient) = gradient {
            flat[leaf.offset..leaf.offset + leaf.length].copy_from_slice(&elements(gradient)?);
        }
    }
    if let Some((ids, rows)) = &gradients.words {
        let width = rows.size()[1] as usize;
        for (id, row) in ids.iter().zip(elements(rows)?.chunks(width)) {
            let start = *id as usize * width;
            flat[start..start + width].copy_from_slice(row);
        }
    }
    Ok(flat)
}

fn parts(parameters: &Parameters, kind: &str, values: &[f32]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let named = parameters.named(values).into_iter();
    named.map(|(name, shape, values)| (format!("{kind}.{name}"), shape, values.to_vec())).collect()
}

/// Reads the rows for a task.
pub(crate) fn read_batch(path: &Path, task: Option<Task>) -> Result<Batch, Error> {
    let wrong = |problem: String| quintet_nlp::Error::Format { path: path.to_owned(), problem };
    let file = Weights::open_file(path)?;
    let (shape, input_ids) = file.i64("input_ids")?;
    let &[rows, length] = shape.as_slice() else {
        return Err(wrong(format!("`input_ids` has shape {shape:?}, expected rows and length")).into());
    };
    let grid = |name: &str| -> Result<Vec<i64>, Error> {
        let (found, values) = file.i64(name)?;
        if found != shape {
            return Err(wrong(format!("`{name}` has shape {found:?}, expected that of `input_ids`, {shape:?}")).into());
        }
        Ok(values)
    };
    let type_ids = if file.contains("token_type_ids") { grid("token_type_ids")? } else { vec![0; input_ids.len()] };
    let labels = file.get("labels")?;
    let targets = match task {
        None => return Err(wrong("the checkpoint has no head of a known task".to_owned()).into()),
        Some(Task::TokenClassification) => Targets::Tokens(grid("labels")?),
        Some(Task::SequenceClassification) => Targets::Class(file.i64("labels")?.1),
        Some(_) if labels.dtype != Dtype::F32 || labels.shape.first() != Some(&rows) => {
            let problem =
                format!("`labels` has type {:?} and shape {:?}, expected F32 by row", labels.dtype, labels.shape);
            return Err(wrong(problem).into());
        }
        Some(Task::MultiLabelClassification) => Targets::Classes(labels.to_f32()),
        Some(Task::Regression) => Targets::Value(labels.to_f32()),
    };
    Ok(Batch { rows, length, attention_mask: grid("attention_mask")?, input_ids, type_ids, targets })
}
