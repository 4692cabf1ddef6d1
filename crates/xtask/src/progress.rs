//! What the person sees while a piece is set up: one bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// The display of one piece of work.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: String,
    started: Instant,
    terminal: bool,
}

impl Progress {
    pub(crate) fn start(what: &str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress { bar, what: what.to_owned(), started: Instant::now(), terminal }
    }

    /// A part of the work that is measured in bytes.
    pub(crate) fn bytes(&self, doing: &str, total: u64) {
        self.say(doing, Some(total));
        self.bar.set_style(style("{prefix}: {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left"));
        self.bar.set_length(total);
        self.bar.reset();
        self.bar.set_message(doing.to_owned());
    }

    /// A part of the work whose size is not known.
    pub(crate) fn busy(&self, doing: &str) {
        self.say(doing, None);
        self.bar.set_style(style("{prefix}: {spinner} {msg} ({elapsed})"));
        self.bar.reset();
        self.bar.set_message(doing.to_owned());
    }

    pub(crate) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        eprintln!("{}: ready after {:.1} s", self.what, self.started.elapsed().as_secs_f64());
    }

    fn say(&self, doing: &str, total: Option<u64>) {
        if self.terminal {
            return;
        }
        match total {
            Some(total) => eprintln!("{}: {doing} ({})", self.what, HumanBytes(total)),
            None => eprintln!("{}: {doing}", self.what),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a broken one costs the layout of the bar, not the work.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
