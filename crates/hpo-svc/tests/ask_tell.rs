//! Studies that their clients drive, over a real socket on a real database: what a client may rely on.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

mod support;

use std::path::Path;

use hpo_svc::{
    storage::{NewTrial, Store},
    study::State,
};
use jiff::Timestamp;
use quintet_proto::{
    optuna::{
        DeleteStudyRequest as DeleteStudyOfProxy, GetStudyIdFromNameRequest,
        storage_service_client::StorageServiceClient,
    },
    types,
    v1::{
        self, CreateStudyRequest, DeleteStudyRequest, EnqueueTrialsRequest, GetStudyRequest, ReportTrialRequest,
        StudySpec, SuggestTrialsRequest, TellTrialRequest, Trial, TrialState, hpo_service_client::HpoServiceClient,
        parameter::Domain,
    },
};
use runtime_core::{
    client::{Connection, connect},
    host::Host,
    server::ServerHandle,
    status::violations_of,
};
use tonic::Code;

type Client = HpoServiceClient<Connection>;

async fn serve(folder: &Path) -> (ServerHandle, Client) {
    let host = hpo_svc::mount(Host::open(support::config(folder)).await.unwrap()).await.unwrap();
    let server = host.start().await.unwrap();
    let client = HpoServiceClient::new(connect(&server.url(), None).unwrap());
    (server, client)
}

fn float(name: &str, low: f64, high: f64) -> v1::Parameter {
    let domain = Some(Domain::Float(v1::FloatDomain { low, high, log: false, step: None }));
    v1::Parameter { name: name.into(), domain, condition: None }
}

fn spec() -> StudySpec {
    StudySpec {
        search_space: vec![float("x", -1.0, 1.0), float("y", 0.0, 1.0)],
        objectives: vec![v1::Objective { metric: "loss".into(), direction: v1::Direction::Minimize.into() }],
        pruner: Some(v1::Pruner {
            kind: Some(v1::pruner::Kind::Median(v1::MedianPruner { n_startup_trials: Some(1), ..Default::default() })),
        }),
        ..StudySpec::default()
    }
}

async fn create(client: &mut Client, name: &str, spec: StudySpec) -> Result<v1::Study, tonic::Status> {
    let request = CreateStudyRequest { study_name: name.into(), spec: Some(spec) };
    client.create_study(request).await.map(tonic::Response::into_inner)
}

async fn suggest(client: &mut Client, client_id: &str, count: i32) -> Vec<Trial> {
    let request = SuggestTrialsRequest { study: "studies/s".into(), client_id: client_id.into(), count };
    client.suggest_trials(request).await.unwrap().into_inner().trials
}

