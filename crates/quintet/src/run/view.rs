//! What a person sees while jobs run: bars on a terminal, lines elsewhere. Everything goes to standard error.

use std::{
    cell::RefCell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use quintet_proto::v1::{Job, JobEvent, JobState, Progress, job_event::Event};

use crate::report::table;

/// Without a terminal, progress is told at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Positions of a bar.
const SCALE: f64 = 1000.0;

/// Where progress is shown.
#[derive(Clone)]
pub(crate) struct View {
    bars: Option<MultiProgress>,
}

/// The progress of one stage.
pub(crate) struct StageView {
    view: View,
    name: String,
    bar: ProgressBar,
    shown: RefCell<Shown>,
}

#[derive(Default)]
struct Shown {
    state: JobState,
    started: Option<Instant>,
    /// Where and when progress began, to tell the time that is left.
    base: Option<(Instant, f64)>,
    last_line: Option<Instant>,
    attempts_failed: usize,
    unreachable: bool,
}

impl View {
    /// Bars when standard error is a terminal, lines otherwise.
    pub(crate) fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Adds a stage, waiting; names are filled up to `width`.
    pub(crate) fn stage(&self, name: &str, width: usize) -> StageView {
        let bar = match &self.bars {
            Some(bars) => bars.add(ProgressBar::new(SCALE as u64)),
            None => ProgressBar::hidden(),
        };
        bar.set_style(style("  {prefix}  {msg:.dim}"));
        bar.set_prefix(format!("{name:width$}"));
        if self.bars.is_some() {
            bar.set_message("waiting");
        }
        StageView { view: self.clone(), name: name.to_owned(), bar, shown: RefCell::default() }
    }

    /// Tells something that is no progress.
    pub(crate) fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                // A terminal that has gone takes no notes.
                let _ = bars.println(text);
            }
            None => eprintln!("{text}"),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸ ").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

impl StageView {
    /// Tells something about this stage.
    pub(crate) fn note(&self, text: &str) {
        self.view.note(&format!("{}: {text}", self.name));
    }

    /// The stage's job was submitted.
    pub(crate) fn began(&self, job: &Job) {
        self.shown.borrow_mut().started = Some(Instant::now());
        self.bar.set_style(style("{spinner:.cyan} {prefix}  {bar:24.cyan} {elapsed:>4} {msg}"));
        self.bar.reset_elapsed();
        if self.view.bars.is_some() {
            self.bar.enable_steady_tick(Duration::from_millis(120));
        }
        self.transition(job);
    }

    /// Takes an event of the job.
    pub(crate) fn event(&self, event: &JobEvent) {
        match &event.event {
            Some(Event::Transition(job)) => self.transition(job),
            Some(Event::Progress(progress)) => self.progress(progress),
            Some(Event::Metrics(_) | Event::Idle(_)) | None => {}
        }
    }

    fn transition(&self, job: &Job) {
        let mut notes = Vec::new();
        {
            let mut shown = self.shown.borrow_mut();
            if let Some(error) = job.attempt_errors.get(shown.attempts_failed..).and_then(<[_]>::last) {
                notes.push(format!(
                    "attempt {} failed and is repeated: {} ({})",
                    error.attempt, error.message, error.reason
                ));
                shown.attempts_failed = job.attempt_errors.len();
                shown.base = None;
            }
            let unreachable = job.unreachable_since.is_some();
            if unreachable && !shown.unreachable {
                notes.push("the worker is silent; waiting for it".into());
            }
            shown.unreachable = unreachable;
            let changed = shown.state != job.state();
            shown.state = job.state();
            if changed && self.view.bars.is_none() && !runtime_core::jobs::model::is_terminal(job.state()) {
                notes.push(job.state().as_str_name().to_ascii_lowercase());
            }
        }
        self.bar.set_message(job.state().as_str_name().to_ascii_lowercase());
        notes.iter().for_each(|note| self.note(note));
        if let Some(progress) = &job.progress {
            self.progress(progress);
        }
    }

    fn progress(&self, progress: &Progress) {
        let now = Instant::now();
        let mut shown = self.shown.borrow_mut();
        if shown.base.is_none_or(|(_, done)| progress.done < done) {
            shown.base = Some((now, progress.done));
        }
        let left = shown.base.and_then(|(since, done)| time_left(progress, now - since, done));
        let text = text(progress, left);
        if progress.total > 0.0 {
            let share = (progress.done / progress.total).clamp(0.0, 1.0);
            self.bar.set_position((share * SCALE) as u64);
        }
        self.bar.set_message(text.clone());
        if self.view.bars.is_none()
            && shown.last_line.is_none_or(|last| now - last >= LINE_INTERVAL)
            && !text.is_empty()
        {
            shown.last_line = Some(now);
            self.note(&text);
        }
    }

    /// The connection was lost; the count since it last worked.
    pub(crate) fn lost(&self, count: u32) {
        self.bar.set_message("the connection was lost; connecting again");
        // Once at first, then now and then: each pause is at most 2 s.
        if count == 1 || count.is_multiple_of(30) {
            self.note("the connection to the server was lost; connecting again");
        }
    }

    /// The job has ended.
    pub(crate) fn ended(&self, job: &Job) {
        let started = self.shown.borrow().started;
        let took = table::duration(started.map(|start| start.elapsed()).unwrap_or_default().as_secs_f64());
        let best = best(job).map(|best| format!(", best {}", table::number(best))).unwrap_or_default();
        let state = job.state().as_str_name().to_ascii_lowercase();
        let text = match (job.state(), job.reused_from.is_empty()) {
            (JobState::Succeeded, false) => {
                format!("already done by {}", job.reused_from.chars().take(13).collect::<String>())
            }
            (JobState::Succeeded, true) => format!("succeeded in {took}{best}"),
            _ => format!("{state} after {took}"),
        };
        let mark = if job.state() == JobState::Succeeded { "✔" } else { "✘" };
        self.bar.set_style(style(&format!("{mark} {{prefix}}  {{msg}}")));
        self.bar.finish_with_message(text.clone());
        if self.view.bars.is_none() {
            self.note(&text);
        }
    }
}

/// The best value: of a sweep's report, which has all trials, else of the last progress.
fn best(job: &Job) -> Option<f64> {
    let report = job.outputs.as_ref().and_then(|outputs| outputs.report.as_ref());
    let best = report.and_then(|report| serde_json::to_value(report).ok()?.pointer("/best/value")?.as_f64());
    best.or_else(|| job.progress.as_ref().and_then(|progress| progress.best))
}

/// `3/8 trials`, or what of it is known.
pub(crate) fn amount(progress: &Progress) -> String {
    let unit = if progress.unit.is_empty() { String::new() } else { format!(" {}", progress.unit) };
    match progress.total > 0.0 {
        true => format!("{}/{}{unit}", table::number(progress.done), table::number(progress.total)),
        false if progress.done > 0.0 => format!("{}{unit}", table::number(progress.done)),
        false => String::new(),
    }
}

/// By the pace since progress was `from`, `elapsed` ago.
fn time_left(progress: &Progress, elapsed: Duration, from: f64) -> Option<Duration> {
    let done = progress.done - from;
    let left = progress.total - progress.done;
    if done <= 0.0 || left <= 0.0 || elapsed < Duration::from_secs(1) {
        return None;
    }
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left / done).ok()
}

