//! How the traces that passed the filter resemble each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{UInt32Type, UInt64Type};
use records::parquet_file::Reader;
use records::trace::trace_id;

use crate::annotate::{Annotated, Compared};
use crate::config::Deduplicate;
use crate::error::{Error, Result};
use crate::minhash::{Signature, similarity};
use crate::near_duplicates;
use crate::rows::column;
use crate::signatures::{self, Mapped};

/// Traces of a prompt that are put into an order of diversity; it takes their square.
const DIVERSE: usize = 512;

/// The rows that passed the filter, in order, while they are found, and their signatures.
pub struct Survivors {
    compared: Compared,
    /// Of each part, where signatures are wanted.
    problems: Vec<signatures::Reader>,
    traces: Vec<signatures::Reader>,
    problem_writer: signatures::Writer,
    trace_writer: signatures::Writer,
    paths: [PathBuf; 2],
    found: Found,
    n_rows: u64,
    prompt: String,
}

#[derive(Default)]
struct Found {
    /// Places in the sorted rows.
    rows: Vec<u32>,
    /// Where in `rows` a prompt begins.
    prompts: Vec<u32>,
}

/// What one survivor resembles. Names are places in [`Similar::rows`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resemblance {
    pub problem_of: Option<u32>,
    pub trace_of: Option<u32>,
    /// From 1; 0 of a near-duplicate, and where no order was asked for.
    pub diversity: u32,
}

/// What the survivors resemble.
#[derive(Default)]
pub struct Similar {
    /// Places of the survivors in the sorted rows, ascending, and what is said of each.
    pub rows: Vec<(u32, Resemblance)>,
    /// Prompt and sample of the survivors that others point to.
    names: HashMap<u32, (String, u32)>,
}

impl Survivors {
    pub fn new(compared: Compared, annotated: &[Annotated], folder: &Path) -> Result<Self> {
        let open = |wanted: bool, path: fn(&Annotated) -> &PathBuf| -> Result<Vec<_>> {
            let paths = annotated.iter().filter(|_| wanted).map(path);
            paths.map(|path| signatures::Reader::open(path)).collect()
        };
        let paths = ["problems", "traces"].map(|name| folder.join(format!("{name}.minhash")));
        Ok(Self {
            compared,
            problems: open(compared.problems, |part| &part.problems)?,
            traces: open(compared.traces, |part| &part.traces)?,
            problem_writer: signatures::Writer::from_row(&paths[0], 0)?,
            trace_writer: signatures::Writer::from_row(&paths[1], 0)?,
            paths,
            found: Found::default(),
            n_rows: 0,
            prompt: String::new(),
        })
    }

    /// Files that it holds open.
    pub fn n_open(&self) -> usize {
        self.problems.len() + self.traces.len() + 2
    }

    /// Takes those of the next sorted rows that have no reason against them.
    pub fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let reasons = column(batch, "reason")?;
        let ids = column(batch, "prompt_id")?.as_string::<i32>();
        let parts = column(batch, "part")?.as_primitive::<UInt32Type>();
        let part_rows = column(batch, "part_row")?.as_primitive::<UInt64Type>();
        let first = self.n_rows;
        self.n_rows += batch.num_rows() as u64;
        if !self.compared.problems && !self.compared.traces {
            return Ok(());
        }
        let Ok(first) = u32::try_from(first + batch.num_rows() as u64).map(|_| first as u32) else {
            return Err(Error::TooManyRows);
        };
        for row in (0..batch.num_rows()).filter(|&row| reasons.is_null(row)) {
            let (part, part_row) = (parts.value(row) as usize, part_rows.value(row));
            let new_prompt = self.found.rows.is_empty() || self.prompt != ids.value(row);
            if new_prompt {
                self.prompt.clear();
                self.prompt.push_str(ids.value(row));
                self.found.prompts.push(self.found.rows.len() as u32);
                if let Some(problems) = self.problems.get(part) {
                    self.problem_writer.write(Some(&problems.read(part_row)?))?;
                }
            }
            self.found.rows.push(first + row as u32);
            if let Some(traces) = self.traces.get(part) {
                self.trace_writer.write(Some(&traces.read(part_row)?))?;
            }
        }
        Ok(())
    }

    /// Compares them. Of `rows`, the sorted rows' file, the names are read that are pointed to.
    pub fn compare(
        self,
        deduplicate: Option<&Deduplicate>,
        diverse: bool,
        rows: &Path,
    ) -> Result<Similar> {
        let Self {
            problem_writer,
            trace_writer,
            paths,
            found,
            ..
        } = self;
        problem_writer.finish()?;
        trace_writer.finish()?;
        let mut similar = Similar {
            rows: found
                .rows
                .iter()
                .map(|&row| (row, Resemblance::default()))
                .collect(),
            names: HashMap::new(),
        };
        if found.rows.is_empty() {
            return Ok(similar);
        }
        let (problems, traces) = (Mapped::open(&paths[0])?, Mapped::open(&paths[1])?);
        if let Some(threshold) = deduplicate.and_then(|d| d.problems) {
            similar.problems(&found.prompts, &find(problems.all(), threshold));
        }
        if let Some(threshold) = deduplicate.and_then(|d| d.traces) {
            similar.traces(traces.all(), threshold);
        }
        if diverse {
            similar.diversity(&found.prompts, traces.all());
        }
        similar.read_names(rows)?;
        Ok(similar)
    }
}

