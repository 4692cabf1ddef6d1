//! The benchmark's side of a measuring process: starts it, talks to it, ends it.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio},
};

use crate::{
    Error,
    protocol::{Answer, Command, FailureKind, Loaded},
};

/// A running measuring process; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Measurer {
    model: PathBuf,
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// How measuring processes are started.
#[derive(Clone, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [OsString],
    pub(crate) threads: usize,
    pub(crate) cpus: &'a [usize],
    pub(crate) seed: u64,
}

impl Measurer {
    /// Starts a process and waits until it has loaded the model.
    pub(crate) fn start(launch: &Launch<'_>, model: &Path) -> Result<(Self, Loaded), Error> {
        let cpus: Vec<String> = launch.cpus.iter().map(usize::to_string).collect();
        let what = || format!("starting {}", launch.program.display());
        let mut process = Program::new(launch.program)
            .args(launch.arguments)
            .arg("--model")
            .arg(model)
            .args(["--threads", &launch.threads.to_string()])
            .args(["--cpus", &cpus.join(",")])
            .args(["--seed", &launch.seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io(what()))?;
        let pipe = || Error::Process { model: model.to_path_buf(), how: "its pipes are not there".to_owned() };
        let input = process.stdin.take().ok_or_else(pipe)?;
        let output = BufReader::new(process.stdout.take().ok_or_else(pipe)?);
        let mut measurer = Self { model: model.to_path_buf(), process, input, output };
        match measurer.hear()? {
            Answer::Loaded(loaded) => Ok((measurer, loaded)),
            other => Err(measurer.unexpected(&other)),
        }
    }

    /// Gives a command and waits for the answer.
    pub(crate) fn ask(&mut self, command: &Command) -> Result<Answer, Error> {
        let mut line = serde_json::to_vec(command)
            .map_err(|error| Error::Process { model: self.model.clone(), how: error.to_string() })?;
        line.push(b'\n');
        if self.input.write_all(&line).and_then(|()| self.input.flush()).is_err() {
            return Err(self.ended());
        }
        self.hear()
    }

    /// The answer was none to the question.
    pub(crate) fn unexpected(&self, answer: &Answer) -> Error {
        Error::Process { model: self.model.clone(), how: format!("it answered out of turn: {answer:?}") }
    }

    fn hear(&mut self) -> Result<Answer, Error> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) | Err(_) => return Err(self.ended()),
            Ok(_) => {}
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(failure)) => Err(match failure.kind {
                FailureKind::Model => Error::Model { problem: failure.problem },
                FailureKind::Runtime => Error::Runtime(failure.problem),
            }),
            Ok(answer) => Ok(answer),
            Err(error) => {
                let how = format!("its answer cannot be read: {error}: {}", line.trim_end());
                Err(Error::Process { model: self.model.clone(), how })
            }
        }
    }

    fn ended(&mut self) -> Error {
        // Its output is closed, so it is gone or about to be.
        let how = match self.process.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Error::Process { model: self.model.clone(), how }
    }
}

impl Drop for Measurer {
    fn drop(&mut self) {
        // It has ended already, or it is in the middle of a run that nobody waits for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
