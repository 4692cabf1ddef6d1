//! What is in the store: under load, after a restart, and when it cannot have happened.

use std::path::Path;

use prost::Message as _;
use quintet_proto::v1::{Job, JobState, StreamLogsRequest, job_event::Event};
use quintet_tests::{
    history::History,
    load::{self, Load},
};
use runtime_core::{
    db::{self, Db, testing::PostgresServer},
    jobs::store,
};

use crate::house::{House, job, states, succeeded};

#[tokio::test(flavor = "multi_thread")]
async fn eight_clients_and_eight_workers_lose_and_double_nothing() {
    let server = tokio::task::block_in_place(PostgresServer::start).unwrap();
    for (database, load) in [
        (None, Load { jobs: 400, claim: 1, pace: None }),
        (None, Load { jobs: 300, claim: 16, pace: Some(600.0) }),
        (Some(server.database().unwrap()), Load { jobs: 400, claim: 16, pace: None }),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let house = House::open(folder.path(), database.as_deref()).await;
        let outcomes = load::run(&house.handle.url(), load).await.unwrap();
        assert_eq!(outcomes.starts.len(), load.jobs);
        house.handle.shutdown().await.unwrap();
        load::check_store(&house.store, load.jobs).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again_goes_on_where_it_was() {
    let server = tokio::task::block_in_place(PostgresServer::start).unwrap();
    for database in [None, Some(server.database().unwrap())] {
        let folder = tempfile::tempdir().unwrap();
        let house = House::open(folder.path(), database.as_deref()).await;
        let queued = house.create(job("queued")).await;
        let running = house.claim_one().await;
        let waiting = house.create(job("waiting")).await;
        assert_eq!(running.name, queued.name);
        house.beat(&running, b"before", 0).await.unwrap();
        house.handle.shutdown().await.unwrap();

        let house = House::open(folder.path(), database.as_deref()).await;
        // The lease of a worker that is elsewhere goes on, and so does its log.
        house.beat(&running, b" and after", 6).await.unwrap();
        assert_eq!(house.finish(&running, succeeded()).await.unwrap().state(), JobState::Succeeded);
        assert_eq!(house.claim_one().await.name, waiting.name);
        let events = house.watch(&queued.name, queued.revision).await;
        assert_eq!(states(&events), [JobState::Running, JobState::Succeeded]);
        let request = StreamLogsRequest { name: queued.name, ..StreamLogsRequest::default() };
        let mut stream = house.jobs.clone().stream_logs(request).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            text.extend(chunk.data);
        }
        assert_eq!(String::from_utf8(text).unwrap(), "before and after");
        house.handle.shutdown().await.unwrap();
        History::check(&house.store).await.unwrap();
    }
}

/// A store with one job that was created, claimed and finished, and a handle on its database.
async fn finished_store(folder: &Path) -> (String, Db) {
    let house = House::open(folder, None).await;
    house.create(job("checked")).await;
    let claimed = house.claim_one().await;
    house.finish(&claimed, succeeded()).await.unwrap();
    house.handle.shutdown().await.unwrap();
    History::check(&house.store).await.unwrap();
    let db = Db::open(&house.store, store::MIGRATIONS).unwrap();
    (house.store, db)
}

/// The checker itself: a history that cannot have happened is found.
#[tokio::test(flavor = "multi_thread")]
async fn the_checker_of_histories_finds_what_cannot_be() {
    for (damage, told) in [
        ("DELETE FROM events WHERE revision = 2", "revision 3 follows 1"),
        ("UPDATE jobs SET state = 6", "the row says state 6"),
        ("DELETE FROM jobs", "has no row"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (url, db) = finished_store(folder.path()).await;
        db.write(move |tx| tx.execute(damage, &[])).await.unwrap_or_else(|e: db::Error| panic!("{e}"));
        let error = format!("{:#}", History::check(&url).await.unwrap_err());
        assert!(error.contains(told), "{damage}: {error}");
    }
    type Change = fn(&mut Job);
    let changes: [(i64, Change, &str); 4] = [
        (2, |job| job.set_state(JobState::Succeeded), "SUCCEEDED after QUEUED"),
        (2, |job| job.set_state(JobState::Finalizing), "FINALIZING after QUEUED"),
        (3, |job| job.attempt = 2, "attempt 2 where 1 was due"),
        (3, |job| job.revision = 2, "the job says revision 2"),
    ];
    for (revision, change, told) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (url, db) = finished_store(folder.path()).await;
        let mut event = store::events(&db, None, revision - 1, 1).await.unwrap().remove(0);
        if let Some(Event::Transition(job)) = &mut event.event {
            change(job);
        }
        let body = event.encode_to_vec();
        let changed = db.write(move |tx| {
            tx.execute("UPDATE events SET body = $1 WHERE revision = $2", &[body.into(), revision.into()])
        });
        changed.await.unwrap_or_else(|e: db::Error| panic!("{e}"));
        let error = format!("{:#}", History::check(&url).await.unwrap_err());
        assert!(error.contains(told), "{told}: {error}");
    }
}
