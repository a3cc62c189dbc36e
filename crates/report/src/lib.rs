//! `report.html`: one page about a run, for people. It needs nothing beside it: styles, script and pictures (SVG) are
//! in it, and it loads nothing from anywhere.
//!
//! It is made of what lies in the run folder, whichever stages have come to their end, and of nothing else: the same
//! folder gives the same bytes. Its size is bounded, however large the run; traces are chosen over two narrow columns,
//! and only the chosen rows are read whole.
//!
//! # Layout
//!
//! - [`page()`]: the parts of the page put together; `report.html` in this crate is its template.
//! - `parts`: one file each. `stages`: what each stage says of itself; `samples`: which traces are shown; `curves`: what training measured.
//! - `chart`: pictures from numbers. `words`: numbers as people read them.
//!
//! A new part is a file in `parts`, a field of `page::Page` and a section in the template.

mod chart;
mod curves;
mod error;
mod page;
mod parts;
mod samples;
mod stages;
mod words;

use std::path::PathBuf;

use records::atomic;
use records::run_dir::RunDir;

pub use error::{Error, Result};
pub use page::page;

/// Writes the page of a run and gives its path. `stages` are the names of their folders, in the order of a run. A page that would come out the same is left alone.
///
/// # Errors
/// [`Error::NoRun`] where no stage has left anything, and files that cannot be read.
pub fn write(run: &RunDir, stages: &[&'static str]) -> Result<PathBuf> {
    let path = run.report();
    atomic::write_if_changed(&path, page(run, stages)?.as_bytes())?;
    Ok(path)
}
