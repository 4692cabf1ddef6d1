//! The state of a run between steps, kept so that another attempt goes on where this one ended and computes the same numbers.
//!
//! A folder `step-N` holds `state.json` and `state.safetensors` (weights, moments, the moving average, the best weights so far); it
//! appears whole, and the one before is removed after it. It is written by a thread of its own from a copy, so that training goes on
//! meanwhile. A state is taken up only by the same run: the fingerprint covers the hyperparameters and the content of all inputs.
use std::{
    fs,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use quintet_nlp::{
    checkpoint::{Elements, Weights, write_safetensors},
    files,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{EpochReport, Error, loss_scale::LossScale, optimizer::OptimizerState, parameters::elements};

/// Where a run stands; the weights go beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Identifies the run.
    pub(crate) fingerprint: String,
    /// Steps done.
    pub(crate) steps: usize,
    /// Epochs done.
    pub(crate) epochs: Vec<EpochReport>,
    /// Epoch of the best weights, counted from 1.
    pub(crate) best: Option<usize>,
    /// Steps done of the epoch that has not ended.
    pub(crate) steps_of_epoch: usize,
    /// Sum of their losses.
    pub(crate) loss_of_epoch: f64,
    /// Seconds they took.
    pub(crate) seconds_of_epoch: f64,
    /// Seconds of all threads that they took.
    pub(crate) cpu_seconds_of_epoch: f64,
    /// Epochs since the last improvement.
    pub(crate) stale: usize,
    /// Parts that a batch is cut into, since memory ran out.
    pub(crate) parts: usize,
    /// See [`OptimizerState::owed`].
    pub(crate) owed: f64,
    /// Of fp16 alone.
    pub(crate) loss_scale: Option<LossScale>,
}

impl Position {
    /// Steps done that changed nothing.
    pub(crate) fn skipped_steps(&self) -> usize {
        self.loss_scale.map_or(0, |scale| scale.skipped())
    }
}

/// Tensors of a state.
pub(crate) struct Tensors {
    pub(crate) weights: Tensor,
    pub(crate) optimizer: OptimizerState,
    /// Moving average of the weights, when there is one.
    pub(crate) average: Option<Tensor>,
    /// Absent when there are none, or when they are the present ones.
    pub(crate) best: Option<Tensor>,
}

/// Elements of a state in this process's memory, ready to be written.
struct Copied {
    floats: Vec<(String, Vec<f32>)>,
    touched: Vec<i64>,
}

const WEIGHTS: &str = "weights";
const AVERAGE: &str = "average";
const BEST: &str = "best";
const TOUCHED: &str = "touched_rows";

/// Writes states, one at a time.
pub(crate) struct Saver {
    dir: PathBuf,
    running: Option<JoinHandle<Result<(), Error>>>,
    every: Duration,
    /// When the last state was copied.
    last: Instant,
}

impl Saver {
    /// Writes into `dir`, a state when so much work would be lost.
    pub(crate) fn new(dir: &Path, every: Duration) -> Self {
        Self { dir: dir.to_owned(), running: None, every, last: Instant::now() }
    }

    /// Whether it is time for a state.
    pub(crate) fn is_due(&self) -> bool {
        self.last.elapsed() >= self.every
    }

    /// Whether the last state is still being written.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Copies a state and begins to write it; waits for the one before. The error is that of the one before, which leaves the state
    /// before it in place.
    pub(crate) fn save(&mut self, position: &Position, tensors: &Tensors) -> Result<(), Error> {
        let before = self.finish();
        self.last = Instant::now();
        let copied = Copied::of(tensors)?;
        let (dir, position) = (self.dir.clone(), position.clone());
        self.running = Some(std::thread::spawn(move || write(&dir, &position, &copied)));
        before
    }

    /// Waits for the state that is being written.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Internal("the thread that writes states died")),
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // The run has ended by an error or by order: the state counts, its fate does not.
        let _ = self.finish();
    }
}

