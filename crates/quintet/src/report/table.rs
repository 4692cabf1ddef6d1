//! The summary that a person reads at the end of a run.

use std::{collections::BTreeMap, fmt::Write as _};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Map, Value};

use super::document::{Benchmark, Convert, Document, Stage, Sweep, Train};

/// The whole summary: one table, then what to type to look further.
pub(crate) fn summary(document: &Document) -> String {
    let mut table = new(["Stage", "Result", "Time"]);
    for stage in &document.stages {
        let time = if stage.reused { "reused".to_owned() } else { duration(stage.seconds) };
        let lines = result(stage);
        table.add_row([Cell::new(&stage.name), Cell::new(lines), Cell::new(time).set_alignment(CellAlignment::Right)]);
    }
    let total = Cell::new(duration(document.seconds)).set_alignment(CellAlignment::Right);
    table.add_row([
        Cell::new("total"),
        Cell::new(format!("pipeline {}: {}", document.pipeline, document.state)),
        total,
    ]);
    format!("{table}\n")
}

/// An empty table in the house style.
pub(crate) fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

/// A borderless table for lists that are cut with other tools too.
pub(crate) fn plain<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn result(stage: &Stage) -> String {
    if let Some(error) = &stage.error {
        return format!("{}: {}\n{}", stage.state, error.reason, error.message);
    }
    let parts = [
        stage.sweep.as_ref().map(sweep),
        stage.train.as_ref().map(train),
        stage.convert.as_ref().map(convert),
        stage.benchmark.as_ref().map(benchmark),
    ];
    if let Some(text) = parts.into_iter().flatten().next() {
        return text;
    }
    let mut text = stage.state.clone();
    for (name, value) in &stage.metrics {
        let _ = write!(text, "\n{name} {}", number(*value));
    }
    for (name, artifact) in &stage.outputs {
        let files = if artifact.file_count == 1 { "file" } else { "files" };
        let bytes = size(artifact.size_bytes as f64);
        let _ = write!(text, "\noutput {name}: {} {files}, {bytes}", artifact.file_count);
    }
    text
}

fn sweep(sweep: &Sweep) -> String {
    let count = |state: &str| sweep.trials.iter().filter(|trial| trial.state == state).count();
    let mut text = format!(
        "{} trials: {} complete, {} pruned, {} failed",
        sweep.trials.len(),
        count("COMPLETE"),
        count("PRUNED"),
        count("FAIL")
    );
    match &sweep.best {
        Some(best) => {
            let _ = write!(text, "\nbest {} {} (trial {})", sweep.metric, number(best.value), best.number);
            let _ = write!(text, "\n{}", parameters(&best.parameters));
        }
        None if !sweep.pareto_front.is_empty() => {
            let metrics: Vec<&str> = sweep.objectives.iter().map(|objective| objective.metric.as_str()).collect();
            let numbers: Vec<String> = sweep.pareto_front.iter().map(i64::to_string).collect();
            let _ = write!(text, "\nPareto front of {}: trials {}", metrics.join(", "), numbers.join(", "));
        }
        None => {
            let _ = write!(text, "\n{}", none_is_best(count("COMPLETE")));
        }
    }
    if let Some(refit) = &sweep.refit {
        let _ = write!(text, "\nrefit {}{}", refit.job, of_objectives(sweep, &refit.metrics));
    }
    text
}

/// Why none of a sweep's trials is the best.
pub(crate) fn none_is_best(completed: usize) -> String {
    let completed = match completed {
        0 => return "no trial has completed".into(),
        1 => "1 trial has completed; it".to_owned(),
        count => format!("{count} trials have completed; each"),
    };
    format!("{completed} breaks a constraint or has no value")
}

/// What the objectives came to, and how much else was reported: a training has dozens of metrics.
fn of_objectives(sweep: &Sweep, metrics: &BTreeMap<String, f64>) -> String {
    let mut names: Vec<&str> = sweep.objectives.iter().map(|objective| objective.metric.as_str()).collect();
    if names.is_empty() {
        names.push(&sweep.metric);
    }
    let mut parts: Vec<String> =
        names.iter().filter_map(|name| Some(format!("{name} {}", number(*metrics.get(*name)?)))).collect();
    match (metrics.len() - parts.len(), parts.is_empty()) {
        (0, _) => {}
        (count, true) => parts.push(format!("{count} metrics")),
        (count, false) => parts.push(format!("{count} more metrics")),
    }
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}

