//! Many clients suggest and tell while the server is killed again and again: what was acknowledged is there, numbers are dense.
//!
//! `QUINTET_TEST_CLIENTS=64 QUINTET_TEST_SECONDS=300 QUINTET_TEST_PAUSE=30 cargo test --workspace --test hpo_kills -- --nocapture` does it
//! for longer (nextest ends a test after five minutes), with so many seconds between a start and the next kill.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hpo_svc::{storage::Store, study::State};
use quintet_proto::v1::{
    CreateStudyRequest, Direction, FloatDomain, Objective, Parameter, StudySpec, SuggestTrialsRequest,
    TellTrialRequest, Trial, hpo_service_client::HpoServiceClient, parameter::Domain,
};
use quintet_tests::sandbox::Sandbox;
use runtime_core::client::Connection;
use tokio::time::sleep;
use tonic::Code;

fn setting(name: &str, default: f64) -> f64 {
    let text = std::env::var(format!("QUINTET_TEST_{name}"));
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("QUINTET_TEST_{name}: {text:?}")))
}

/// Asks until the server, which may be away, has answered.
async fn patiently<T, F>(deadline: Instant, mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, tonic::Status>>,
{
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(status) => {
                let away =
                    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
                assert!(away && Instant::now() < deadline, "{status:?}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

type Client = HpoServiceClient<Connection>;

async fn ask(mut client: Client, request: SuggestTrialsRequest) -> Result<Vec<Trial>, tonic::Status> {
    Ok(client.suggest_trials(request).await?.into_inner().trials)
}

async fn answer(mut client: Client, request: TellTrialRequest) -> Result<(), tonic::Status> {
    client.tell_trial(request).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_tell_is_there_after_kills() {
    let clients = setting("CLIENTS", 12.0) as usize;
    let (seconds, pause) = (setting("SECONDS", 6.0), setting("PAUSE", 1.5));
    let mut sandbox = Sandbox::new().unwrap().args(["--services", "hpo"]);
    sandbox.start().unwrap();
    let parameter = |name: &str| Parameter {
        name: name.into(),
        domain: Some(Domain::Float(FloatDomain { low: 0.0, high: 1.0, log: false, step: None })),
        condition: None,
    };
    let spec = StudySpec {
        search_space: vec![parameter("x"), parameter("y")],
        objectives: vec![Objective { metric: "loss".into(), direction: Direction::Minimize.into() }],
        ..StudySpec::default()
    };
    let request = CreateStudyRequest { study_name: "s".into(), spec: Some(spec) };
    HpoServiceClient::new(sandbox.connection().unwrap()).create_study(request).await.unwrap();

    let start = Instant::now();
    let (end, deadline) = (start + Duration::from_secs_f64(seconds), start + Duration::from_secs_f64(seconds + 60.0));
    // The address stays the same, so one connection finds every server.
    let work = (0..clients).map(|index| {
        let client = HpoServiceClient::new(sandbox.connection().unwrap());
        tokio::spawn(async move {
            let (mut told, mut number) = (BTreeMap::new(), 0);
            while Instant::now() < end {
                let suggest =
                    SuggestTrialsRequest { study: "s".into(), client_id: format!("client-{index}"), count: 1 };
                let mut trials = patiently(deadline, || ask(client.clone(), suggest.clone())).await;
                let trial = trials.remove(0);
                let value = (index * 1_000_000 + number) as f64;
                number += 1;
                let tell = TellTrialRequest { name: trial.name, values: vec![value], ..TellTrialRequest::default() };
                patiently(deadline, || answer(client.clone(), tell.clone())).await;
                assert_eq!(told.insert(i64::from(trial.number), value), None, "handed out twice to one client");
            }
            told
        })
    });
    let work = futures::future::join_all(work.collect::<Vec<_>>());
    let killing = async {
        let mut kills = 0;
        while Instant::now() + Duration::from_secs_f64(pause) < end {
            sleep(Duration::from_secs_f64(pause)).await;
            tokio::task::block_in_place(|| {
                sandbox.kill().unwrap();
                sandbox.start().unwrap();
            });
            kills += 1;
        }
        kills
    };
    let (told, kills) = futures::join!(work, killing);
    sandbox.terminate().unwrap();

    let store = Store::open(&sandbox.database("hpo")).unwrap();
    let study = store.find_study("s").await.unwrap().unwrap();
    let trials = store.trials(study.id).await.unwrap();
    assert!(trials.iter().map(|trial| trial.number).eq(0..trials.len() as i64), "numbers are dense");
    let mut acknowledged = 0;
    for told in told {
        for (number, value) in told.unwrap() {
            let trial = &trials[usize::try_from(number).unwrap()];
            assert_eq!((trial.state, &trial.values[..]), (State::Complete, &[value][..]), "trial {number}");
            acknowledged += 1;
        }
    }
    let complete = trials.iter().filter(|trial| trial.state == State::Complete).count();
    println!("{acknowledged} tells of {clients} clients, {kills} kills");
    assert_eq!(complete, acknowledged, "a trial that nobody told is not complete");
    assert!(trials.len() - complete <= clients, "at most one open trial a client");
    assert!(kills >= 2 && acknowledged > clients, "{kills} kills, {acknowledged} tells");
}
