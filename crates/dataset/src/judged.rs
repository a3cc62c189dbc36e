//! The judge's verdicts beside the traces that they are on.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, LargeStringArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use records::column::conform;
use records::parquet_file::Reader;

use crate::error::{Error, Result};
use crate::rows::column;

/// All verdicts in the order of the traces, and the place of the next. They are held in memory, a hundred bytes each.
pub struct Verdicts<'a> {
    paths: &'a [PathBuf],
    prompt_ids: LargeStringArray,
    samples: UInt32Array,
    verdicts: StringArray,
    /// Of each verdict its place in `paths`.
    files: UInt32Array,
    next: usize,
}

impl<'a> Verdicts<'a> {
    /// Reads the verdicts of all files.
    ///
    /// # Errors
    /// Files without the columns.
    pub fn read(paths: &'a [PathBuf]) -> Result<Self> {
        let field = |name: &str, kind| Field::new(name, kind, true);
        let read = Arc::new(Schema::new(vec![
            field("prompt_id", DataType::Utf8),
            field("sample_index", DataType::UInt32),
            field("verdict", DataType::Utf8),
        ]));
        // Together the ids can pass the two gigabytes that a column of texts may have.
        let schema = Arc::new(Schema::new(vec![
            field("prompt_id", DataType::LargeUtf8),
            field("sample_index", DataType::UInt32),
            field("verdict", DataType::Utf8),
            field("file", DataType::UInt32),
        ]));
        let mut batches = Vec::new();
        for (file, path) in (0..).zip(paths) {
            let names = ["prompt_id", "sample_index", "verdict"];
            for batch in Reader::open_columns(path, Some(&names))? {
                let batch = conform(&batch?, &read).map_err(|error| error.in_file(path))?;
                let mut columns = batch.columns().to_vec();
                if let Some(ids) = columns.first_mut() {
                    *ids = cast(ids, &DataType::LargeUtf8)?;
                }
                columns.push(Arc::new(UInt32Array::from_value(file, batch.num_rows())));
                batches.push(RecordBatch::try_new(schema.clone(), columns)?);
            }
        }
        let all = concat_batches(&schema, &batches)?;
        drop(batches);
        let keys = all.columns().iter().take(2);
        let keys: Vec<_> = keys
            .map(|values| SortColumn {
                values: values.clone(),
                options: None,
            })
            .collect();
        let sorted = take_record_batch(&all, &lexsort_to_indices(&keys, None)?)?;
        Ok(Self {
            paths,
            prompt_ids: column(&sorted, "prompt_id")?.as_string().clone(),
            samples: column(&sorted, "sample_index")?.as_primitive().clone(),
            verdicts: column(&sorted, "verdict")?.as_string().clone(),
            files: column(&sorted, "file")?.as_primitive().clone(),
            next: 0,
        })
    }

    /// Prompt and sample of the trace that a verdict is on.
    fn name(&self, row: usize) -> Option<(&str, u32)> {
        let known =
            row < self.samples.len() && self.prompt_ids.is_valid(row) && self.samples.is_valid(row);
        known.then(|| (self.prompt_ids.value(row), self.samples.value(row)))
    }

    /// The verdicts on the next traces, null where there is none.
    ///
    /// # Errors
    /// Two verdicts on one trace.
    pub fn of(&mut self, traces: &RecordBatch) -> Result<StringArray> {
        let prompt_ids = column(traces, "prompt_id")?.as_string::<i32>();
        let samples = column(traces, "sample_index")?.as_primitive::<UInt32Type>();
        let mut found = Vec::with_capacity(traces.num_rows());
        for row in 0..traces.num_rows() {
            let verdict = self.on((prompt_ids.value(row), samples.value(row)))?;
            found.push(verdict.filter(|&at| self.verdicts.is_valid(at)));
        }
        let verdicts = found.into_iter().map(|at| Some(self.verdicts.value(at?)));
        Ok(verdicts.collect())
    }

    /// Where the verdict on a trace stands; the traces come in order.
    fn on(&mut self, trace: (&str, u32)) -> Result<Option<usize>> {
        while self.next < self.samples.len() {
            match self.name(self.next).map(|verdict| verdict.cmp(&trace)) {
                None | Some(Ordering::Less) => self.next += 1,
                Some(Ordering::Greater) => break,
                Some(Ordering::Equal) if self.name(self.next + 1) == Some(trace) => {
                    let path = |at: usize| self.paths.get(self.files.value(at) as usize);
                    return Err(Error::RepeatedTrace {
                        trace_id: records::trace::trace_id(trace.0, trace.1),
                        first: path(self.next).cloned().unwrap_or_default(),
                        second: path(self.next + 1).cloned().unwrap_or_default(),
                    });
                }
                Some(Ordering::Equal) => return Ok(Some(self.next)),
            }
        }
        Ok(None)
    }
}