impl Copied {
    fn of(tensors: &Tensors) -> Result<Self, Error> {
        let mut floats = vec![(WEIGHTS.to_owned(), elements(&tensors.weights)?)];
        for (name, tensor) in &tensors.optimizer.tensors {
            floats.push((name.clone(), elements(tensor)?));
        }
        for (name, tensor) in [(AVERAGE, &tensors.average), (BEST, &tensors.best)] {
            if let Some(tensor) = tensor {
                floats.push((name.to_owned(), elements(tensor)?));
            }
        }
        Ok(Self { floats, touched: tensors.optimizer.touched.clone() })
    }
}

/// Writes a state and removes older ones.
fn write(dir: &Path, position: &Position, copied: &Copied) -> Result<(), Error> {
    let target = dir.join(format!("step-{}", position.steps));
    if target.exists() {
        fs::remove_dir_all(&target).map_err(|source| quintet_nlp::Error::Io { path: target.clone(), source })?;
    }
    let mut named: Vec<_> =
        copied.floats.iter().map(|(name, values)| (name.clone(), vec![values.len()], Elements::F32(values))).collect();
    named.push((TOUCHED.to_owned(), vec![copied.touched.len()], Elements::I64(&copied.touched)));
    files::write_folder(&target, |folder| -> Result<(), quintet_nlp::Error> {
        write_safetensors(&folder.join("state.safetensors"), &named)?;
        let path = folder.join("state.json");
        let json = serde_json::to_vec_pretty(position)
            .map_err(|e| quintet_nlp::Error::Format { path: path.clone(), problem: e.to_string() })?;
        files::write_file(&path, &json)
    })?;
    for (step, path) in saved(dir) {
        if step < position.steps {
            // A leftover costs space alone; the newest state counts.
            let _ = fs::remove_dir_all(path);
        }
    }
    Ok(())
}

/// The newest state of this run; none when there is none. A state that cannot be read, does not fit (`accept` refuses it) or belongs to
/// another run is passed over with a line to `log`.
pub(crate) fn load(
    dir: &Path,
    fingerprint: &str,
    mut accept: impl FnMut(&Position, &Tensors) -> Result<(), Error>,
    mut log: impl FnMut(&str),
) -> Option<(Position, Tensors)> {
    for (_, path) in saved(dir) {
        let found = read(&path).and_then(|(position, tensors)| {
            if position.fingerprint == fingerprint {
                accept(&position, &tensors)?;
            }
            Ok((position, tensors))
        });
        match found {
            Ok((position, tensors)) if position.fingerprint == fingerprint => return Some((position, tensors)),
            Ok(_) => log(&format!("`{}` belongs to another run, passed over", path.display())),
            Err(error) => log(&format!("`{}` cannot be resumed from, passed over: {error}", path.display())),
        }
    }
    None
}

fn read(path: &Path) -> Result<(Position, Tensors), Error> {
    let json = path.join("state.json");
    let position: Position = serde_json::from_slice(&files::read(&json)?)
        .map_err(|e| quintet_nlp::Error::Format { path: json, problem: e.to_string() })?;
    let file = Weights::open_file(&path.join("state.safetensors"))?;
    let tensor = |name: &str| -> Result<Tensor, Error> {
        let shape = file.get(name)?.shape.to_vec();
        Ok(Tensor::f_from_slice(&file.f32(name, &shape)?)?)
    };
    let mut optimizer = OptimizerState { tensors: Vec::new(), touched: file.i64(TOUCHED)?.1, owed: position.owed };
    for name in file.names().filter(|name| ![WEIGHTS, AVERAGE, BEST, TOUCHED].contains(name)) {
        optimizer.tensors.push((name.to_owned(), tensor(name)?));
    }
    let maybe = |name: &str| file.contains(name).then(|| tensor(name)).transpose();
    let tensors = Tensors { weights: tensor(WEIGHTS)?, average: maybe(AVERAGE)?, best: maybe(BEST)?, optimizer };
    Ok((position, tensors))
}

/// States in the folder, the newest first.
fn saved(dir: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(usize, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    found
}
