//! The report as a Markdown table for a person.

use std::fmt::Write as _;

use crate::report::{Report, Row};

/// Renders `benchmark.md`.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::from("# Benchmark\n\n");
    text.push_str(
        "| model | batch | sequence | p50 ms | p95 ms | p99 ms | rows/s | CPU ms | speed-up | valid |\n\
         |:--|--:|--:|--:|--:|--:|--:|--:|--:|:--|\n",
    );
    for row in &report.rows {
        let latency = &row.latency_ms;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {:.1} | {} | {:.2}x | {} |",
            row.model,
            row.batch,
            row.sequence,
            ms(latency.p50),
            ms(latency.p95),
            ms(latency.p99),
            row.throughput,
            ms(row.cpu_ms),
            row.speedup,
            verdict(row),
        );
    }
    text.push_str(
        "\n| model | file MB | load ms | peak memory MB | quantization | SHA-256 |\n|:--|--:|--:|--:|:--|:--|\n",
    );
    for model in &report.models {
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.0} | {} | {} | `{}` |",
            model.name,
            megabytes(model.size_bytes),
            model.load_ms,
            model.peak_memory_bytes.map_or_else(|| "?".to_owned(), |bytes| format!("{:.0}", megabytes(bytes))),
            model.quantization.as_deref().unwrap_or("?"),
            model.sha256.get(..16).unwrap_or(&model.sha256),
        );
    }
    footer(&mut text, report);
    text
}

fn footer(text: &mut String, report: &Report) {
    let (settings, environment) = (&report.settings, &report.environment);
    let _ = writeln!(
        text,
        "\nAt least {} runs and {} s each in {} rounds after {} warm-up runs and until 3 windows agree; {} thread{}, bound to \
         processor{} {}, not spinning. Speed-up: median of the first model over this one's.",
        settings.min_runs,
        settings.min_seconds,
        settings.rounds,
        settings.warmup_runs,
        settings.threads,
        if settings.threads == 1 { "" } else { "s" },
        if settings.threads == 1 { "" } else { "s" },
        environment.pinned.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    );
    let _ = writeln!(text, "\nInputs: {} (seed {}).", report.inputs, settings.seed);
    let _ = writeln!(
        text,
        "\n{}, {} processors, governor {}, {:.1} GB memory; {}; load average {:.2}; ONNX Runtime {}; {}.",
        environment.cpu,
        environment.processors,
        environment.governor.as_deref().unwrap_or("unknown"),
        environment.memory_bytes as f64 / 1e9,
        environment.system,
        environment.load_average[0],
        environment.onnxruntime,
        report.time,
    );
    let decoded: Vec<&str> = report.models.iter().filter(|model| model.crf).map(|model| model.name.as_str()).collect();
    if !decoded.is_empty() {
        let _ = writeln!(
            text,
            "\nOf {} a run includes the search for the best sequence of labels over all sub-tokens (CRF).",
            decoded.join(", ")
        );
    }
    let mut remarks: Vec<(String, Vec<String>)> = Vec::new();
    for row in &report.rows {
        for remark in row.problems.iter().chain(&row.notes) {
            let place = format!("{} {}x{}", row.model, row.batch, row.sequence);
            match remarks.iter_mut().find(|(text, _)| text == remark) {
                Some((_, places)) => places.push(place),
                None => remarks.push((remark.clone(), vec![place])),
            }
        }
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
    for (remark, places) in remarks {
        let everywhere = places.len() == report.rows.len() && places.len() > 1;
        let _ = writeln!(text, "- {remark}: {}", if everywhere { "all rows".to_owned() } else { places.join(", ") });
    }
}

fn verdict(row: &Row) -> &'static str {
    if row.valid { "yes" } else { "no, see below" }
}

fn ms(value: f64) -> String {
    if value < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
