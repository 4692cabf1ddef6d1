//! The one writer of a database: takes what has queued up and commits it as one transaction. What is quick and need not be synced,
//! callers do themselves while it has nothing to do.

use std::{
    fs::File,
    ops::ControlFlow,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, TryLockError},
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

use super::{Connection, Dialect, Durability, Error, Row, Tx, Value, WriteOptions, durability::Undo};

/// Requests of one commit at most; more would only make the first of them wait longer.
const MAX_GROUP: usize = 512;
/// Requests that may wait before callers do.
const QUEUE: usize = 8192;

pub(super) type Connect = Box<dyn Fn() -> Result<Box<dyn Connection>, Error> + Send>;

/// A queued request: runs in the transaction, then hears how the commit went.
pub(crate) trait Request: Send {
    /// False undoes what it did.
    fn run(&mut self, tx: &mut dyn Tx) -> bool;
    /// What it survives once it is answered.
    fn durability(&self) -> Durability {
        Durability::Synced
    }
    /// Also called without a run, when the database cannot be reached.
    fn answer(self: Box<Self>, commit: Result<(), Error>);
}

/// A function, and what became of it.
struct Closure<F, T, E> {
    f: Option<F>,
    undo: Option<Undo>,
    durability: Durability,
    result: Option<Result<T, E>>,
}

impl<F, T, E> Closure<F, T, E>
where
    F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &mut dyn Tx) -> bool {
        let Some(f) = self.f.take() else { return false };
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| f(tx)))
            .unwrap_or_else(|_| Err(Error::Statement("the writing request panicked".into()).into()));
        let ok = result.is_ok();
        self.result = Some(result);
        ok
    }

    /// What its caller gets, after a commit with that result.
    fn end(&mut self, commit: Result<(), Error>) -> Result<T, E> {
        if let (Some(Ok(_)), Err(_), Some(undo)) = (&self.result, &commit, self.undo.take()) {
            undo();
        }
        match (self.result.take(), commit) {
            // A request that failed by itself keeps its own error.
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(error.into()),
            (None, Ok(())) => Err(Error::Closed.into()),
        }
    }
}

/// A function whose caller waits.
struct Queued<F, T, E> {
    closure: Closure<F, T, E>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Request for Queued<F, T, E>
where
    F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &mut dyn Tx) -> bool {
        self.closure.run(tx)
    }

    fn durability(&self) -> Durability {
        self.closure.durability
    }

    fn answer(self: Box<Self>, commit: Result<(), Error>) {
        let Self { mut closure, reply } = *self;
        // The caller may have gone; what it asked for is done all the same.
        let _ = reply.send(closure.end(commit));
    }
}

/// The connection, for whoever writes, and what was committed over it.
struct Seat {
    connection: Box<dyn Connection>,
    connect: Connect,
    commits: Commits,
}

/// How many transactions were committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commits {
    /// And synced before anybody heard of them.
    pub synced: u64,
    /// And left to the next sync.
    pub committed: u64,
}

#[derive(Clone)]
pub(super) struct Writer {
    /// Dropped before the queue, so that the thread is the last to hold the connection.
    seat: Arc<Mutex<Seat>>,
    /// Callers may run quick requests themselves: on SQLite, whose connection waits for nobody.
    shared: bool,
    queue: mpsc::Sender<Box<dyn Request>>,
    /// Dropped after the queue.
    _closing: Arc<Closing>,
}

/// The writer's thread, whose end closes the database. The last handle waits for it on SQLite: a process that ends before leaves the
/// log behind, and whoever copies the file alone loses what that holds.
struct Closing(Option<JoinHandle<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        // The thread itself may hold the last handle, in a request.
        if let Some(thread) = self.0.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            // Its panic has nothing more to spoil.
            let _ = thread.join();
        }
    }
}

impl Writer {
    pub(super) fn start(connection: Box<dyn Connection>, connect: Connect, lock: Option<File>) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let shared = connection.dialect() == Dialect::Sqlite;
        let seat = Arc::new(Mutex::new(Seat { connection, connect, commits: Commits::default() }));
        let own = seat.clone();
        // Ends when the last handle is dropped: the channel closes, and with the thread go connection and lock.
        let thread = thread::Builder::new().name("db-writer".into()).spawn(move || {
            let _lock = lock;
            serve(&own, requests);
            drop(own);
        });
        if let Err(error) = &thread {
            tracing::error!(%error, "cannot start the database writer");
        }
        let closing = Arc::new(Closing(thread.ok().filter(|_| shared)));
        Self { seat, shared, queue, _closing: closing }
    }

    pub(super) async fn send(&self, request: Box<dyn Request>) {
        if let Err(closed) = self.queue.send(request).await {
            closed.0.answer(Err(Error::Closed));
        }
    }

    pub(super) async fn run<T, E, F>(&self, f: F, options: WriteOptions) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let WriteOptions { durability, quick, undo } = options;
        let mut closure = Closure { f: Some(f), undo, durability, result: None };
        if quick && durability < Durability::Synced && self.run_here(&mut closure) {
            return closure.result.take().unwrap_or_else(|| Err(Error::Closed.into()));
        }
        let (reply, answer) = oneshot::channel();
        self.queue.send(Box::new(Queued { closure, reply })).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// What was committed since the start; waits for the request that runs.
    pub(super) fn commits(&self) -> Commits {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).commits
    }

    /// Runs a request on the caller's thread, when nobody else is writing or waits for it; false when it has not run.
    fn run_here<T, E, F>(&self, closure: &mut Closure<F, T, E>) -> bool
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send,
        T: Send,
        E: From<Error> + Send,
    {
        if !self.shared || self.queue.capacity() < self.queue.max_capacity() {
            return false;
        }
        let mut seat = match self.seat.try_lock() {
            Ok(seat) => seat,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let commit = seat.run_alone(closure.durability, |tx| closure.run(tx));
        // Still holding the connection: nobody else sees what could not be committed.
        closure.result = Some(closure.end(commit));
        true
    }
}

