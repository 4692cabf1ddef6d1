//! What a job that ended without success leaves for another one to go on with: its resume folder, kept on the machine where it ran.
//!
//! A worker's job folder is `DATA/work/{uid}`; what is kept lies in `DATA/kept/{uid}`. A job takes it up by the label
//! [`RESUME_FROM`](crate::jobs::model::RESUME_FROM).

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Jobs whose folders are kept, the newest.
const KEPT: usize = 4;

fn kept(job_dir: &Path) -> Option<PathBuf> {
    Some(job_dir.parent()?.parent()?.join("kept"))
}

/// Keeps the resume folder of a job, and lets go of the oldest ones.
///
/// # Errors
/// The system's; nothing is lost then but what could have been resumed.
pub(crate) fn keep(job_dir: &Path, uid: &str) -> io::Result<()> {
    let resume = job_dir.join("resume");
    let Some(folder) = kept(job_dir) else { return Ok(()) };
    let something = fs::read_dir(&resume).is_ok_and(|mut entries| entries.next().is_some());
    if !something {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    fs::rename(&resume, folder.join(uid))?;
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        found.push((entry.metadata()?.modified()?, entry.path()));
    }
    found.sort();
    let excess = found.len().saturating_sub(KEPT);
    found.iter().take(excess).try_for_each(|(_, path)| fs::remove_dir_all(path))
}

/// Moves what the job `from` left into an empty resume folder; whether there was anything.
///
/// # Errors
/// The system's.
pub(crate) fn take(job_dir: &Path, from: &str) -> io::Result<bool> {
    let resume = job_dir.join("resume");
    let Some(left) = kept(job_dir).map(|folder| folder.join(from)) else { return Ok(false) };
    if !left.is_dir() || fs::read_dir(&resume)?.next().is_some() {
        return Ok(false);
    }
    // An empty folder gives way to a rename.
    fs::rename(&left, &resume).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_moves_from_one_job_to_another_and_few_are_kept() {
        let data = tempfile::tempdir().unwrap();
        let job = |uid: &str| data.path().join("work").join(uid);
        for uid in ["a", "b", "c", "d", "e", "f"] {
            fs::create_dir_all(job(uid).join("resume/epoch-1")).unwrap();
            keep(&job(uid), uid).unwrap();
        }
        fs::create_dir_all(job("empty").join("resume")).unwrap();
        keep(&job("empty"), "empty").unwrap();
        keep(&job("none"), "none").unwrap();
        let left = || fs::read_dir(data.path().join("kept")).unwrap().count();
        assert_eq!(left(), KEPT);
        fs::create_dir_all(job("next").join("resume")).unwrap();
        assert!(!take(&job("next"), "none").unwrap());
        assert!(take(&job("next"), "f").unwrap());
        assert!(job("next").join("resume/epoch-1").is_dir());
        // A second attempt has its own state by now.
        assert!(!take(&job("next"), "e").unwrap());
        assert_eq!(left(), KEPT - 1);
    }
}
