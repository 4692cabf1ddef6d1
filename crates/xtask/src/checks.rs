//! `cargo xtask test`: format, lints, all tests and one short run of the main job.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::setup::{self, Wants};
use crate::summary::{self, Summary};
use crate::{demo, process};

/// Runs all checks, also after one has failed, and ends with a line that counts them.
pub(crate) fn run(layout: &Layout, peers: bool, args: &[String]) -> Result<ExitCode> {
    setup::run(layout, Wants { tests: true, demo: true, peers, ..Wants::default() })?;
    let mut summary = Summary::default();
    check(&mut summary, "format", &mut cargo(layout, &["fmt", "--all", "--", "--check"]));
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    check(&mut summary, "lints", &mut cargo(layout, &lints));
    // Some tests start the programs themselves.
    let built = check(&mut summary, "build", &mut cargo(layout, &["build", "--workspace", "--bins", "--locked"]));
    heading("tests");
    let counted = if has_nextest() { nextest(layout, peers, args) } else { libtest(layout, peers, args) };
    summary.add(counted.unwrap_or_else(failed));
    for package in documented(layout)? {
        heading(&format!("documentation tests of {package}"));
        let mut command = cargo(layout, &["test", "--doc", "--locked", "--package", &package]);
        summary.add(count_libtest(&mut command).unwrap_or_else(failed));
    }
    if built {
        heading("the main job, short");
        let ran = demo::short(layout).map(|status| status.success());
        summary.check(ran.unwrap_or_else(|error| failed(error).failed == 0));
    }
    if peers {
        for script in comparisons(layout)? {
            let mut command = Command::new(layout.peers().join("bin/python"));
            command.arg(&script).current_dir(layout.root());
            command.env("QUINTET_RUN_JSON", demo::short_results(layout));
            command.env("QUINTET_TRAIN_WORKER", target_folder()?.join("debug/train-worker"));
            check(&mut summary, &script.display().to_string(), &mut command);
        }
    }
    eprintln!();
    println!("{summary}");
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn heading(text: &str) {
    eprintln!("\n== {text}");
}

/// A tool that could not even be started or understood counts as one failure.
fn failed(error: anyhow::Error) -> Summary {
    eprintln!("error: {error:#}");
    Summary { passed: 0, failed: 1 }
}

fn check(summary: &mut Summary, name: &str, command: &mut Command) -> bool {
    heading(name);
    let passed = process::status(command).map(|status| status.success());
    let passed = passed.unwrap_or_else(|error| failed(error).failed == 0);
    if !passed {
        eprintln!("{name} failed: {}", process::shown(command));
    }
    summary.check(passed);
    passed
}

/// Cargo in the root of the workspace, with our runtimes in its environment.
pub(crate) fn cargo(layout: &Layout, args: &[&str]) -> Command {
    let mut command = process::cargo();
    command.args(args).current_dir(layout.root());
    layout.environment(&mut command);
    command
}

fn has_nextest() -> bool {
    let mut command = process::cargo();
    command.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// All tests by nextest; the counts come from its report.
fn nextest(layout: &Layout, peers: bool, args: &[String]) -> Result<Summary> {
    let report = report_of_nextest(layout);
    crate::pip::remove(&report)?;
    let mut command = cargo(layout, &["nextest", "run", "--profile", "ci", "--locked"]);
    command.args(scope(args)).args(args);
    repeat(&mut command, peers);
    let status = process::status(&mut command)?;
    let xml = fs::read_to_string(&report)
        .with_context(|| format!("{} ended with {status} and left no report", process::shown(&command)))?;
    let mut counts = summary::from_junit(&xml)?;
    if !status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// Where nextest leaves the report of the profile `ci`: below the root of the workspace (`store.dir` in `.config/nextest.toml`),
/// also when Cargo's target folder lies elsewhere.
fn report_of_nextest(layout: &Layout) -> PathBuf {
    layout.root().join("target/nextest/ci/junit.xml")
}

/// All tests by Cargo's own runner.
fn libtest(layout: &Layout, peers: bool, args: &[String]) -> Result<Summary> {
    let mut command = cargo(layout, &["test", "--no-fail-fast", "--locked"]);
    // Without documentation tests, which follow.
    command.args(["--lib", "--bins", "--tests"]).args(scope(args)).args(args);
    repeat(&mut command, peers);
    count_libtest(&mut command)
}

/// With the peers, Optuna's own tests of a storage are run several times in a row on the same studies' store.
fn repeat(command: &mut Command, peers: bool) {
    if peers {
        command.env("QUINTET_TEST_ROUNDS", "3");
    }
}

fn count_libtest(command: &mut Command) -> Result<Summary> {
    let mut counts = Summary::default();
    let status = process::tee(command, |line| counts.add(summary::from_libtest(line).unwrap_or_default()))?;
    if !status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// The whole workspace, unless the arguments name packages.
fn scope(args: &[String]) -> Option<&'static str> {
    let names_package = |arg: &String| arg.starts_with("-p") || arg.starts_with("--package");
    (!args.iter().any(names_package)).then_some("--workspace")
}

/// Cargo's target folder, wherever `CARGO_TARGET_DIR` puts it: this program lies in one of its profiles.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program")?;
    Ok(program.ancestors().nth(2).context("this program lies in no target folder")?.to_owned())
}

/// Scripts that compare a finished run, or the trainer, with other programs.
fn comparisons(layout: &Layout) -> Result<Vec<PathBuf>> {
    let folder = layout.root().join("tests/peers");
    let mut scripts = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if (name.starts_with("check_") && name.ends_with(".py")) || name == "transformers_parity.py" {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}

/// Library packages with documentation tests. Cargo would compile every library once more to find that it has none.
fn documented(layout: &Layout) -> Result<Vec<String>> {
    let crates = layout.root().join("crates");
    let mut packages = Vec::new();
    for entry in fs::read_dir(&crates).with_context(|| format!("cannot read {}", crates.display()))? {
        let folder = entry.with_context(|| format!("cannot read {}", crates.display()))?.path();
        if folder.join("src/lib.rs").is_file() && any_source(&folder.join("src"), &has_doc_test) {
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).context("cannot read a manifest")?;
            packages.extend(package_name(&manifest));
        }
    }
    packages.sort();
    Ok(packages)
}

fn any_source(folder: &Path, test: &dyn Fn(&str) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            any_source(&path, test)
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path).is_ok_and(|text| test(&text))
        }
    })
}