fn serve(seat: &Mutex<Seat>, mut requests: mpsc::Receiver<Box<dyn Request>>) {
    while let Some(first) = requests.blocking_recv() {
        let mut taken = seat.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = vec![first];
        while group.len() < MAX_GROUP
            && let Ok(next) = requests.try_recv()
        {
            group.push(next);
        }
        let commit = taken.run_group(&mut group);
        metrics::histogram!("quintet_db_group_size").record(group.len() as f64);
        // Whoever hears of it may write next; but what could not be committed is undone before.
        let _still = commit.is_err().then_some(taken);
        group.into_iter().for_each(|request| request.answer(commit.clone()));
    }
}

impl Seat {
    fn run_group(&mut self, group: &mut [Box<dyn Request>]) -> Result<(), Error> {
        let durability = group.iter().map(|request| request.durability()).max().unwrap_or_default();
        if let [only] = group {
            return self.run_alone(durability, |tx| only.run(tx));
        }
        self.begin(durability)?;
        match run_in_savepoints(self.connection.as_mut(), group) {
            Ok(()) => self.end("COMMIT", durability),
            Err(error) => self.end("ROLLBACK", durability).and(Err(error)),
        }
    }

    /// Begins a transaction, over a new connection when the old one turns out to be gone, as after a restart of the database.
    fn begin(&mut self, durability: Durability) -> Result<(), Error> {
        match self.connection.begin_as(durability) {
            Err(error) if error.is_passing() || self.connection.is_broken() => {
                tracing::warn!(%error, "the connection to the database is gone: connecting again");
                self.connection = (self.connect)()?;
                self.connection.begin_as(durability)
            }
            other => other,
        }
    }

    fn run_alone(&mut self, durability: Durability, run: impl FnOnce(&mut dyn Tx) -> bool) -> Result<(), Error> {
        let mut tx = Lazy { seat: self, durability, begun: false };
        let ok = run(&mut tx);
        if !tx.begun {
            return Ok(());
        }
        self.end(if ok { "COMMIT" } else { "ROLLBACK" }, durability)
    }

    /// Ends the transaction. After an error nothing of it is stored, and the connection must not stay inside of it.
    fn end(&mut self, how: &str, durability: Durability) -> Result<(), Error> {
        let result = self.connection.batch(how);
        match (&result, durability) {
            (Err(_), _) => drop(self.connection.batch("ROLLBACK")),
            (Ok(()), _) if how != "COMMIT" => {}
            (Ok(()), Durability::Synced) => self.commits.synced += 1,
            (Ok(()), Durability::Committed) => self.commits.committed += 1,
        }
        result
    }
}

/// A transaction that begins with its first statement: a request that needs none costs none.
struct Lazy<'a> {
    seat: &'a mut Seat,
    durability: Durability,
    begun: bool,
}

impl Lazy<'_> {
    fn begun(&mut self) -> Result<&mut dyn Connection, Error> {
        if !self.begun {
            self.seat.begin(self.durability)?;
            self.begun = true;
        }
        Ok(self.seat.connection.as_mut())
    }
}

impl Tx for Lazy<'_> {
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        self.begun()?.execute(sql, params)
    }

    fn execute_many(&mut self, sql: &str, rows: &[Vec<Value>]) -> Result<u64, Error> {
        self.begun()?.execute_many(sql, rows)
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        self.begun()?.query(sql, params)
    }

    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value],
        see: &mut dyn FnMut(&Row) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.begun()?.query_each(sql, params, see)
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.begun().map(|_| ())
    }

    fn commits_of_others(&mut self) -> Result<Option<i64>, Error> {
        self.seat.connection.commits_of_others()
    }

    fn dialect(&self) -> Dialect {
        self.seat.connection.dialect()
    }
}

fn run_in_savepoints(connection: &mut dyn Connection, group: &mut [Box<dyn Request>]) -> Result<(), Error> {
    for request in group {
        connection.batch("SAVEPOINT request")?;
        if !request.run(connection) {
            connection.batch("ROLLBACK TO SAVEPOINT request")?;
        }
        connection.batch("RELEASE SAVEPOINT request")?;
    }
    Ok(())
}
