//! Pausing, resuming and extending the sweeps of a study.

use quintet_proto::v1::{ExtendSweepRequest, PauseSweepRequest, ResumeSweepRequest, SweepControl};

use super::{Client, bare};
use crate::{failure::Failure, jobs::write};

pub(super) async fn pause(mut client: Client, study: &str) -> Result<(), Failure> {
    let request = PauseSweepRequest { study: name(study) };
    tell(&client.pause_sweep(request).await?.into_inner())
}

pub(super) async fn resume(mut client: Client, study: &str) -> Result<(), Failure> {
    let request = ResumeSweepRequest { study: name(study) };
    tell(&client.resume_sweep(request).await?.into_inner())
}

pub(super) async fn extend(mut client: Client, study: &str, max_trials: i32) -> Result<(), Failure> {
    let request = ExtendSweepRequest { study: name(study), max_trials };
    tell(&client.extend_sweep(request).await?.into_inner())
}

fn name(study: &str) -> String {
    format!("studies/{}", bare(study))
}

fn tell(control: &SweepControl) -> Result<(), Failure> {
    let state = if control.paused { "paused" } else { "not paused" };
    let mut text = format!("{}: {state}", bare(&control.study));
    if control.max_trials > 0 {
        text += &format!(", up to {} trials", control.max_trials);
    }
    if !control.job.is_empty() {
        text += &format!("; its latest sweep is {}", control.job);
    }
    write(&(text + "\n"))
}
