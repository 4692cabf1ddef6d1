//! What runs log: batches, histories and new points.

use super::*;

pub(super) async fn batches(store: Store) {
    let run = new_run(&store, 0).await;
    let batch = Batch {
        metrics: vec![metric("loss", 0.5, 1, 10), metric("loss", 0.4, 2, 9), metric("acc", f64::NAN, -1, 0)],
        params: pairs(&[("lr", "0.1"), ("model.name", "größer")]),
        tags: pairs(&[("t", "1"), ("t", "2")]),
    };
    store.log_batch(run.clone(), batch.clone(), true).await.unwrap();
    let read = store.run(run.clone()).await.unwrap();
    assert_eq!(read.data.params, batch.params);
    assert_eq!(read.tag("t"), Some("2"));
    let [acc, loss] = read.data.metrics.as_slice() else { panic!("{:?}", read.data.metrics) };
    assert!(acc.value.is_nan() && acc.step == -1);
    assert_eq!(*loss, metric("loss", 0.4, 2, 9));

    // Of several writes the greatest (step, timestamp, value) is the latest.
    log(&store, &run, &[("loss", 0.9, 1)]).await;
    assert_eq!(latest(&store, &run, "loss").await.value, 0.4);
    for (value, timestamp, expected) in [(0.3, 9, 0.4), (0.6, 9, 0.6), (0.1, 10, 0.1), (f64::INFINITY, 10, f64::MAX)] {
        let metrics = vec![metric("loss", value, 2, timestamp)];
        store.log_batch(run.clone(), Batch { metrics, ..Batch::default() }, true).await.unwrap();
        assert_eq!(latest(&store, &run, "loss").await.value, expected);
    }

    // A parameter keeps its value, and a batch that would change one writes nothing at all.
    param(&store, &run, "lr", "0.1").await.unwrap();
    let changed = param(&store, &run, "lr", "0.2").await;
    assert!(matches!(changed, Err(Error::Invalid { ref field, .. }) if field == "params"), "{changed:?}");
    let batch = Batch {
        metrics: vec![metric("new", 1.0, 0, 0)],
        params: pairs(&[("other", "x"), ("lr", "0.2")]),
        tags: pairs(&[("new", "1")]),
    };
    assert!(store.log_batch(run.clone(), batch, true).await.is_err());
    let read = store.run(run.clone()).await.unwrap();
    assert_eq!((read.data.metrics.len(), read.data.params.len(), read.tag("new")), (2, 2, None));
    // The names of the refused batch are usable afterwards.
    log(&store, &run, &[("new", 1.0, 0)]).await;
    param(&store, &run, "other", "y").await.unwrap();
    let bad = Batch { metrics: vec![metric("a//b", 1.0, 0, 0)], ..Batch::default() };
    assert!(matches!(store.log_batch(run.clone(), bad, true).await, Err(Error::Invalid { .. })));
    let unknown = store.log_batch("404".into(), Batch::default(), true).await;
    assert!(matches!(unknown, Err(Error::NotFound { kind: "run", .. })));
}

async fn latest(store: &Store, run: &str, key: &str) -> Metric {
    let run = store.run(run.to_owned()).await.unwrap();
    run.data.metrics.into_iter().find(|metric| &*metric.key == key).unwrap()
}

pub(super) async fn histories(store: Store) {
    let (run, other) = (new_run(&store, 0).await, new_run(&store, 0).await);
    // Later steps have earlier times, so that the order of time is not the order of the table.
    let metrics: Vec<Metric> =
        (0..250).map(|i| metric("loss", f64::from(i), i64::from(i), 1000 - i64::from(i) / 2)).collect();
    for part in metrics.chunks(100) {
        let batch = Batch { metrics: part.to_vec(), ..Batch::default() };
        store.log_batch(run.clone(), batch.clone(), true).await.unwrap();
        // Exact repetitions are ignored.
        store.log_batch(run.clone(), batch, true).await.unwrap();
    }
    log(&store, &other, &[("loss", 7.0, 7)]).await;
    log(&store, &run, &[("acc", 1.0, 1)]).await;
    let mut expected = metrics;
    expected.sort_by_key(|metric| (metric.timestamp, metric.step));
    let history =
        async |key: &str, limit, token| store.metric_history(run.clone(), key.to_owned(), limit, token).await.unwrap();
    let all = history("loss", None, None).await;
    assert_eq!((&all.items, &all.next), (&expected, &None));
    let mut pages = Vec::new();
    let mut token = None;
    loop {
        let page = history("loss", Some(100), token).await;
        assert!(page.items.len() <= 100);
        pages.extend(page.items);
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, expected);
    assert_eq!(history("loss", Some(250), None).await.next, None);
    assert_eq!(history("never", None, None).await.items, []);
    let nothing = store.metric_history("404".into(), "loss".into(), None, None).await.unwrap();
    assert_eq!(nothing.items, []);
    assert!(store.metric_history(run.clone(), "loss".into(), None, Some("x".into())).await.is_err());

    // NaN and a number at the same point are two points.
    log(&store, &run, &[("mixed", f64::NAN, 1), ("mixed", 0.0, 1), ("mixed", f64::NAN, 1)]).await;
    let mixed = history("mixed", None, None).await.items;
    assert_eq!(mixed.iter().filter(|metric| metric.value.is_nan()).count(), 1);
    assert_eq!(mixed.len(), 2);
}