/// `name = value`, joined by commas.
pub(crate) fn parameters(parameters: &Map<String, Value>) -> String {
    let parts = parameters.iter().map(|(name, value)| match value.as_f64() {
        Some(value) => format!("{name} = {}", number(value)),
        None => format!("{name} = {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Labels of texts that are shown; one may have hundreds.
const LABELS: usize = 20;

fn train(train: &Train) -> String {
    let tokens = train.task == "token_classification";
    if train.task == "regression" {
        let names = ["mse", "mae", "r2", "pearson", "spearman"];
        let shown = names.iter().filter_map(|name| Some(format!("{name} {}", number(*train.metrics.get(*name)?))));
        return format!("{}: {}", train.split, shown.collect::<Vec<_>>().join(", "));
    }
    let metric = |name: &str| train.metrics.get(name).map_or_else(|| "-".to_owned(), |value| percent(*value));
    let mut text = format!(
        "{}: F1 {}, precision {}, recall {}, accuracy {}\n",
        train.split,
        metric("f1"),
        metric("precision"),
        metric("recall"),
        metric("accuracy")
    );
    let mut entities: Vec<_> = train.entities.iter().collect();
    if !tokens && entities.len() > LABELS {
        entities.sort_by(|one, other| one.f1.total_cmp(&other.f1));
        entities.truncate(LABELS);
        let _ = writeln!(text, "the {LABELS} of {} labels with the lowest F1:", train.entities.len());
    }
    let mut table = plain([if tokens { "entity" } else { "label" }, "F1", "precision", "recall", "support"]);
    for entity in entities {
        table.add_row([
            entity.entity.clone(),
            percent(entity.f1),
            percent(entity.precision),
            percent(entity.recall),
            entity.support.to_string(),
        ]);
    }
    right(&mut table, 1);
    text.push_str(&trimmed(&table));
    text
}

fn convert(convert: &Convert) -> String {
    let regression = convert.models.iter().any(|model| model.r2.is_some());
    let mut table = plain(["file", "size", "max |logit difference|", if regression { "R2" } else { "F1" }]);
    for model in &convert.models {
        table.add_row([
            model.file.clone(),
            size(model.size_bytes as f64),
            format!("{:.1e}", model.max_abs_logit_difference),
            match (model.f1, model.r2) {
                (Some(f1), _) => percent(f1),
                (None, Some(r2)) => number(r2),
                (None, None) => "-".to_owned(),
            },
        ]);
    }
    right(&mut table, 1);
    format!("ONNX opset {}\n{}", convert.opset, trimmed(&table))
}

fn benchmark(benchmark: &Benchmark) -> String {
    let mut table = plain(["model", "batch", "length", "p50 ms", "p95 ms", "p99 ms", "rows/s", ""]);
    for row in &benchmark.rows {
        table.add_row([
            row.model.clone(),
            row.batch.to_string(),
            row.sequence.to_string(),
            format!("{:.2}", row.p50),
            format!("{:.2}", row.p95),
            format!("{:.2}", row.p99),
            format!("{:.1}", row.throughput),
            if row.valid { String::new() } else { "disturbed".into() },
        ]);
    }
    right(&mut table, 1);
    let threads = if benchmark.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", benchmark.threads) };
    format!("{}, {threads}\n{}", benchmark.cpu, trimmed(&table))
}

/// Numbers stand to the right, from this column on.
fn right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Four digits that count.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (value.fract() == 0.0 && size < 1e6) {
        format!("{value}")
    } else if (1e-3..1e5).contains(&size) {
        let decimals = (3 - size.log10().floor() as i32).clamp(0, 7) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.2e}")
    }
}

/// Bytes in decimal units.
pub(crate) fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes if bytes >= 1e3 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{bytes} B"),
    }
}