/// As [`near_duplicates::find`], but that texts without words resemble nothing.
fn find(signatures: &[Signature], threshold: f64) -> Vec<Option<u32>> {
    let mut found = near_duplicates::find(signatures, threshold);
    for (found, signature) in found.iter_mut().zip(signatures) {
        if *signature == signatures::NONE {
            *found = None;
        }
    }
    found
}

impl Similar {
    fn problems(&mut self, prompts: &[u32], found: &[Option<u32>]) {
        for (prompt, of) in found.iter().enumerate() {
            let of = of.and_then(|of| prompts.get(of as usize).copied());
            for (_, resemblance) in prompt_rows(prompts, prompt, &mut self.rows) {
                resemblance.problem_of = of;
            }
        }
    }

    /// Rows whose problem is a repetition are out already, and nothing is compared with them.
    fn traces(&mut self, signatures: &[Signature], threshold: f64) {
        let kept: Vec<u32> = (0..)
            .zip(&self.rows)
            .filter(|(_, (_, resemblance))| resemblance.problem_of.is_none())
            .map(|(at, _)| at)
            .collect();
        let found = if kept.len() == self.rows.len() {
            find(signatures, threshold)
        } else {
            let signatures: Vec<_> = kept
                .iter()
                .filter_map(|&at| signatures.get(at as usize).copied())
                .collect();
            find(&signatures, threshold)
        };
        for (at, of) in kept.iter().zip(found) {
            if let Some((_, resemblance)) = self.rows.get_mut(*at as usize) {
                resemblance.trace_of = of.and_then(|of| kept.get(of as usize).copied());
            }
        }
    }

    /// Each prompt's first trace, then always the one whose nearest among those before it is
    /// farthest (Gonzalez 1985).
    fn diversity(&mut self, prompts: &[u32], signatures: &[Signature]) {
        for (prompt, &start) in prompts.iter().enumerate() {
            let rows = prompt_rows(prompts, prompt, &mut self.rows);
            let mut left: Vec<(usize, f64)> = rows
                .iter()
                .enumerate()
                .filter(|(_, (_, r))| r.problem_of.is_none() && r.trace_of.is_none())
                .map(|(at, _)| (at, -1.0))
                .collect();
            let mut place = 0;
            while let Some(next) = farthest(&left) {
                let (at, _) = left.remove(next);
                place += 1;
                if let Some((_, resemblance)) = rows.get_mut(at) {
                    resemblance.diversity = place;
                }
                let signature = |at: usize| signatures.get(start as usize + at);
                if place as usize >= DIVERSE {
                    continue;
                }
                for (other, nearest) in &mut left {
                    if let (Some(a), Some(b)) = (signature(at), signature(*other)) {
                        *nearest = nearest.max(similarity(a, b));
                    }
                }
            }
        }
    }

    fn read_names(&mut self, rows: &Path) -> Result<()> {
        let pointed = self
            .rows
            .iter()
            .flat_map(|(_, r)| [r.problem_of, r.trace_of]);
        let mut wanted: Vec<(u32, u32)> = pointed
            .flatten()
            .filter_map(|at| Some((self.rows.get(at as usize)?.0, at)))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let (mut first, mut wanted) = (0, wanted.into_iter().peekable());
        if wanted.peek().is_none() {
            return Ok(());
        }
        for batch in Reader::open_columns(rows, Some(&["prompt_id", "sample_index"]))? {
            let batch = batch?;
            let ids = column(&batch, "prompt_id")?.as_string::<i32>();
            let samples = column(&batch, "sample_index")?.as_primitive::<UInt32Type>();
            let end = first + batch.num_rows() as u32;
            while let Some((row, at)) = wanted.next_if(|(row, _)| *row < end) {
                let row = (row - first) as usize;
                self.names
                    .insert(at, (ids.value(row).to_owned(), samples.value(row)));
            }
            first = end;
        }
        Ok(())
    }

    /// The prompt that is repeated.
    pub fn problem_of(&self, resemblance: &Resemblance) -> Option<&str> {
        let (prompt_id, _) = self.names.get(&resemblance.problem_of?)?;
        Some(prompt_id)
    }

    /// The trace that is repeated.
    pub fn trace_of(&self, resemblance: &Resemblance) -> Option<String> {
        let (prompt_id, sample_index) = self.names.get(&resemblance.trace_of?)?;
        Some(trace_id(prompt_id, *sample_index))
    }
}

fn prompt_rows<'a, T>(prompts: &[u32], prompt: usize, rows: &'a mut [T]) -> &'a mut [T] {
    let start = prompts
        .get(prompt)
        .map_or(rows.len(), |&start| start as usize);
    let end = prompts
        .get(prompt + 1)
        .map_or(rows.len(), |&end| end as usize);
    rows.get_mut(start..end).unwrap_or_default()
}

/// The first of those that are least like what was taken.
fn farthest(left: &[(usize, f64)]) -> Option<usize> {
    let places = 0..left.len();
    places.min_by(|&a, &b| left[a].1.total_cmp(&left[b].1))
}