fn complete(trial: &Trial, value: f64) -> TellTrialRequest {
    TellTrialRequest { name: trial.name.clone(), values: vec![value], ..TellTrialRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_its_open_trials_again_and_what_it_told_survives_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut client) = serve(folder.path()).await;
    let study = create(&mut client, "s", spec()).await.unwrap();
    assert_eq!((study.name.as_str(), study.trial_count), ("studies/s", 0));
    // The same again is the same study; a seed that was drawn is no difference.
    assert_eq!(create(&mut client, "s", spec()).await.unwrap(), study);
    let other = StudySpec { seed: Some(7), ..spec() };
    assert_eq!(create(&mut client, "s", other).await.unwrap_err().code(), Code::AlreadyExists);

    let first = suggest(&mut client, "one", 2).await;
    assert_eq!(first.iter().map(|t| t.number).collect::<Vec<_>>(), [0, 1]);
    let second = suggest(&mut client, "two", 1).await;
    assert_eq!((second[0].number, second[0].client_id.as_str()), (2, "two"));
    assert_eq!(suggest(&mut client, "one", 2).await, first, "asked again");
    let told = client.tell_trial(complete(&first[0], 0.5)).await.unwrap().into_inner();
    assert_eq!((told.state(), told.value), (TrialState::TrialComplete, Some(0.5)));
    let next = suggest(&mut client, "one", 2).await;
    assert_eq!(next.iter().map(|t| t.number).collect::<Vec<_>>(), [1, 3], "the open one and a new one");
    assert_eq!(suggest(&mut client, "", 1).await[0].number, 4);
    server.shutdown().await.unwrap();

    let (server, mut client) = serve(folder.path()).await;
    assert_eq!(suggest(&mut client, "one", 2).await, next, "also by the next server");
    // The answer to this was lost with the old one: told again, it is answered the same.
    assert_eq!(client.tell_trial(complete(&first[0], 0.5)).await.unwrap().into_inner(), told);
    let otherwise = client.tell_trial(complete(&first[0], 0.25)).await.unwrap_err();
    assert_eq!(otherwise.code(), Code::FailedPrecondition);
    assert!(otherwise.message().contains("trial 0 is COMPLETE"), "{otherwise}");
    let study = client.get_study(GetStudyRequest { name: "s".into() }).await.unwrap().into_inner();
    assert_eq!((study.trial_count, study.best.as_ref().unwrap().number), (5, 0));
    let listed = client.list_studies(v1::ListStudiesRequest::default()).await.unwrap().into_inner().studies;
    assert_eq!(listed, [study]);
    client.delete_study(DeleteStudyRequest { name: "studies/s".into() }).await.unwrap();
    let request = SuggestTrialsRequest { study: "studies/s".into(), ..Default::default() };
    assert_eq!(client.suggest_trials(request).await.unwrap_err().code(), Code::NotFound);
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_share_a_study_and_no_trial_is_handed_out_twice() {
    const CLIENTS: usize = 16;
    const TRIALS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let (server, mut client) = serve(folder.path()).await;
    create(&mut client, "s", spec()).await.unwrap();
    let parameters = |x: f64| types::Struct { fields: [("x".to_owned(), types::Value::from(x))].into() };
    let queue = EnqueueTrialsRequest {
        study: "s".into(),
        parameters: (0..8).map(|i| parameters(f64::from(i) / 8.0)).collect(),
    };
    let queued = client.enqueue_trials(queue).await.unwrap().into_inner().trials;
    assert!(queued.iter().all(|trial| trial.state() == TrialState::TrialWaiting));
    let work = (0..CLIENTS).map(|index| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..TRIALS {
                let trial = suggest(&mut client, &format!("worker-{index}"), 1).await.remove(0);
                client.tell_trial(complete(&trial, f64::from(trial.number))).await.unwrap();
                numbers.push(trial.number);
            }
            numbers
        })
    });
    let mut numbers: Vec<i32> = futures::future::try_join_all(work).await.unwrap().into_iter().flatten().collect();
    numbers.sort_unstable();
    assert_eq!(
        numbers,
        (0..(CLIENTS * TRIALS) as i32).collect::<Vec<_>>(),
        "dense, each once, the queued ones among them"
    );
    let store = Store::open(&format!("sqlite://{}", folder.path().join("data/hpo.db").display())).unwrap();
    let study = store.find_study("s").await.unwrap().unwrap();
    let trials = store.trials(study.id).await.unwrap();
    let xs: Vec<f64> = trials[..8].iter().map(|trial| trial.params[0].value).collect();
    assert_eq!(xs, (0..8).map(|i| f64::from(i) / 8.0).collect::<Vec<_>>());
    assert!(trials.iter().all(|trial| trial.state == State::Complete && trial.values == [trial.number as f64]));
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_judged_and_bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut client) = serve(folder.path()).await;
    create(&mut client, "s", spec()).await.unwrap();
    let [good, bad] = &suggest(&mut client, "", 2).await[..] else { panic!("two") };
    let report = |trial: &Trial, value: f64| ReportTrialRequest { name: trial.name.clone(), step: 1, value };
    assert!(!client.report_trial(report(good, 0.5)).await.unwrap().into_inner().should_prune);
    client.tell_trial(complete(good, 0.5)).await.unwrap();
    assert!(client.report_trial(report(bad, 0.9)).await.unwrap().into_inner().should_prune);
    // A step keeps its first value.
    assert!(client.report_trial(report(bad, 0.1)).await.unwrap().into_inner().should_prune);
    let late = client.report_trial(report(good, 0.1)).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);

    let fields = |status: tonic::Status| -> Vec<String> {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        violations_of(&status).into_iter().map(|(field, _)| field).collect()
    };
    let negative = ReportTrialRequest { step: -1, ..report(bad, 0.1) };
    assert_eq!(fields(client.report_trial(negative).await.unwrap_err()), ["step"]);
    let nan = client.tell_trial(complete(bad, f64::NAN)).await.unwrap_err();
    assert_eq!(fields(nan), ["values[0]"]);
    let two = TellTrialRequest { values: vec![1.0, 2.0], ..complete(bad, 0.0) };
    assert_eq!(fields(client.tell_trial(two).await.unwrap_err()), ["values"]);
    let waiting = TellTrialRequest { state: TrialState::TrialWaiting.into(), ..complete(bad, 0.0) };
    assert_eq!(fields(client.tell_trial(waiting).await.unwrap_err())[0], "state");
    let nowhere = TellTrialRequest { name: "s/1".into(), ..complete(bad, 0.0) };
    assert_eq!(fields(client.tell_trial(nowhere).await.unwrap_err()), ["name"]);
    let unknown = TellTrialRequest { name: "studies/s/trials/9".into(), ..complete(bad, 0.0) };
    assert_eq!(client.tell_trial(unknown).await.unwrap_err().code(), Code::NotFound);

    let pruned = TellTrialRequest {
        state: TrialState::TrialPruned.into(),
        values: vec![],
        constraints: [("latency".to_owned(), 0.25)].into(),
        ..complete(bad, 0.0)
    };
    let told = client.tell_trial(pruned).await.unwrap().into_inner();
    assert_eq!((told.state(), told.value, told.constraints["latency"]), (TrialState::TrialPruned, Some(0.9), 0.25));
    let infeasible = suggest(&mut client, "", 1).await.remove(0);
    let reason = TellTrialRequest {
        state: TrialState::TrialFail.into(),
        values: vec![],
        error: "does not fit into memory".into(),
        ..complete(&infeasible, 0.0)
    };
    assert_eq!(client.tell_trial(reason).await.unwrap().into_inner().error, "does not fit into memory");

    let wrong = StudySpec { search_space: vec![float("x", 1.0, 0.0)], objectives: vec![], ..StudySpec::default() };
    let status = create(&mut client, "a/b", wrong).await.unwrap_err();
    assert_eq!(fields(status), ["study_name", "spec.search_space[0].float.low", "spec.objectives"]);
    let outside = types::Struct { fields: [("x".to_owned(), types::Value::from(7.0))].into() };
    let request = EnqueueTrialsRequest { study: "s".into(), parameters: vec![outside] };
    assert_eq!(fields(client.enqueue_trials(request).await.unwrap_err()), ["parameters[0]"]);
    let many = SuggestTrialsRequest { study: "s".into(), count: 1001, ..Default::default() };
    assert_eq!(fields(client.suggest_trials(many).await.unwrap_err()), ["count"]);

    // A study that an Optuna program or a sweep drives has no specification of ours.
    let store = Store::open(&format!("sqlite://{}", folder.path().join("data/hpo.db").display())).unwrap();
    let directions = [hpo_svc::study::Direction::Minimize];
    let theirs = store.create_study("theirs", &directions, Default::default(), Default::default()).await.unwrap();
    store.create_trial(theirs.id, NewTrial::default(), Timestamp::now()).await.unwrap();
    let request = SuggestTrialsRequest { study: "theirs".into(), ..Default::default() };
    assert_eq!(client.suggest_trials(request).await.unwrap_err().code(), Code::FailedPrecondition);
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_answer_was_lost_is_answered_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut client) = serve(folder.path()).await;
    let halving =
        v1::SuccessiveHalvingPruner { min_resource: Some(1), reduction_factor: Some(2), ..Default::default() };
    let hyperband =
        v1::HyperbandPruner { max_resource: Some(1), reduction_factor: Some(2), ..v1::HyperbandPruner::default() };
    for (name, kind) in [
        ("halving", v1::pruner::Kind::SuccessiveHalving(halving)),
        ("hyperband", v1::pruner::Kind::Hyperband(hyperband)),
    ] {
        create(&mut client, name, StudySpec { pruner: Some(v1::Pruner { kind: Some(kind) }), ..spec() }).await.unwrap();
        let request = SuggestTrialsRequest { study: name.into(), count: 2, ..Default::default() };
        let trials = client.suggest_trials(request).await.unwrap().into_inner().trials;
        for (trial, value, stops) in [(&trials[0], 0.5, false), (&trials[1], 0.9, true)] {
            for _ in 0..3 {
                let report = ReportTrialRequest { name: trial.name.clone(), step: 1, value };
                assert_eq!(client.report_trial(report).await.unwrap().into_inner().should_prune, stops, "{name}");
            }
        }
    }
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_begins_with_the_best_of_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut client) = serve(folder.path()).await;
    create(&mut client, "s", spec()).await.unwrap();
    for trial in suggest(&mut client, "c", 6).await {
        let x = trial.parameters.as_ref().unwrap().fields["x"].clone();
        let Some(types::value::Kind::NumberValue(x)) = x.kind else { panic!("{x:?}") };
        client.tell_trial(complete(&trial, x * x)).await.unwrap();
    }
    let best = client.get_study(GetStudyRequest { name: "s".into() }).await.unwrap().into_inner().best.unwrap();
    let wish = |studies: &[&str]| {
        Some(v1::Transfer { studies: studies.iter().map(|name| (*name).to_owned()).collect(), n_trials: Some(2) })
    };
    let wrong = StudySpec { transfer: wish(&["none", "s"]), ..spec() };
    let error = create(&mut client, "next", wrong).await.unwrap_err();
    let told = violations_of(&error);
    assert_eq!(told, [("spec.transfer.studies[0]".to_owned(), "study `none` does not exist".to_owned())]);
    // What the new space does not have is left out, and what it has more is sampled.
    let next =
        StudySpec { search_space: vec![float("x", -1.0, 1.0), float("z", 0.0, 1.0)], transfer: wish(&["s"]), ..spec() };
    let made = create(&mut client, "next", next.clone()).await.unwrap();
    assert_eq!((made.trial_count, made.trials_by_state["WAITING"]), (2, 2));
    assert_eq!(create(&mut client, "next", next).await.unwrap().trial_count, 2, "once");
    let request = SuggestTrialsRequest { study: "studies/next".into(), client_id: "c".into(), count: 3 };
    let trials = client.suggest_trials(request).await.unwrap().into_inner().trials;
    let value = |trial: &Trial, name: &str| trial.parameters.as_ref().unwrap().fields.get(name).cloned();
    assert_eq!(value(&trials[0], "x"), value(&best, "x"));
    assert!(value(&trials[0], "y").is_none() && value(&trials[0], "z").is_some());
    assert_eq!(trials.iter().map(|t| t.number).collect::<Vec<_>>(), [0, 1, 2]);
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_that_was_made_again_elsewhere_is_found_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut client) = serve(folder.path()).await;
    let mut proxy = StorageServiceClient::new(connect(&server.url(), None).unwrap());
    let mut delete = async || {
        let request = GetStudyIdFromNameRequest { study_name: "s".into() };
        let study_id = proxy.get_study_id_from_name(request).await.unwrap().into_inner().study_id;
        proxy.delete_study(DeleteStudyOfProxy { study_id }).await.unwrap();
    };
    create(&mut client, "s", spec()).await.unwrap();
    let first = suggest(&mut client, "c", 2).await;
    client.tell_trial(complete(&first[0], 0.5)).await.unwrap();
    delete().await;
    create(&mut client, "s", spec()).await.unwrap();
    let again = suggest(&mut client, "c", 2).await;
    assert_eq!(again.iter().map(|trial| trial.number).collect::<Vec<_>>(), [0, 1]);
    assert!(again.iter().all(|trial| trial.state() == TrialState::TrialRunning));

    delete().await;
    create(&mut client, "s", spec()).await.unwrap();
    let parameters = types::Struct { fields: [("x".to_owned(), types::Value::from(0.25))].into() };
    let request = EnqueueTrialsRequest { study: "s".into(), parameters: vec![parameters] };
    assert_eq!(client.enqueue_trials(request.clone()).await.unwrap().into_inner().trials[0].number, 0);
    // A trial of the study that is gone is not one of the new one.
    delete().await;
    create(&mut client, "s", spec()).await.unwrap();
    let told = client.tell_trial(complete(&again[1], 0.5)).await.unwrap_err();
    assert!(told.code() == Code::NotFound && told.message().contains("trial"), "{told}");
    delete().await;
    create(&mut client, "s", spec()).await.unwrap();
    let report = ReportTrialRequest { name: again[1].name.clone(), step: 1, value: 0.5 };
    let told = client.report_trial(report).await.unwrap_err();
    assert!(told.code() == Code::NotFound && told.message().contains("trial"), "{told}");
    delete().await;
    let gone = client.enqueue_trials(request).await.unwrap_err();
    assert!(gone.code() == Code::NotFound && gone.message().contains("study `s`"), "{gone}");
    server.shutdown().await.unwrap();
}
