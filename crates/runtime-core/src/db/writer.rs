//! The one writer of a database: takes what has queued up and commits it as one transaction.

use std::{fs::File, panic::AssertUnwindSafe, thread};

use tokio::sync::{mpsc, oneshot};

use super::{Connection, Dialect, Error, Row, Tx, Value};

/// Requests of one commit at most; more would only make the first of them wait longer.
const MAX_GROUP: usize = 512;
/// Requests that may wait before callers do.
const QUEUE: usize = 8192;

/// Takes back what a request that could not be committed has left in memory.
pub(super) type Undo = Box<dyn FnOnce() + Send>;
pub(super) type Connect = Box<dyn Fn() -> Result<Box<dyn Connection>, Error> + Send>;

/// A queued request: runs in the transaction, then hears how the commit went.
pub(crate) trait Request: Send {
    /// False undoes what it did.
    fn run(&mut self, tx: &mut dyn Tx) -> bool;
    /// Also called without a run, when the database cannot be reached.
    fn answer(self: Box<Self>, commit: Result<(), Error>);
}

struct Closure<F, T, E> {
    f: Option<F>,
    undo: Option<Undo>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Request for Closure<F, T, E>
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

    fn answer(self: Box<Self>, commit: Result<(), Error>) {
        if let (Some(Ok(_)), Err(_), Some(undo)) = (&self.result, &commit, self.undo) {
            undo();
        }
        let result = match (self.result, commit) {
            // A request that failed by itself keeps its own error.
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(error.into()),
            (None, Ok(())) => Err(Error::Closed.into()),
        };
        // The caller may have gone; what it asked for is done all the same.
        let _ = self.reply.send(result);
    }
}

#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Request>>,
}

impl Writer {
    pub(super) fn start(connection: Box<dyn Connection>, connect: Connect, lock: Option<File>) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        // Ends when the last handle is dropped: the channel closes, and with the thread go connection and lock.
        thread::Builder::new()
            .name("db-writer".into())
            .spawn(move || {
                let _lock = lock;
                serve(connection, &connect, requests);
            })
            .map(drop)
            .unwrap_or_else(|error| tracing::error!(%error, "cannot start the database writer"));
        Self { queue }
    }

    pub(super) async fn send(&self, request: Box<dyn Request>) {
        if let Err(closed) = self.queue.send(request).await {
            closed.0.answer(Err(Error::Closed));
        }
    }

    pub(super) async fn run<T, E, F>(&self, f: F, undo: Option<Undo>) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Closure { f: Some(f), undo, result: None, reply });
        self.queue.send(request).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

fn serve(mut connection: Box<dyn Connection>, connect: &Connect, mut requests: mpsc::Receiver<Box<dyn Request>>) {
    while let Some(first) = requests.blocking_recv() {
        let mut group = vec![first];
        while group.len() < MAX_GROUP
            && let Ok(next) = requests.try_recv()
        {
            group.push(next);
        }
        if connection.is_broken() {
            match connect() {
                Ok(fresh) => connection = fresh,
                Err(error) => {
                    tracing::warn!(%error, "the database cannot be reached");
                    group.into_iter().for_each(|request| request.answer(Err(error.clone())));
                    continue;
                }
            }
        }
        let commit = run_group(connection.as_mut(), &mut group);
        metrics::histogram!("quintet_db_group_size").record(group.len() as f64);
        group.into_iter().for_each(|request| request.answer(commit.clone()));
    }
}

fn run_group(connection: &mut dyn Connection, group: &mut [Box<dyn Request>]) -> Result<(), Error> {
    let (begun, result) = if let [only] = group {
        let mut tx = Lazy { connection: &mut *connection, begun: false };
        let ok = only.run(&mut tx);
        match tx.begun {
            true => (true, connection.batch(if ok { "COMMIT" } else { "ROLLBACK" })),
            false => (false, Ok(())),
        }
    } else {
        connection.batch("BEGIN")?;
        (true, run_in_savepoints(connection, group).and_then(|()| connection.batch("COMMIT")))
    };
    if begun && result.is_err() {
        // Nothing of the group is stored; the connection must not stay inside the transaction.
        let _ = connection.batch("ROLLBACK");
    }
    result
}

/// A transaction that begins with its first statement: a request that needs none costs none.
struct Lazy<'a> {
    connection: &'a mut dyn Connection,
    begun: bool,
}

impl Lazy<'_> {
    fn begun(&mut self) -> Result<&mut dyn Connection, Error> {
        if !self.begun {
            self.connection.batch("BEGIN")?;
            self.begun = true;
        }
        Ok(self.connection)
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

    fn begin(&mut self) -> Result<(), Error> {
        self.begun().map(|_| ())
    }

    fn commits_of_others(&mut self) -> Result<Option<i64>, Error> {
        self.connection.commits_of_others()
    }

    fn dialect(&self) -> Dialect {
        self.connection.dialect()
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