pub(super) async fn tails(store: Store) {
    for followed in [true, false] {
        let run = NewRun { followed, ..NewRun::default() };
        let run = store.create_run(run).await.unwrap().info.run_id;
        let read = async |key: Option<&str>, after| {
            let tail = store.read_metrics(run.clone(), key.map(str::to_owned), after).await.unwrap();
            let points = tail.metrics.iter().map(|metric| (metric.key.to_string(), metric.step)).collect::<Vec<_>>();
            (points, tail.position)
        };
        assert_eq!(read(None, 0).await, (vec![], 0));
        log(&store, &run, &[("loss", 1.0, 5), ("acc", 1.0, 5)]).await;
        log(&store, &run, &[("loss", 1.0, 3)]).await;
        let own = |list: &[(&str, i64)]| list.iter().map(|(key, step)| ((*key).to_owned(), *step)).collect::<Vec<_>>();
        let (points, position) = read(None, 0).await;
        assert_eq!(points, own(&[("loss", 5), ("acc", 5), ("loss", 3)]));
        assert_eq!(read(Some("loss"), 0).await, (own(&[("loss", 5), ("loss", 3)]), position));
        assert_eq!(read(Some("never"), 0).await, (vec![], position));
        assert_eq!(read(None, position).await, (vec![], position));
        // A repeated point is no news; a point of an earlier step is.
        log(&store, &run, &[("loss", 1.0, 5), ("loss", 1.0, 1)]).await;
        let (points, later) = read(Some("loss"), position).await;
        assert_eq!(points, own(&[("loss", 1)]));
        assert!(later > position);
        // More than one answer holds, one after the other and none twice.
        for part in 0..11 {
            let points: Vec<_> = (0..1000).map(|i| ("many", 0.0, part * 1000 + i)).collect();
            log(&store, &run, &points).await;
        }
        let (first, middle) = read(Some("many"), later).await;
        let (second, end) = read(Some("many"), middle).await;
        let steps: Vec<i64> = first.iter().chain(&second).map(|(_, step)| *step).collect();
        assert_eq!(steps, (0..11_000).collect::<Vec<_>>());
        assert_eq!(read(Some("many"), end).await, (vec![], end));
    }
    assert!(matches!(store.read_metrics("404".into(), None, 0).await, Err(Error::NotFound { kind: "run", .. })));
    assert!(matches!(store.read_metrics("404".into(), None, -1).await, Err(Error::Invalid { .. })));
}

pub(super) async fn concurrent_writers(store: Store) {
    let run = new_run(&store, 0).await;
    let tasks: Vec<_> = (0..8)
        .map(|writer| {
            let (store, run) = (store.clone(), run.clone());
            tokio::spawn(async move {
                for step in 0..25 {
                    // All of them make the same names known at the same time.
                    let shared = format!("m{step}");
                    log(&store, &run, &[(&shared, f64::from(writer), i64::from(writer))]).await;
                    let own = format!("{writer}");
                    assert_eq!(param(&store, &run, "fixed", &own).await.is_ok(), own == winner(&store, &run).await);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let read = store.run(run.clone()).await.unwrap();
    assert_eq!(read.data.metrics.len(), 25);
    assert!(read.data.metrics.iter().all(|metric| metric.step == 7));
    let tail = store.read_metrics(run, None, 0).await.unwrap();
    assert_eq!((tail.metrics.len(), tail.position), (200, 200));
}

/// Who wrote the parameter first.
async fn winner(store: &Store, run: &str) -> String {
    let run: Run = store.run(run.to_owned()).await.unwrap();
    run.data.params.first().map(|pair| pair.value.clone()).unwrap_or_default()
}
