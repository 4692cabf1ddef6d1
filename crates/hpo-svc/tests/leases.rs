//! Optuna clients that go away, over real connections: whose trials fail, after how long, and whose do not.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::time::{Duration, Instant};

use hpo_svc::{
    optuna::{OptunaStorage, Patience},
    storage::{Attributes, NewTrial, Store},
    study::{Direction, State},
};
use jiff::Timestamp;
use quintet_proto::optuna::{
    CreateNewTrialRequest, SetTrialIntermediateValueRequest, SetTrialParameterRequest, SetTrialStateValuesRequest,
    SetTrialUserAttributeRequest, Trial, TrialState, storage_service_client::StorageServiceClient,
};
use runtime_core::{
    client::{Connection, connect},
    server::{Server, ServerHandle, ServerOptions},
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);

struct Served {
    server: ServerHandle,
    store: Store,
    study: i64,
    _folder: tempfile::TempDir,
}

async fn serve(patience: Patience) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}", folder.path().join("studies.db").display())).unwrap();
    let none = Attributes::new;
    let study = store.create_study("s", &[Direction::Minimize], none(), none()).await.unwrap().id;
    let server = start(&store, patience).await;
    Served { server, store, study, _folder: folder }
}

async fn start(store: &Store, patience: Patience) -> ServerHandle {
    let storage = OptunaStorage::new(store.clone(), patience);
    let server = Server::builder(ServerOptions::default());
    let left_behind = storage.clone().free_left_behind(server.drain());
    let left_behind = async move {
        left_behind.await;
        Ok(())
    };
    server.service(storage.into_service()).task("left behind", left_behind).start().await.unwrap()
}

impl Served {
    /// A client with a connection of its own, which ends when it is dropped.
    fn client(&self) -> Client {
        Client { stub: StorageServiceClient::new(connect(&self.server.url(), None).unwrap()), study: self.study }
    }

    async fn state(&self, trial: i64) -> State {
        self.store.trial(trial).await.unwrap().state
    }