fn package_name(manifest: &str) -> Option<String> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("name"))?;
    Some(line.trim().strip_prefix('=')?.trim().trim_matches('"').to_owned())
}

/// Whether documentation comments hold a code block that rustdoc compiles.
fn has_doc_test(source: &str) -> bool {
    let mut inside = false;
    for line in source.lines() {
        let line = line.trim_start();
        let Some(text) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else { continue };
        let Some(info) = text.trim().strip_prefix("```") else { continue };
        if inside {
            inside = false;
            continue;
        }
        const RUST: [&str; 6] = ["rust", "no_run", "should_panic", "compile_fail", "edition2024", "ignore"];
        if info.is_empty() || info.split(',').all(|word| RUST.contains(&word.trim())) {
            return true;
        }
        inside = true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_rustdoc_compiles_counts() {
        assert!(has_doc_test("/// Doc.\n    /// ```\n    /// f();\n    /// ```\n"));
        assert!(has_doc_test("//! ```text\n//! a\n//! ```\n//! ```rust,no_run\n//! f();\n//! ```\n"));
        assert!(!has_doc_test("//! ```text\n//! a\n//! ```\nfn f() {}\n// ```\n"));
        assert!(!has_doc_test("let a = \"```\";"));
    }

    #[test]
    fn packages_are_named_by_their_manifest_and_narrow_the_scope() {
        assert_eq!(package_name("[package]\nname = \"quintet-nlp\"\n").as_deref(), Some("quintet-nlp"));
        assert_eq!(package_name("[workspace]\n"), None);
        assert_eq!(scope(&["--no-fail-fast".to_owned()]), Some("--workspace"));
        assert_eq!(scope(&["-p".to_owned(), "xtask".to_owned()]), None);
    }

    #[test]
    fn a_program_that_cannot_start_is_a_failure() {
        let mut summary = Summary::default();
        assert!(check(&mut summary, "good", &mut Command::new("true")));
        assert!(!check(&mut summary, "bad", &mut Command::new("false")));
        assert!(!check(&mut summary, "gone", &mut Command::new("/nonexistent")));
        assert_eq!(summary, Summary { passed: 1, failed: 2 });
        let mut crashed = Command::new("sh");
        crashed.args(["-c", "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 1"]);
        assert_eq!(count_libtest(&mut crashed).unwrap(), Summary { passed: 2, failed: 1 });
    }
}
