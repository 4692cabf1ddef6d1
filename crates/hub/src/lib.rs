//! Pretrained encoders from the Hugging Face Hub: `distilbert-base-uncased`, `org/name@revision`.
//!
//! * [`Repo`]: the name of a repository with its revision.
//! * [`Settings`]: endpoint, cache, token, offline mode and time limits, from the variables that `huggingface_hub` reads.
//! * [`Hub`]: resolves a revision to a commit and brings the files of a checkpoint into the cache.
//! * [`testing`]: a server that speaks the Hub's paths, with failures to order.
//!
//! The cache has the layout of `huggingface_hub` (`models--org--name/{blobs,refs,snapshots}`, `.locks`, `.incomplete`), so what
//! Python has downloaded is used, what is downloaded here is used by Python, and both may run at once.
//!
//! The crate `hf-hub` (1.0.0, read before this was written) has the same layout, but begins an interrupted file anew, compares
//! neither size nor digest, has no offline mode, lets a stalled connection wait for ever, gives up on a lock after ten seconds
//! although another process may download for an hour, does not wait as long as `Retry-After` says, and brings the Xet client with
//! it. So this is written on `reqwest`. Files that the Hub keeps in Xet come through its ordinary addresses.

mod cache;
mod client;
mod digest;
mod download;
mod error;
mod refusal;
mod repo;
mod retry;
mod select;
mod settings;
mod snapshot;
pub mod testing;

pub use error::Error;
pub use repo::{Repo, SCHEME};
pub use retry::Patience;
pub use settings::{Settings, Token};
pub use snapshot::{Hub, Origin, Progress, Resolved, Snapshot};
