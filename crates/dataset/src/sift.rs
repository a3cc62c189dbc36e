//! What is known of each trace among the others of its prompt, and whether it passes the
//! filter: the rows of all parts in the order of (prompt_id, sample_index).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, RecordBatch, StringArray, UInt32Array,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion_common::DFSchema;
use datafusion_expr::{Expr, col, lit, when};
use datafusion_physical_expr::PhysicalExpr;
use records::parquet_file::Writer;
use verify::Verdict;

use crate::annotate::Annotated;
use crate::error::{Error, Result};
use crate::expression;
use crate::judged::Verdicts;
use crate::merge::{self, Merged};
use crate::prompts::{Prompts, ranges};
use crate::rows::column;
use crate::similar::Survivors;
use crate::sql::Selection;

/// Why a trace is not an example, in the order in which the reasons are looked at; a filter's
/// reason names the conjunct that failed.
pub const GENERATION_FAILED: &str = "generation_failed";
pub const CONTAMINATED: &str = "contaminated";
pub const EXACT_DUPLICATE: &str = "exact_duplicate";
pub const FILTER: &str = "filter: ";

/// What is sifted.
pub struct Sift<'a> {
    /// Where files are merged that are too many to be open at once, and how many are not.
    pub folder: &'a Path,
    pub fan_in: usize,
    pub annotated: &'a [Annotated],
    /// The trace parts, by whose names errors speak.
    pub parts: &'a [PathBuf],
    pub judged: &'a [PathBuf],
    pub selection: &'a Selection,
}

impl Sift<'_> {
    /// Writes the rows to `path`, and hands those that pass to `survivors`; none when `stop` was
    /// set.
    pub fn run(
        &self,
        path: &Path,
        survivors: &mut Survivors,
        stop: &AtomicBool,
    ) -> Result<Option<SchemaRef>> {
        let slices = self.annotated.iter().flat_map(|part| &part.slices);
        let slices = slices.map(|slice| slice.path.clone()).collect();
        let Some(files) = merge::few(slices, self.fan_in, self.folder, stop)? else {
            return Ok(None);
        };
        let mut verdicts = Verdicts::read(self.judged)?;
        let mut sifted: Option<(Writer, SchemaRef, Arc<dyn PhysicalExpr>)> = None;
        let mut last = None;
        for batch in Prompts::new(Merged::open(&files)?) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = batch?;
            self.refuse_repetition(&batch, &mut last)?;
            let judged = ("judge_verdict", Arc::new(verdicts.of(&batch)?) as ArrayRef);
            let added = [judged].into_iter().chain(prompt_columns(&batch)?);
            let batch = with_columns(&batch, added)?;
            let (writer, schema, reason) = match &mut sifted {
                Some(sifted) => sifted,
                None => {
                    let reason = self.reason(&batch.schema())?;
                    let mut fields = batch.schema().fields().to_vec();
                    fields.push(Arc::new(Field::new("reason", DataType::Utf8, true)));
                    let schema = Arc::new(Schema::new(fields));
                    let writer = Writer::create(path, schema.clone(), &[])?;
                    sifted.insert((writer, schema, reason))
                }
            };
            let reasons = reason.evaluate(&batch)?.into_array(batch.num_rows())?;
            let mut columns = batch.columns().to_vec();
            columns.push(cast(&reasons, &DataType::Utf8)?);
            let batch = RecordBatch::try_new(schema.clone(), columns)?;
            survivors.take(&batch)?;
            writer.write(&batch)?;
        }
        let Some((writer, schema, _)) = sifted else {
            return Err(Error::Unaccounted { n_in: 0, n_out: 0 });
        };
        writer.finish()?;
        Ok(Some(schema))
    }

    /// The first reason that applies, or null.
    fn reason(&self, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
        let mut case = when(col("text_hash").is_null(), lit(GENERATION_FAILED))
            .when(col("contaminated_by").is_not_null(), lit(CONTAMINATED))
            .when(col("exact_duplicate"), lit(EXACT_DUPLICATE));
        for (sql, conjunct) in &self.selection.conjuncts {
            let failed = Expr::IsNotTrue(Box::new(conjunct.clone()));
            case = case.when(failed, lit(format!("{FILTER}{sql}")));
        }
        let schema = DFSchema::try_from(schema.as_ref().clone())?;
        Ok(expression::physical(case.end()?, &schema)?)
    }

    /// Which of two traces of one name is meant cannot be known; rows without a name are no
    /// traces.
    fn refuse_repetition(
        &self,
        batch: &RecordBatch,
        last: &mut Option<(String, u32, u32)>,
    ) -> Result<()> {
        let names = Names::of(batch)?;
        for row in 0..batch.num_rows() {
            let (prompt_id, sample_index, part) = names.get(row, self.parts)?;
            if let Some((last_prompt, last_sample, last_part)) = last
                && (last_prompt.as_str(), *last_sample) == (prompt_id, sample_index)
            {
                let path = |part: u32| self.parts.get(part as usize).cloned().unwrap_or_default();
                return Err(Error::RepeatedTrace {
                    trace_id: records::trace::trace_id(prompt_id, sample_index),
                    first: path(part.min(*last_part)),
                    second: path(part.max(*last_part)),
                });
            }
            match last {
                Some(last) if last.0 == prompt_id => (last.1, last.2) = (sample_index, part),
                _ => *last = Some((prompt_id.to_owned(), sample_index, part)),
            }
        }
        Ok(())
    }
}

