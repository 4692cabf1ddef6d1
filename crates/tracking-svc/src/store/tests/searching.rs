//! Searches: filters, orders and pages.

use super::*;

fn search(experiments: &[i64], filter: &str, order: &[&str]) -> RunSearch {
    RunSearch {
        experiment_ids: experiments.to_vec(),
        filter: filter.into(),
        view: ViewType::ActiveOnly,
        max_results: 1000,
        order_by: order.iter().map(|key| (*key).to_owned()).collect(),
        page_token: None,
    }
}

/// The names of the runs that are found, in their order.
async fn found(store: &Store, search: RunSearch) -> String {
    let page = store.search_runs(search).await.unwrap();
    page.items.iter().map(|run| run.info.run_name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Five runs `a` to `e` with start times 1 to 5, in the experiments 0 and `second`.
async fn five_runs(store: &Store) -> i64 {
    let second = store.ensure_experiment("second".into()).await.unwrap().experiment_id;
    for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let run = NewRun {
            run_id: Some(format!("{name}{name}")),
            run_name: Some(name.into()),
            experiment_id: if name == "e" { second } else { 0 },
            user_id: if index % 2 == 0 { "Even".into() } else { "odd_%".into() },
            start_time: index as i64 + 1,
            ..NewRun::default()
        };
        store.create_run(run).await.unwrap();
    }
    for (run, points) in [
        ("aa", &[("loss", 0.5, 1), ("val loss", 1.0, 0)][..]),
        ("bb", &[("loss", 0.1, 1)]),
        ("cc", &[("loss", f64::NAN, 1)]),
        ("ee", &[("loss", f64::NEG_INFINITY, 1), ("loss", 9.0, 0)]),
    ] {
        log(store, run, points).await;
    }
    for (run, key, value) in [
        ("aa", "model", "BERT-base"),
        ("bb", "model", "bert_large"),
        ("cc", "model", "Z*[x]?"),
        ("aa", "n", "10"),
        ("bb", "n", "9"),
        ("ee", "n", "é"),
    ] {
        param(store, run, key, value).await.unwrap();
    }
    tag(store, "aa", "stage", "it''s").await;
    tag(store, "bb", "stage", "x").await;
    let update = RunUpdate { status: Some(RunStatus::Finished), end_time: Some(100), run_name: None };
    store.update_run("bb".into(), update).await.unwrap();
    second
}

pub(super) async fn filters(store: Store) {
    let second = five_runs(&store).await;
    let both = [0, second, 404];
    for (filter, expected) in [
        ("", "e d c b a"),
        ("metrics.loss < 0.5", "e b"),
        ("metrics.loss <= .5 AND metrics.loss > -1", "b a"),
        ("metrics.loss != 0.5", "e c b"),
        ("metrics.loss = 0.1 and", "b"),
        ("metrics.`val loss` >= 1", "a"),
        ("metrics.never > 0", ""),
        ("params.model LIKE 'BERT%'", "a"),
        ("params.model LIKE 'bert__arge'", "b"),
        ("params.model ILIKE 'bert%'", "b a"),
        ("params.model LIKE 'Z*[x]?'", "c"),
        ("params.model LIKE 'Z%[x]_'", "c"),
        ("params.model LIKE '%?%'", "c"),
        ("params.model != 'bert_large'", "c a"),
        ("params.model IS NULL", "e d"),
        ("tags.stage IS NOT NULL AND params.n = '9'", "b"),
        ("tags.stage = \"it''s\"", "a"),
        ("tags.mlflow.runName = 'd'", "d"),
        ("run_name = 'd'", "d"),
        ("attributes.`Run name` ILIKE 'D'", "d"),
        ("run_id IN ('aa', 'cc', 'zz')", "c a"),
        ("run_id NOT IN ('aa', 'cc', 'zz')", "e d b"),
        ("user_id LIKE 'odd_%'", "d b"),
        ("user_id = 'Even' AND start_time > 1", "e c"),
        ("status = 'FINISHED'", "b"),
        ("status != 'FINISHED' AND start_time <= 3", "c a"),
        ("end_time > 99.5", "b"),
        ("artifact_uri LIKE '%/ee/artifacts'", "e"),
        ("dataset.name = 'x'", ""),
        ("params.n > 'x'", "error"),
        ("attributes.lifecycle_stage = 'active'", "error"),
    ] {
        match store.search_runs(search(&both, filter, &[])).await {
            Ok(page) => {
                let names: Vec<&str> = page.items.iter().map(|run| run.info.run_name.as_str()).collect();
                assert_eq!(names.join(" "), expected, "{filter}");
            }
            Err(error) => assert!(matches!(error, Error::Invalid { .. }) && expected == "error", "{filter}: {error}"),
        }
    }
    assert_eq!(found(&store, search(&[0], "", &[])).await, "d c b a");
    assert_eq!(found(&store, search(&[], "", &[])).await, "");
    assert_eq!(found(&store, search(&[404], "", &[])).await, "");

    // The rows come with all that they hold.
    let page = store.search_runs(search(&[0], "run_id = 'aa'", &[])).await.unwrap();
    assert_eq!(page.items[0], store.run("aa".into()).await.unwrap());

    store.set_run_lifecycle("cc".into(), Lifecycle::Deleted).await.unwrap();
    let view = |view| RunSearch { view, ..search(&[0], "", &[]) };
    assert_eq!(found(&store, view(ViewType::ActiveOnly)).await, "d b a");
    assert_eq!(found(&store, view(ViewType::DeletedOnly)).await, "c");
    assert_eq!(found(&store, view(ViewType::All)).await, "d c b a");
}

pub(super) async fn orders_and_pages(store: Store) {
    let second = five_runs(&store).await;
    let both = [0, second];
    for (order, expected) in [
        // Missing last in both directions, NaN just before.
        (&["metrics.loss"][..], "e b a c d"),
        (&["metrics.loss DESC"], "a b e c d"),
        (&["params.n asc"], "a b e d c"),
        (&["params.n DESC"], "e b a d c"),
        (&["tags.stage DESC", "start_time ASC"], "b a c d e"),
        (&["end_time", "metrics.loss"], "b e a c d"),
        (&["end_time DESC", "attributes.start_time"], "b a c d e"),
        (&["user_id", "run_id DESC"], "e c a d b"),
        (&["status DESC", "created"], "a c d e b"),
    ] {
        assert_eq!(found(&store, search(&both, "", order)).await, expected, "{order:?}");
    }
    let mut token = None;
    let mut pages = Vec::new();
    loop {
        let page = RunSearch { max_results: 2, page_token: token, ..search(&both, "", &["metrics.loss"]) };
        let page = store.search_runs(page).await.unwrap();
        pages.push(page.items.iter().map(|run| run.info.run_name.clone()).collect::<String>());
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, ["eb", "ac", "d"]);
    for max_results in [0, -1, 50_001] {
        let result = store.search_runs(RunSearch { max_results, ..search(&both, "", &[]) }).await;
        assert!(matches!(result, Err(Error::Invalid { ref field, .. }) if field == "max_results"));
    }
    let token = RunSearch { page_token: Some("garbage".into()), ..search(&both, "", &[]) };
    assert!(matches!(store.search_runs(token).await, Err(Error::Invalid { ref field, .. }) if field == "page_token"));
    assert!(store.search_runs(search(&both, "", &["metrics.a", "metric.a"])).await.is_err());
    // As many keys and comparisons as are allowed.
    let orders: Vec<String> = (0..30).map(|i| format!("metrics.m{i}")).collect();
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    let filter = (0..100).map(|i| format!("metrics.m{i} > 0")).collect::<Vec<_>>().join(" AND ");
    assert_eq!(found(&store, search(&both, &filter, &orders)).await, "");
}

pub(super) async fn experiments(store: Store) {
    let first = store.create_experiment("first".into(), None, pairs(&[("team", "nlp")])).await.unwrap().experiment_id;
    let second = store.create_experiment("Second".into(), None, vec![]).await.unwrap().experiment_id;
    store.set_experiment_lifecycle(second, Lifecycle::Deleted).await.unwrap();
    let search = |filter: &str, view, order: &[&str], max_results, page_token| ExperimentSearch {
        filter: filter.into(),
        view,
        max_results,
        order_by: order.iter().map(|key| (*key).to_owned()).collect(),
        page_token,
    };
    let found = async |filter: &str, view, order: &[&str]| {
        let page = store.search_experiments(search(filter, view, order, 100, None)).await.unwrap();
        page.items.into_iter().map(|experiment| experiment.name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("", ViewType::ActiveOnly, &["name"]).await, "Default first");
    assert_eq!(found("", ViewType::All, &["experiment_id DESC"]).await, "Second first Default");
    assert_eq!(found("", ViewType::DeletedOnly, &[]).await, "Second");
    assert_eq!(found("name ILIKE 'F%' AND tags.team = 'nlp'", ViewType::All, &[]).await, "first");
    assert_eq!(found("tags.team IS NULL", ViewType::ActiveOnly, &[]).await, "Default");
    let ids = format!("experiment_id IN (0, '{first}') AND creation_time > 0");
    assert_eq!(found(&ids, ViewType::All, &["name DESC"]).await, "first Default");
    let page = store.search_experiments(search("", ViewType::All, &["name"], 2, None)).await.unwrap();
    let rest = store.search_experiments(search("", ViewType::All, &["name"], 2, page.next)).await.unwrap();
    assert_eq!((page.items[1].name.as_str(), rest.items.len(), rest.next), ("Second", 1, None));
    assert_eq!(rest.items[0].tags, pairs(&[("team", "nlp")]));
    assert!(store.search_experiments(search("metrics.a > 1", ViewType::All, &[], 2, None)).await.is_err());
}
