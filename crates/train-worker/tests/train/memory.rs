//! Runs that meet the end of their memory: a process whose address space is limited, so that libtorch is refused what it asks for.
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use quintet_proto::v1::Hyperparameters;
use serde_json::Value;

use crate::support::{Bench, NAMES, PLACES, nothing_written};

const ROWS: i32 = 128;

/// Two batches of long rows: most of the memory is that of a step's activations.
fn bench() -> Bench {
    let mut bench = Bench::new();
    let row = |n: usize| {
        let word = |at: usize| match (n * 13 + at * 7) % 5 {
            0 => format!("{} B-loc\n", PLACES[(n + at) % 6]),
            1 => format!("{} B-per\n", NAMES[(n + at) % 6]),
            _ => "in O\n".to_owned(),
        };
        (0..126).map(word).collect::<String>() + "\n"
    };
    fs::write(bench.path("train.conll"), (0..2 * ROWS as usize).map(row).collect::<String>()).unwrap();
    *bench.hyper() = Hyperparameters {
        batch_size: Some(ROWS),
        epochs: Some(1),
        max_length: Some(128),
        learning_rate: Some(1e-3),
        // Parts of a batch draw other masks than the whole.
        dropout: Some(0.0),
        ..Hyperparameters::default()
    };
    bench
}

/// The program on the bench's specification; with at most so many KiB of addresses.
fn program(bench: &Bench, out: &str, limit: Option<usize>) -> Command {
    let spec = bench.path(&format!("{out}.json"));
    fs::write(&spec, serde_json::to_vec(&bench.spec).unwrap()).unwrap();
    let mut program = Command::new("sh");
    let limited = limit.map(|limit| format!("ulimit -v {limit} && ")).unwrap_or_default();
    program.arg("-c").arg(format!("{limited}exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_train-worker"));
    program.args(["local", "--threads", "1", "--device", "cpu"]);
    // Further arenas of the C library take addresses that nobody uses, and do without them where there are none.
    program.env("MALLOC_ARENA_MAX", "1");
    program.arg("--spec").arg(&spec).arg("--out").arg(bench.path(out)).env("OMP_WAIT_POLICY", "PASSIVE");
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

#[track_caller]
fn report(output: &Output) -> (Value, String) {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {told}", output.status);
    (serde_json::from_slice(&output.stdout).unwrap(), told)
}

/// Runs to the end; gives also the most KiB of addresses that were seen in use.
fn measured(mut program: Command) -> (Output, usize) {
    let child = program.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let waiting = std::thread::spawn(move || child.wait_with_output().unwrap());
    let mut peak = 0;
    while !waiting.is_finished() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        let seen = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
        peak = peak.max(seen.unwrap_or(0));
        std::thread::yield_now();
    }
    (waiting.join().unwrap(), peak)
}

#[test]
fn a_run_out_of_memory_goes_on_with_halves_and_learns_the_same() {
    if !Path::new("/proc/self/status").exists() {
        eprintln!("skipped: the size of a process can be read on Linux alone");
        return;
    }
    let mut bench = bench();
    let (whole, peak) = measured(program(&bench, "whole", None));
    let (whole, told) = report(&whole);
    assert!(!told.contains("memory ran out"), "{told}");
    bench.hyper().batch_size = Some(ROWS / 2);
    bench.hyper().gradient_accumulation_steps = Some(2);
    let (half, less) = measured(program(&bench, "half", None));
    report(&half);
    assert!(less + (64 << 10) < peak, "half a batch takes {less} KiB, a whole one {peak}");

    // Between the two: a whole batch is refused, its half passes.
    let limit = Some(less + (peak - less) / 2);
    bench.hyper().batch_size = Some(ROWS);
    bench.hyper().gradient_accumulation_steps = None;
    let (limited, told) = report(&program(&bench, "limited", limit).output().unwrap());
    let expected = format!("memory ran out at {ROWS} rows of up to 128 sub-tokens (");
    let halved = format!("; going on with {} rows, 2 parts a batch", ROWS / 2);
    assert!(told.contains(&expected) && told.contains(&halved), "{told}");
    assert_eq!(told.matches("memory ran out").count(), 1, "{told}");
    for key in ["train_loss", "loss"] {
        let [ours, theirs] = [&limited, &whole].map(|report| report["epochs"][0][key].as_f64().unwrap());
        assert!((ours - theirs).abs() <= 1e-5, "{key}: {ours} instead of {theirs}");
    }

    bench.hyper().auto_find_batch_size = Some(false);
    let refused = program(&bench, "refused", limit).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("memory ran out at {ROWS} rows of up to 128 sub-tokens: ")), "{told}");
    assert!(told.contains("; lower batch_size, max_length or tokens_per_batch"), "{told}");
    assert!(nothing_written(&bench, "refused/checkpoint"));
}
