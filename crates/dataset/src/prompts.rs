//! Sorted rows, prompt by prompt.

use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;

use crate::error::Result;
use crate::rows::column;

/// Batches of sorted rows in which no prompt is torn.
pub struct Prompts<I> {
    batches: I,
    /// Rows of the prompt that the last batch ended in.
    pending: Vec<RecordBatch>,
}

impl<I: Iterator<Item = Result<RecordBatch>>> Prompts<I> {
    pub fn new(batches: I) -> Self {
        Self {
            batches,
            pending: Vec::new(),
        }
    }

    fn whole(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let batch = match self.batches.next().transpose()? {
                Some(batch) if batch.num_rows() == 0 => continue,
                Some(batch) => batch,
                None => return self.pending(),
            };
            let ids = column(&batch, "prompt_id")?.as_string::<i32>();
            let last = ids.value(batch.num_rows() - 1);
            let start = (0..batch.num_rows())
                .rev()
                .find(|&row| ids.value(row) != last)
                .map_or(0, |row| row + 1);
            let torn = start == 0 && self.continues(ids.value(0))?;
            let rest = batch.slice(start, batch.num_rows() - start);
            if torn || self.pending.is_empty() && start == 0 {
                self.pending.push(rest);
                continue;
            }
            if start > 0 {
                self.pending.push(batch.slice(0, start));
            }
            let whole = self.pending()?;
            self.pending.push(rest);
            return Ok(whole);
        }
    }

    /// Whether the pending rows are of this prompt.
    fn continues(&self, prompt_id: &str) -> Result<bool> {
        self.pending.last().map_or(Ok(false), |batch| {
            let ids = column(batch, "prompt_id")?.as_string::<i32>();
            Ok(ids.value(batch.num_rows() - 1) == prompt_id)
        })
    }

    fn pending(&mut self) -> Result<Option<RecordBatch>> {
        let batches = std::mem::take(&mut self.pending);
        let schema = batches.first().map(RecordBatch::schema);
        let whole = schema.map(|schema| concat_batches(&schema, &batches));
        Ok(whole.transpose()?)
    }
}

impl<I: Iterator<Item = Result<RecordBatch>>> Iterator for Prompts<I> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.whole().transpose()
    }
}

/// The rows of each prompt of such a batch.
pub fn ranges(ids: &StringArray) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = start;
        if first >= ids.len() {
            return None;
        }
        let id = ids.value(first);
        start = (first..ids.len())
            .find(|&row| ids.value(row) != id)
            .unwrap_or(ids.len());
        Some(first..start)
    })
}
