//! Backs up the outputs of every job that succeeds, whatever its kind.

use quintet_proto::v1::{JobEvent, JobState, job_event::Event};

use super::{BackupPolicy, Outcome};
use crate::{
    artifacts::ArtifactStore,
    jobs::follow::{Follower, Handled},
};

/// Tries of one artifact before it is given up, loudly.
const TRIES: u32 = 5;

/// Follows the jobs and copies their outputs under `jobs/{uid}/{output}`.
pub struct OutputBackup {
    policy: BackupPolicy,
    store: ArtifactStore,
    tries: u32,
}

impl OutputBackup {
    /// A follower that copies from a store by a policy.
    pub fn new(policy: BackupPolicy, store: ArtifactStore) -> Self {
        Self { policy, store, tries: 0 }
    }
}

impl Follower for OutputBackup {
    const NAME: &'static str = "backup";

    async fn handle(&mut self, event: &JobEvent) -> Handled {
        let Some(Event::Transition(job)) = &event.event else { return Handled::Done };
        if job.state() != JobState::Succeeded || !job.reused_from.is_empty() {
            return Handled::Done;
        }
        for (output, artifact) in job.outputs.iter().flat_map(|outputs| &outputs.artifacts) {
            let name = format!("{}/{output}", job.name);
            match self.policy.backup_artifact(&name, &self.store, &artifact.uri).await {
                Ok(Outcome::Disabled) => return Handled::Done,
                Ok(_) => {}
                Err(error) if self.tries < TRIES => {
                    self.tries += 1;
                    tracing::warn!(%error, name, "an output could not be backed up; trying again");
                    return Handled::Again;
                }
                Err(error) => tracing::error!(%error, name, "an output was not backed up"),
            }
            self.tries = 0;
        }
        Handled::Done
    }
}
