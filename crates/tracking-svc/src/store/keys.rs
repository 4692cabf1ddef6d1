//! Names of metrics, parameters and tags as integers, with a cache of what is committed.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use runtime_core::db::{self, Tx};

use super::values;

/// Names that the cache holds at most; a store with more of them asks the database for the rest.
const CAPACITY: usize = 100_000;

/// Committed names, both ways. Names are never removed from the database, so an entry is true for ever.
#[derive(Debug, Default)]
pub(super) struct KeyCache(RwLock<Maps>);

#[derive(Debug, Default)]
struct Maps {
    ids: HashMap<Arc<str>, i64>,
    names: HashMap<i64, Arc<str>>,
}

impl KeyCache {
    fn id(&self, name: &str) -> Option<i64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).ids.get(name).copied()
    }

    fn known(&self, id: i64) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).names.get(&id).cloned()
    }

    /// Keeps names that have been committed.
    pub(super) fn remember(&self, fresh: impl IntoIterator<Item = (Arc<str>, i64)>) {
        let mut fresh = fresh.into_iter().peekable();
        if fresh.peek().is_none() {
            return;
        }
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (name, id) in fresh {
            if maps.ids.len() < CAPACITY {
                maps.names.insert(id, name.clone());
                maps.ids.insert(name, id);
            }
        }
    }

    /// The id of a name, if anything has it.
    pub(super) fn find(&self, tx: &mut dyn Tx, name: &str) -> Result<Option<i64>, db::Error> {
        if let Some(id) = self.id(name) {
            return Ok(Some(id));
        }
        let rows = tx.query("SELECT id FROM keys WHERE name = $1", values![name])?;
        rows.first().map(|row| row.int(0)).transpose()
    }

    /// The name of an id that a table holds. For readers, which see committed rows alone.
    pub(super) fn name(&self, tx: &mut dyn Tx, id: i64) -> Result<Arc<str>, db::Error> {
        if let Some(name) = self.known(id) {
            return Ok(name);
        }
        let rows = tx.query("SELECT name FROM keys WHERE id = $1", values![id])?;
        let row = rows.first().ok_or_else(|| db::Error::Statement(format!("key {id} has no name")))?;
        let name: Arc<str> = row.text(0)?.into();
        self.remember([(name.clone(), id)]);
        Ok(name)
    }
}

/// Gives names their ids inside a writing transaction; new ones enter the cache after its commit.
pub(super) struct Interner {
    cache: Arc<KeyCache>,
    fresh: Vec<(Arc<str>, i64)>,
}

impl Interner {
    pub(super) fn new(cache: Arc<KeyCache>) -> Self {
        Self { cache, fresh: Vec::new() }
    }

    /// The id of a name, made if there is none.
    pub(super) fn id(&mut self, tx: &mut dyn Tx, name: &Arc<str>) -> Result<i64, db::Error> {
        if let Some(id) = self.cache.id(name) {
            return Ok(id);
        }
        if let Some((_, id)) = self.fresh.iter().find(|(known, _)| known == name) {
            return Ok(*id);
        }
        let select = "SELECT id FROM keys WHERE name = $1";
        let mut rows = tx.query(select, values![&**name])?;
        if rows.is_empty() {
            tx.execute("INSERT INTO keys (name) VALUES ($1) ON CONFLICT DO NOTHING", values![&**name])?;
            rows = tx.query(select, values![&**name])?;
        }
        let id = rows.first().ok_or_else(|| db::Error::Statement(format!("key {name:?} was not stored")))?.int(0)?;
        self.fresh.push((name.clone(), id));
        Ok(id)
    }

    /// The id of a name, if anything has it.
    pub(super) fn find(&self, tx: &mut dyn Tx, name: &str) -> Result<Option<i64>, db::Error> {
        self.cache.find(tx, name)
    }

    pub(super) fn into_fresh(self) -> Vec<(Arc<str>, i64)> {
        self.fresh
    }
}
