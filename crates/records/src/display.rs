//! What a person sees of long work: a bar on a terminal, else a line every ten seconds.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time that is left, such as `7s`, `1m30s` or `2h46m`.
pub fn brief(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (hours, minutes) => format!("{hours}h{minutes:02}m"),
    }
}

/// Lets something through every ten seconds at most.
pub struct Pace(Mutex<Instant>);

impl Pace {
    const BETWEEN: Duration = Duration::from_secs(10);

    /// The first comes after ten seconds.
    #[expect(
        clippy::new_without_default,
        reason = "it starts now, which is no default"
    )]
    pub fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.elapsed() >= Self::BETWEEN;
        if due {
            *last = Instant::now();
        }
        due
    }
}

/// Work on items that are counted. The bar goes when this is dropped.
pub struct Display {
    label: String,
    unit: &'static str,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines(Pace),
    Nothing,
}

impl Display {
    /// Nothing is shown where it is `quiet`. A line reads `label done/total unit  message`.
    pub fn new(label: &str, unit: &'static str, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Nothing
        } else if stderr().is_terminal() {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}{unit}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .with_key("unit", move |_: &_, out: &mut dyn std::fmt::Write| {
                    let _ = out.write_str(unit);
                });
            let bar = ProgressBar::new(0).with_prefix(label.to_owned());
            bar.set_style(style);
            Shown::Bar(bar)
        } else {
            Shown::Lines(Pace::new())
        };
        Self {
            label: label.to_owned(),
            unit,
            shown,
        }
    }

    /// Shows how far the work is; `message` is made only if it is shown.
    pub fn show(&self, done: u64, total: u64, message: impl FnOnce() -> String) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(message());
            }
            Shown::Lines(pace) if pace.is_due() => {
                eprintln!("{}", self.line(done, total, &message()));
            }
            Shown::Lines(_) | Shown::Nothing => {}
        }
    }

    /// Says something beside it.
    pub fn say(&self, line: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.println(line),
            Shown::Lines(_) => eprintln!("{line}"),
            Shown::Nothing => {}
        }
    }

    /// Says the last word, in a line that stays.
    pub fn close(self, done: u64, total: u64, message: &str) {
        let line = self.line(done, total, message);
        self.say(&line);
    }

    fn line(&self, done: u64, total: u64, message: &str) -> String {
        format!("{} {done}/{total}{}  {message}", self.label, self.unit)
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