fn text(progress: &Progress, left: Option<Duration>) -> String {
    // A sweep names its best value with the metric and the trial.
    let best = progress.best.filter(|_| !progress.message.starts_with("best "));
    let parts = [
        (!progress.phase.is_empty()).then(|| progress.phase.clone()),
        Some(amount(progress)).filter(|text| !text.is_empty()),
        best.map(|best| format!("best {}", table::number(best))),
        left.map(|left| format!("{} left", table::duration(left.as_secs_f64()))),
        (!progress.message.is_empty() && progress.message != progress.phase).then(|| progress.message.clone()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line() {
        let progress = Progress {
            done: 3.0,
            total: 8.0,
            unit: "trials".into(),
            best: Some(0.8125),
            message: "2 running".into(),
            ..Progress::default()
        };
        let left = time_left(&progress, Duration::from_secs(60), 1.0);
        assert_eq!(left, Some(Duration::from_secs(150)));
        assert_eq!(text(&progress, left), "3/8 trials · best 0.8125 · 2 min 30 s left · 2 running");
        let named = Progress { message: "best f1 0.8125 (trial 2), 2 running".into(), ..progress.clone() };
        assert_eq!(text(&named, None), "3/8 trials · best f1 0.8125 (trial 2), 2 running", "the best is told once");
        assert_eq!(time_left(&progress, Duration::from_secs(60), 3.0), None, "no pace yet");
        assert_eq!(text(&Progress::default(), None), "");
        assert_eq!(amount(&Progress { done: 5.0, unit: "runs".into(), ..Progress::default() }), "5 runs");
    }
}
