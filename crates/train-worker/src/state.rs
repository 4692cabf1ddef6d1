//! The state of a run between epochs, kept so that another attempt goes on where this one ended.
//!
//! A folder `epoch-N` holds `state.json` and `state.safetensors` (weights, both moments, the best weights so far); it appears whole,
//! and the one before is removed after it. A state is taken up only by the same run: the fingerprint covers the
//! hyperparameters and the content of all inputs.
use std::{
    fs,
    path::{Path, PathBuf},
};

use quintet_nlp::{
    checkpoint::{Elements, Weights, write_safetensors},
    files,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{EpochReport, Error, parameters::elements};

/// Where a run stands; the weights go beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Identifies the run.
    pub(crate) fingerprint: String,
    /// Steps done.
    pub(crate) steps: usize,
    /// Epochs done.
    pub(crate) epochs: Vec<EpochReport>,
    /// Epoch of the best weights, counted from 1.
    pub(crate) best: Option<usize>,
}

/// Flat tensors of a state.
pub(crate) struct Tensors {
    pub(crate) weights: Tensor,
    pub(crate) moments: [Tensor; 2],
    /// Absent when the best weights are the present ones.
    pub(crate) best: Option<Tensor>,
}

/// Writes the state after an epoch and removes older ones.
pub(crate) fn save(dir: &Path, position: &Position, tensors: &Tensors) -> Result<(), Error> {
    let name = format!("epoch-{}", position.epochs.len());
    let target = dir.join(&name);
    if target.exists() {
        fs::remove_dir_all(&target).map_err(|source| quintet_nlp::Error::Io { path: target.clone(), source })?;
    }
    let [first, second] = &tensors.moments;
    let mut values = vec![
        ("weights", elements(&tensors.weights)?),
        ("first_moment", elements(first)?),
        ("second_moment", elements(second)?),
    ];
    if let Some(best) = &tensors.best {
        values.push(("best", elements(best)?));
    }
    let named: Vec<_> =
        values.iter().map(|(name, values)| ((*name).to_owned(), vec![values.len()], Elements::F32(values))).collect();
    files::write_folder(&target, |folder| -> Result<(), quintet_nlp::Error> {
        write_safetensors(&folder.join("state.safetensors"), &named)?;
        let path = folder.join("state.json");
        let json = serde_json::to_vec_pretty(position)
            .map_err(|e| quintet_nlp::Error::Format { path: path.clone(), problem: e.to_string() })?;
        files::write_file(&path, &json)
    })?;
    for (epoch, path) in saved(dir) {
        if epoch < position.epochs.len() {
            // A leftover costs space alone; the newest state counts.
            let _ = fs::remove_dir_all(path);
        }
    }
    Ok(())
}

/// The newest state of this run, for weights of `count` elements; none when there is none. A state that cannot be read or belongs
/// to another run is passed over with a line to `log`.
pub(crate) fn load(
    dir: &Path,
    fingerprint: &str,
    count: usize,
    mut log: impl FnMut(&str),
) -> Option<(Position, Tensors)> {
    for (_, path) in saved(dir) {
        match read(&path, count) {
            Ok((position, tensors)) if position.fingerprint == fingerprint => return Some((position, tensors)),
            Ok(_) => log(&format!("`{}` belongs to another run, passed over", path.display())),
            Err(error) => log(&format!("`{}` cannot be resumed from, passed over: {error}", path.display())),
        }
    }
    None
}

fn read(path: &Path, count: usize) -> Result<(Position, Tensors), Error> {
    let json = path.join("state.json");
    let position: Position = serde_json::from_slice(&files::read(&json)?)
        .map_err(|e| quintet_nlp::Error::Format { path: json, problem: e.to_string() })?;
    let weights = Weights::open_file(&path.join("state.safetensors"))?;
    let tensor = |name: &str| -> Result<Tensor, Error> { Ok(Tensor::f_from_slice(&weights.f32(name, &[count])?)?) };
    let tensors = Tensors {
        weights: tensor("weights")?,
        moments: [tensor("first_moment")?, tensor("second_moment")?],
        best: weights.contains("best").then(|| tensor("best")).transpose()?,
    };
    Ok((position, tensors))
}

/// States in the folder, the newest first.
fn saved(dir: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(usize, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let epoch = entry.file_name().to_str()?.strip_prefix("epoch-")?.parse().ok()?;
            Some((epoch, entry.path()))
        })
        .collect();
    found.sort_by_key(|(epoch, _)| std::cmp::Reverse(*epoch));
    found
}
