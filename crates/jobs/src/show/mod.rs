//! `stillroom show`: pages through the rows of a run's traces or dataset, or of a judge's replies.
//!
//! # Layout
//!
//! - [`show`]: which files, which rows. `block`: a row in words. `visible`: control characters that do nothing.
//!   `pager`: where it goes.

mod block;
mod pager;
mod visible;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use dataset::browse::{self, Source, Wanted};
use generation::judge;
use records::files;
use records::run_dir::RunDir;
use records::stats::Split;

use crate::error::{Error, Result, io};

/// What `show` takes.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    #[arg(value_enum)]
    pub what: What,
    /// The run folder
    pub run_dir: PathBuf,
    /// Only rows for which this SQL condition is true; a wrong column is answered with the list
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<String>,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// These columns alone, one a line
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Whole texts, instead of a problem's beginning and a thought's end
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// The traces of the run
    Traces,
    /// What a judge replied about them
    Replies,
    /// The dataset: train, validation and rejected, the column `split` says which
    Dataset,
}

/// Prints the rows, through a pager where stdout is a terminal. A reader that has seen enough is no error.
pub fn show(args: &ShowArgs, stop: &AtomicBool) -> Result<()> {
    let layout = match (args.columns.is_empty(), args.what) {
        (false, _) => block::Layout::Columns,
        (true, What::Traces | What::Replies) => block::Layout::Traces,
        (true, What::Dataset) => block::Layout::Dataset,
    };
    let wanted = Wanted {
        condition: args.condition.clone(),
        columns: match layout.columns() {
            [] => args.columns.clone(),
            own => own.iter().map(|name| (*name).to_owned()).collect(),
        },
    };
    let rows = browse::rows(sources(args.what, &args.run_dir)?, &wanted).map_err(refused)?;
    let mut out = pager::Out::open()?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    for records in rows {
        for record in records.map_err(refused)? {
            if left == 0 || stop.load(Ordering::Relaxed) {
                return out.close();
            }
            left -= 1;
            let text = block::block(&record, layout, args.full);
            if !out.write(&text)? {
                return out.close();
            }
        }
        if left == 0 || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    out.close()
}

fn sources(what: What, root: &Path) -> Result<Vec<Source>> {
    let run = RunDir::new(root);
    if !root.is_dir() {
        return Err(nothing(root, "there is no such folder"));
    }
    if what != What::Dataset {
        let dir = match what {
            What::Replies => judge::stage::replies(&run.judged()),
            _ => run.traces(),
        };
        let parts = files::trace_parts(&dir)?;
        if parts.is_empty() {
            return Err(nothing(&dir, "there are none"));
        }
        let sources = parts.into_iter().map(|path| Source { path, split: None });
        return Ok(sources.collect());
    }
    let mut sources = Vec::new();
    for split in Split::ALL {
        let files = files::split_files(&run.dataset(), split)?;
        sources.extend(files.into_iter().map(|path| Source {
            path,
            split: Some(split.as_str()),
        }));
    }
    match sources.is_empty() {
        true => Err(nothing(&run.dataset(), "there is no dataset")),
        false => Ok(sources),
    }
}

fn nothing(dir: &Path, message: &str) -> Error {
    Error::Usage {
        message: format!("{}: {message}", dir.display()),
        hint: "name a run folder, such as runs/quickstart, that the stage before has filled".into(),
    }
}

/// What is wrong with the command line, and what is wrong with the files.
fn refused(error: dataset::Error) -> Error {
    match error {
        dataset::Error::Config {
            key,
            message,
            allowed,
        } => Error::Usage {
            message: format!("{key}: {message}"),
            hint: format!("allowed: {allowed}"),
        },
        other => Error::command("show", other),
    }
}

/// An error of the terminal or the pager.
fn broken(error: std::io::Error) -> Error {
    io("stdout")(error)
}