/// The columns by which a trace is known.
struct Names<'a> {
    prompt_id: &'a StringArray,
    sample_index: &'a UInt32Array,
    part: &'a UInt32Array,
    part_row: &'a UInt64Array,
}

impl<'a> Names<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            prompt_id: column(batch, "prompt_id")?.as_string(),
            sample_index: column(batch, "sample_index")?.as_primitive(),
            part: column(batch, "part")?.as_primitive(),
            part_row: column(batch, "part_row")?.as_primitive(),
        })
    }

    /// The trace's prompt, its sample and its part.
    fn get(&self, row: usize, parts: &[PathBuf]) -> Result<(&'a str, u32, u32)> {
        let part = self.part.value(row);
        for (column, array) in [
            ("prompt_id", self.prompt_id as &dyn Array),
            ("sample_index", self.sample_index),
        ] {
            if array.is_null(row) {
                let error = records::Error::NullValue {
                    column: column.to_owned(),
                    row: Some(self.part_row.value(row) + 1),
                };
                let path = parts.get(part as usize).cloned().unwrap_or_default();
                return Err(Error::Records(error.in_file(&path)));
            }
        }
        Ok((
            self.prompt_id.value(row),
            self.sample_index.value(row),
            part,
        ))
    }
}

/// How each trace stands among those of its prompt. What failed is missing from a pass rate, and so is what has a gold
/// answer that could not be read.
fn prompt_columns(batch: &RecordBatch) -> Result<[(&'static str, ArrayRef); 4]> {
    let n_rows = batch.num_rows();
    let hashes = column(batch, "text_hash")?.as_primitive::<UInt64Type>();
    let verdicts = column(batch, "verdict")?.as_string::<i32>();
    let mut exact_duplicate = Vec::with_capacity(n_rows);
    let (mut pass_rate, mut n_samples) = (Vec::with_capacity(n_rows), Vec::with_capacity(n_rows));
    let mut seen = HashSet::new();
    for rows in ranges(column(batch, "prompt_id")?.as_string()) {
        seen.clear();
        let (mut graded, mut correct) = (0u32, 0u32);
        for row in rows.clone() {
            exact_duplicate.push(hashes.is_valid(row) && !seen.insert(hashes.value(row)));
            let verdict = verdicts.is_valid(row).then(|| verdicts.value(row));
            match verdict.and_then(Verdict::from_name) {
                Some(Verdict::Correct) => (graded, correct) = (graded + 1, correct + 1),
                Some(Verdict::Incorrect | Verdict::NoAnswer) => graded += 1,
                Some(Verdict::GoldUnreadable) | None => {}
            }
        }
        let rate = (graded > 0).then(|| (f64::from(correct) / f64::from(graded)) as f32);
        let sampled = rows.clone().filter(|&row| hashes.is_valid(row)).count() as u32;
        pass_rate.resize(rows.end, rate);
        n_samples.resize(rows.end, sampled);
    }
    let difficulty: StringArray = pass_rate.iter().map(|rate| rate.map(difficulty)).collect();
    Ok([
        (
            "exact_duplicate",
            Arc::new(BooleanArray::from(exact_duplicate)),
        ),
        ("pass_rate", Arc::new(Float32Array::from(pass_rate))),
        ("n_samples", Arc::new(UInt32Array::from(n_samples))),
        ("difficulty", Arc::new(difficulty)),
    ])
}

fn with_columns(
    batch: &RecordBatch,
    added: impl Iterator<Item = (&'static str, ArrayRef)>,
) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (batch.schema().fields().to_vec(), batch.columns().to_vec());
    for (name, column) in added {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

/// The band of a pass rate.
fn difficulty(pass_rate: f32) -> &'static str {
    match pass_rate {
        rate if rate <= 0.0 => "unsolved",
        rate if rate <= 1.0 / 3.0 => "hard",
        rate if rate <= 2.0 / 3.0 => "medium",
        rate if rate < 1.0 => "easy",
        _ => "solved",
    }
}
