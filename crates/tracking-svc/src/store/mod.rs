//! The tracking store: experiments, runs and what they log, on SQLite or PostgreSQL.
//!
//! Every writing call is one transaction and is answered after its commit; calls that wait at the same time share a commit.

mod experiments;
mod history;
mod keys;
mod log;
mod models;
mod runs;
mod schema;
mod search;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use runtime_core::db::{Db, Tx};

pub use history::Tail;
pub use models::{LoggedModel, ModelStatus, NewModel};
pub use runs::{NewRun, RunUpdate};
pub use search::{ExperimentSearch, ModelSearch, RunSearch};

use crate::error::Error;
use keys::{Interner, KeyCache};

/// Parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$(runtime_core::db::Value::from($value)),*] };
}
use values;

/// A handle on the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    keys: Arc<KeyCache>,
}

impl Store {
    /// Opens the store at a database URL (`sqlite:///PATH` or `postgresql://...`), making it if needed. Blocks.
    ///
    /// # Errors
    /// The URL is of another kind, the database cannot be opened, or a newer version made it.
    pub fn open(url: &str) -> Result<Self, Error> {
        Ok(Self { db: Db::open(url, schema::MIGRATIONS)?, keys: Arc::default() })
    }

    /// The database behind, for snapshots.
    pub fn db(&self) -> &Db {
        &self.db
    }

    async fn write<T, F>(&self, f: F) -> Result<T, Error>
    where
        F: FnOnce(&mut dyn Tx, &mut Interner) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let mut interner = Interner::new(self.keys.clone());
        let written = self.db.write(move |tx| f(tx, &mut interner).map(|value| (value, interner.into_fresh())));
        let (value, fresh) = written.await?;
        self.keys.remember(fresh);
        Ok(value)
    }

    async fn read<T, F>(&self, f: F) -> Result<T, Error>
    where
        F: FnOnce(&mut dyn Tx, &KeyCache) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let keys = self.keys.clone();
        self.db.read(move |tx| f(tx, &keys)).await
    }
}

/// The page token of MLflow's own server: where the next page starts.
fn page_token(offset: i64) -> String {
    BASE64_STANDARD.encode(format!("{{\"offset\": {offset}}}"))
}

/// Reads a page token; absent and empty mean the beginning.
fn page_offset(token: Option<&str>) -> Result<i64, Error> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(0) };
    let invalid = || Error::invalid("page_token", format!("`{token}` is not a page token of this server"));
    let bytes = BASE64_STANDARD.decode(token).map_err(|_| invalid())?;
    let content: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let offset = content.get("offset").and_then(serde_json::Value::as_i64);
    offset.filter(|offset| (1..=i64::MAX / 2).contains(offset)).ok_or_else(invalid)
}

/// The number of an experiment, which travels as text.
///
/// # Errors
/// The text is not a number.
pub(crate) fn experiment_id(text: &str) -> Result<i64, Error> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = if digits { text.parse().ok() } else { None };
    id.ok_or_else(|| Error::invalid("experiment_id", format!("`{text}` is not an experiment id (a number such as 0)")))
}
