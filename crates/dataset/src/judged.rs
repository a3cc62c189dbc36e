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

/// All verdicts in the order of the traces, and the place of the next.
pub struct Verdicts {
    prompt_ids: LargeStringArray,
    samples: UInt32Array,
    verdicts: StringArray,
    next: usize,
}

impl Verdicts {
    /// Reads the verdicts of all files.
    ///
    /// # Errors
    /// Two verdicts on one trace, and files without the columns.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
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
        let found = Self {
            prompt_ids: column(&sorted, "prompt_id")?.as_string().clone(),
            samples: column(&sorted, "sample_index")?.as_primitive().clone(),
            verdicts: column(&sorted, "verdict")?.as_string().clone(),
            next: 0,
        };
        let files = column(&sorted, "file")?.as_primitive::<UInt32Type>();
        let twice = (1..found.samples.len()).find(|&row| found.name(row - 1) == found.name(row));
        match twice.and_then(|row| Some((row, found.name(row)?))) {
            Some((row, (prompt_id, sample_index))) => {
                let path = |row: usize| paths.get(files.value(row) as usize).cloned();
                Err(Error::RepeatedTrace {
                    trace_id: records::trace::trace_id(prompt_id, sample_index),
                    first: path(row - 1).unwrap_or_default(),
                    second: path(row).unwrap_or_default(),
                })
            }
            None => Ok(found),
        }
    }

    /// Prompt and sample of the trace that a verdict is on.
    fn name(&self, row: usize) -> Option<(&str, u32)> {
        let known =
            row < self.samples.len() && self.prompt_ids.is_valid(row) && self.samples.is_valid(row);
        known.then(|| (self.prompt_ids.value(row), self.samples.value(row)))
    }

    /// The verdicts on the next traces, null where there is none.
    pub fn of(&mut self, traces: &RecordBatch) -> Result<StringArray> {
        let prompt_ids = column(traces, "prompt_id")?.as_string::<i32>();
        let samples = column(traces, "sample_index")?.as_primitive::<UInt32Type>();
        let found = (0..traces.num_rows()).map(|row| {
            let trace = (prompt_ids.value(row), samples.value(row));
            while self.next < self.samples.len() {
                match self.name(self.next).map(|verdict| verdict.cmp(&trace)) {
                    None | Some(Ordering::Less) => self.next += 1,
                    Some(Ordering::Equal) => return Some(self.next),
                    Some(Ordering::Greater) => break,
                }
            }
            None
        });
        let found: Vec<_> = found.collect();
        let verdicts = found.into_iter().map(|row| {
            let row = row.filter(|&row| self.verdicts.is_valid(row))?;
            Some(self.verdicts.value(row))
        });
        Ok(verdicts.collect())
    }
}