    /// Waits until a trial has failed.
    async fn fails(&self, trial: i64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.state(trial).await != State::Fail {
            assert!(Instant::now() < deadline, "trial {trial} is still {}", self.state(trial).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whatever a client's end before now brings has been brought: one that ends now has lost its trial.
    async fn others_fail(&self) {
        let mut client = self.client();
        let trial = client.create(None).await;
        drop(client);
        self.fails(trial).await;
    }
}

struct Client {
    stub: StorageServiceClient<Connection>,
    study: i64,
}

impl Client {
    async fn create(&mut self, template: Option<TrialState>) -> i64 {
        let template_trial = template.map(|state| Trial { state: state.into(), ..Trial::default() });
        let template_trial_is_none = template_trial.is_none();
        let request = CreateNewTrialRequest { study_id: self.study, template_trial, template_trial_is_none };
        self.stub.create_new_trial(request).await.unwrap().into_inner().trial_id
    }

    async fn report(&mut self, trial_id: i64) {
        let request = SetTrialIntermediateValueRequest { trial_id, step: 1, intermediate_value: f64::NAN };
        self.stub.set_trial_intermediate_value(request).await.unwrap();
    }

    async fn suggest(&mut self, trial_id: i64) {
        let distribution =
            r#"{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}"#;
        let request = SetTrialParameterRequest {
            trial_id,
            param_name: "x".into(),
            param_value_internal: 0.5,
            distribution: distribution.into(),
        };
        self.stub.set_trial_parameter(request).await.unwrap();
    }

    async fn note(&mut self, trial_id: i64) {
        let request = SetTrialUserAttributeRequest { trial_id, key: "k".into(), value: "1".into() };
        self.stub.set_trial_user_attribute(request).await.unwrap();
    }

    async fn set_state(&mut self, trial_id: i64, state: TrialState) {
        let request = SetTrialStateValuesRequest { trial_id, state: state.into(), values: Vec::new() };
        assert!(self.stub.set_trial_state_values(request).await.unwrap().into_inner().trial_updated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_trial_is_nobodys() {
    let served = serve(Patience { lost: SHORT, idle: LONG, idle_after: LONG }).await;
    let mut client = served.client();
    let [queued, returned] = [client.create(Some(TrialState::Waiting)).await, client.create(None).await];
    let running = client.create(None).await;
    client.suggest(queued).await;
    client.report(queued).await;
    client.note(queued).await;
    client.set_state(returned, TrialState::Waiting).await;
    client.report(returned).await;
    drop(client);
    served.fails(running).await;
    served.others_fail().await;
    for trial in [queued, returned] {
        assert_eq!(served.state(trial).await, State::Waiting);
    }
    // Whoever claims one holds it.
    let mut client = served.client();
    client.set_state(queued, TrialState::Running).await;
    drop(client);
    served.fails(queued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_trial_that_is_only_copied_is_nobodys() {
    let served = serve(Patience { lost: SHORT, idle: LONG, idle_after: LONG }).await;
    let mut client = served.client();
    let running = || Some(TrialState::Running);
    let copied = client.create(running()).await;
    let [reported, suggested] = [client.create(running()).await, client.create(running()).await];
    client.note(copied).await;
    assert!(served.store.leased().await.unwrap().is_empty());
    // Whoever writes what only its worker does goes on with it, also for the next server.
    client.report(reported).await;
    client.suggest(suggested).await;
    assert_eq!(served.store.leased().await.unwrap(), [reported, suggested]);
    drop(client);
    served.fails(reported).await;
    served.fails(suggested).await;
    served.others_fail().await;
    assert_eq!(served.state(copied).await, State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_a_trial_holds_it_when_a_helper_that_reported_ends() {
    let served = serve(Patience { lost: SHORT, idle: LONG, idle_after: LONG }).await;
    let [mut asked, mut helper] = [served.client(), served.client()];
    let [trial, given_up] = [asked.create(None).await, asked.create(None).await];
    helper.report(trial).await;
    helper.suggest(given_up).await;
    drop(helper);
    served.others_fail().await;
    assert_eq!((served.state(trial).await, served.state(given_up).await), (State::Running, State::Running));
    asked.set_state(trial, TrialState::Complete).await;
    drop(asked);
    served.fails(given_up).await;
    // A holder that is idle for ever is not one that has died, whatever becomes of the others.
    let forever = serve(Patience { lost: SHORT, idle: Duration::ZERO, idle_after: Duration::from_millis(100) }).await;
    let [mut asked, mut helper] = [forever.client(), forever.client()];
    let trial = asked.create(None).await;
    helper.report(trial).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    drop(helper);
    asked.note(trial).await;
    drop(asked);
    forever.others_fail().await;
    assert_eq!(forever.state(trial).await, State::Running);

    // A helper that goes on when nobody else is left holds it alone.
    let [mut asked, mut helper] = [served.client(), served.client()];
    let trial = asked.create(None).await;
    helper.report(trial).await;
    drop(asked);
    served.others_fail().await;
    assert_eq!(served.state(trial).await, State::Running);
    drop(helper);
    served.fails(trial).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_idle_is_not_a_client_that_died() {
    let idle_after = Duration::from_secs(2);
    let served = serve(Patience { lost: SHORT, idle: LONG, idle_after }).await;
    let mut client = served.client();
    let [first, second, third] = [client.create(None).await, client.create(None).await, client.create(None).await];
    tokio::time::sleep(idle_after + Duration::from_millis(10)).await;
    drop(client);
    served.others_fail().await;
    for trial in [first, second, third] {
        assert_eq!(served.state(trial).await, State::Running);
    }
    // The client comes back for two of them, and then it dies.
    let mut client = served.client();
    client.report(first).await;
    client.note(second).await;
    drop(client);
    served.fails(first).await;
    served.fails(second).await;
    served.others_fail().await;
    assert_eq!(served.state(third).await, State::Running);

    let served = serve(Patience { lost: LONG, idle: SHORT, idle_after }).await;
    let mut client = served.client();
    let trial = client.create(None).await;
    tokio::time::sleep(idle_after + Duration::from_millis(10)).await;
    drop(client);
    served.fails(trial).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_died_with_the_server_before_holds_nothing_for_ever() {
    let served = serve(Patience { lost: LONG, idle: LONG, idle_after: LONG }).await;
    let mut client = served.client();
    let [gone, returned, given_back] =
        [client.create(None).await, client.create(None).await, client.create(None).await];
    let claimed = client.create(Some(TrialState::Waiting)).await;
    client.set_state(claimed, TrialState::Running).await;
    client.report(claimed).await;
    // One that no client of the proxy has begun.
    let other = served.store.create_trial(served.study, NewTrial::default(), Timestamp::now()).await.unwrap().id;
    let Served { server, store, study, _folder } = served;
    server.shutdown().await.unwrap();

    let idle = Duration::from_secs(2);
    let server = start(&store, Patience { lost: LONG, idle, idle_after: LONG }).await;
    let served = Served { server, store, study, _folder };
    let mut client = served.client();
    client.note(returned).await;
    client.set_state(given_back, TrialState::Waiting).await;
    assert_eq!(served.state(gone).await, State::Running);
    served.fails(gone).await;
    served.fails(claimed).await;
    assert_eq!(served.state(returned).await, State::Running, "its client has come back");
    // Until the next server.
    let server = start(&served.store, Patience { lost: LONG, idle: SHORT, idle_after: LONG }).await;
    served.fails(returned).await;
    assert_eq!((served.state(other).await, served.state(given_back).await), (State::Running, State::Waiting));
    server.shutdown().await.unwrap();
}