/// Seconds as a person says them.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            assemble,
            document::{Objective, Refit},
        },
        *,
    };

    #[test]
    fn one_table_tells_everything() {
        use assemble::tests::{benchmark_job, convert_job, sweep_job, train_job};
        let stages =
            [("sweep", sweep_job()), ("train", train_job()), ("convert", convert_job()), ("bench", benchmark_job())];
        let stages: Vec<Stage> = stages.iter().map(|(name, job)| assemble::stage(name, job, job).unwrap()).collect();
        let document = Document {
            schema: super::super::document::SCHEMA.into(),
            version: "1".into(),
            pipeline: "demo".into(),
            file: "p.yaml".into(),
            params: Default::default(),
            experiment: "demo".into(),
            server: "http://x".into(),
            state: "SUCCEEDED".into(),
            start_time: "2026-01-01T00:00:00Z".into(),
            seconds: 754.0,
            stages,
        };
        // What is written is what is read back: the document has the form of its types, and no other keys.
        let json = serde_json::to_string(&document).unwrap();
        assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
        let text = summary(&document);
        for part in [
            "2 trials: 1 complete, 0 pruned, 1 failed",
            "best f1 0.7500 (trial 0)",
            "batch_size = 16, learning_rate = 5.00e-5",
            "test: F1 33.3 %, precision 50.0 %, recall 25.0 %, accuracy 90.0 %",
            "PER",
            "model_int8.onnx",
            "1.5e-6",
            "5333.0",
            "12 min 34 s",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_sweep_without_a_best_trial_says_why() {
        let mut told = assemble::stage("sweep", &assemble::tests::sweep_job(), &assemble::tests::sweep_job()).unwrap();
        let mut without = told.sweep.take().unwrap();
        without.best = None;
        let end = |sweep: &Sweep| super::sweep(sweep).lines().nth(1).unwrap_or_default().to_owned();
        assert_eq!(end(&without), "1 trial has completed; it breaks a constraint or has no value");
        without.trials[1].state = "COMPLETE".into();
        assert_eq!(end(&without), "2 trials have completed; each breaks a constraint or has no value");
        let second = Objective { metric: "ms".into(), direction: "MINIMIZE".into() };
        without.objectives = vec![Objective { metric: "f1".into(), ..second.clone() }, second];
        assert!(end(&without).starts_with("2 trials have completed"), "an empty front is none");
        without.pareto_front = vec![1];
        assert_eq!(end(&without), "Pareto front of f1, ms: trials 1");
        without.trials.clear();
        without.pareto_front.clear();
        assert_eq!(end(&without), "no trial has completed");
    }

    #[test]
    fn a_refit_tells_its_objective_and_how_much_more_there_is() {
        let job = assemble::tests::sweep_job();
        let mut sweep = assemble::stage("sweep", &job, &job).unwrap().sweep.unwrap();
        let metrics = |count: usize| (0..count).map(|index| (format!("m{index}"), 0.5));
        let mut refit = Refit { trial: 0, job: "jobs/7".into(), metrics: metrics(44).collect(), outputs: [].into() };
        refit.metrics.insert("f1".into(), 0.75);
        let mut end = |refit: &Refit| {
            sweep.refit = Some(refit.clone());
            super::sweep(&sweep).lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(end(&refit), "refit jobs/7: f1 0.7500, 44 more metrics");
        refit.metrics.retain(|name, _| name == "f1");
        assert_eq!(end(&refit), "refit jobs/7: f1 0.7500");
        refit.metrics = metrics(2).collect();
        assert_eq!(end(&refit), "refit jobs/7: 2 metrics");
        refit.metrics.clear();
        assert_eq!(end(&refit), "refit jobs/7");
    }

    #[test]
    fn texts_are_told_by_label_or_by_error() {
        use assemble::tests::{classes_job, texts_job};
        let told = |job: quintet_proto::v1::Job| train(&assemble::stage("train", &job, &job).unwrap().train.unwrap());
        let text = told(classes_job());
        assert!(text.starts_with("test: F1 75.0 %, precision -, recall -, accuracy 50.0 %\nlabel"), "{text}");
        assert!(text.contains("refund  33.3 %"), "{text}");
        let rows: Vec<_> = (0..30)
            .map(|label| json!({"label": format!("l{label:02}"), "precision": 1, "recall": 1, "f1": 1.0 - f64::from(label) / 30.0, "support": 1}))
            .collect();
        let text = told(texts_job(json!({"class": {"classes": {"classes": rows}}}), json!({})));
        assert!(text.contains("the 20 of 30 labels with the lowest F1:") && text.contains("l29"), "{text}");
        assert!(!text.contains("l09"), "{text}");
        let numbers = told(texts_job(json!({"regression": {}}), json!({"mse": 0.5, "r2": -0.25})));
        assert_eq!(numbers, "test: mse 0.5000, r2 -0.2500");
    }

    #[test]
    fn figures_are_short() {
        let numbers = [0.0, 16.0, 0.123456, 12.3456, 5e-5, 1234567.5, -0.5];
        assert_eq!(numbers.map(number), ["0", "16", "0.1235", "12.35", "5.00e-5", "1.23e6", "-0.5000"]);
        assert_eq!([999.0, 45_300_000.0, 1.5e9].map(size), ["999 B", "45.3 MB", "1.50 GB"]);
        assert_eq!([0.25, 42.4, 62.0, 7260.0, 2e5].map(duration), ["0.2 s", "42 s", "1 min 02 s", "2 h 01 min", "2 d"]);
    }
}
