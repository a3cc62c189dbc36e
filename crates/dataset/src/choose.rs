//! Of what passed the filter, what becomes an example: without near-duplicates, so many per
//! prompt, and from each source its share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{ExprFunctionExt, when};
use datafusion::prelude::{DataFrame, col, lit};
use records::parquet_file::Reader;

use crate::columns::DIVERSITY;
use crate::config::Mix;
use crate::engine::{Batches, Engine};
use crate::error::Result;
use crate::rows::column;
use crate::scan::{self, Failure, FileBatches};
use crate::similar::{Resemblance, Similar};
use crate::sql::Selection;

/// Why what passed the filter is no example, in the order in which the reasons are looked at.
pub const NEAR_DUPLICATE_PROBLEM: &str = "near_duplicate_problem";
pub const NEAR_DUPLICATE: &str = "near_duplicate";
pub const PER_PROMPT: &str = "per_prompt";
pub const MIX: &str = "mix";

/// What is chosen from.
pub struct Choose<'a> {
    pub engine: &'a Engine,
    /// The sifted rows in order, their columns, and how they resemble each other.
    pub rows: &'a Path,
    pub schema: SchemaRef,
    pub similar: Arc<Similar>,
    pub selection: &'a Selection,
    pub per_prompt: Option<u32>,
    pub mix: Option<&'a Mix>,
}

impl Choose<'_> {
    /// The rows in their order, with the reason against each.
    pub fn run(&self) -> Result<Batches<'_>> {
        let failure = Failure::default();
        let rows = self.resembling(&failure)?;
        if self.per_prompt.is_none() && self.mix.is_none() {
            // They are in order already.
            return self.engine.stream(rows, &failure);
        }
        let rows = match self.per_prompt {
            Some(n) => self.per_prompt(rows, n)?,
            None => rows,
        };
        let rows = match self.mix {
            Some(mix) => self.mixed(rows, mix)?,
            None => rows,
        };
        let order = ["prompt_id", "sample_index"].map(|name| col(name).sort(true, false));
        self.engine.stream(rows.sort(order.to_vec())?, &failure)
    }

    fn resembling(&self, failure: &Failure) -> Result<DataFrame> {
        let (path, similar) = (self.rows.to_path_buf(), self.similar.clone());
        let schema = resembling_schema(&self.schema);
        let source = {
            let schema = schema.clone();
            move || -> records::Result<FileBatches> {
                Ok(Box::new(Resembling::open(
                    &path,
                    similar.clone(),
                    schema.clone(),
                )?))
            }
        };
        let table = scan::table(schema, vec![Box::new(source)], failure)?;
        let rows = self.engine.context.read_table(table)?;
        let reason = when(col("reason").is_not_null(), col("reason"))
            .when(
                col("near_duplicate_problem").is_not_null(),
                lit(NEAR_DUPLICATE_PROBLEM),
            )
            .when(col("near_duplicate_of").is_not_null(), lit(NEAR_DUPLICATE))
            .end()?;
        Ok(rows.with_column("reason", reason)?)
    }

    fn per_prompt(&self, rows: DataFrame, n: u32) -> Result<DataFrame> {
        let mut order = self.selection.order_by.clone();
        order.push(col("sample_index").sort(true, false));
        let place = row_number()
            .partition_by(vec![col("prompt_id"), col("reason").is_null()])
            .order_by(order)
            .build()?;
        let beyond = col("place").gt(lit(u64::from(n)));
        reject(rows.with_column("place", place)?, beyond, PER_PROMPT)
    }

    /// Whole prompts, in an order that has nothing to do with what they ask.
    fn mixed(&self, rows: DataFrame, mix: &Mix) -> Result<DataFrame> {
        let counts = rows
            .clone()
            .filter(col("reason").is_null())?
            .aggregate(vec![col("source")], vec![count(lit(1)).alias("n")])?;
        let mut available = BTreeMap::new();
        for batch in self.engine.wait(counts.collect())? {
            let sources = cast(column(&batch, "source")?, &DataType::Utf8)?;
            let n = column(&batch, "n")?.as_primitive::<Int64Type>();
            for (source, n) in sources.as_string::<i32>().iter().zip(n.values()) {
                available.insert(source.unwrap_or_default().to_owned(), *n as u64);
            }
        }
        let quotas = quotas(&available, mix);
        let context = &self.engine.context;
        let shuffled =
            context.parse_sql_expr("text_hash(concat('mix ', prompt_id))", rows.schema())?;
        let order = [shuffled, col("prompt_id"), col("sample_index")];
        let place = row_number()
            .partition_by(vec![col("source"), col("reason").is_null()])
            .order_by(order.map(|by| by.sort(true, false)).to_vec())
            .build()?;
        let mut quota = when(
            col("source").is_null(),
            lit(quotas.get("").copied().unwrap_or(0)),
        );
        for (source, n) in &quotas {
            quota = quota.when(col("source").eq(lit(source.as_str())), lit(*n));
        }
        let beyond = col("place_in_source").gt(quota.otherwise(lit(0u64))?);
        reject(rows.with_column("place_in_source", place)?, beyond, MIX)
    }
}

/// Gives those rows a reason that have none.
fn reject(
    rows: DataFrame,
    condition: datafusion::logical_expr::Expr,
    why: &str,
) -> Result<DataFrame> {
    let reason = when(col("reason").is_null().and(condition), lit(why)).otherwise(col("reason"))?;
    Ok(rows.with_column("reason", reason)?)
}

/// Examples from each source.
fn quotas(available: &BTreeMap<String, u64>, mix: &Mix) -> BTreeMap<String, u64> {
    let weight = |source: &String| mix.weights.get(source).copied().unwrap_or(1.0);
    let weighed = || {
        available
            .iter()
            .map(|(source, n)| (source, *n, weight(source)))
    };
    // Rows per unit of weight.
    let unit = match mix.rows {
        Some(rows) => {
            let all: f64 = weighed().map(|(_, _, weight)| weight).sum();
            rows.get() as f64 / all
        }
        None => weighed()
            .filter(|(_, _, weight)| *weight > 0.0)
            .map(|(_, n, weight)| n as f64 / weight)
            .fold(f64::INFINITY, f64::min),
    };
    weighed()
        .map(|(source, n, weight)| {
            let quota = if weight > 0.0 {
                (weight * unit).round() as u64
            } else {
                0
            };
            (source.clone(), quota.min(n))
        })
        .collect()
}

fn resembling_schema(rows: &SchemaRef) -> SchemaRef {
    let mut fields = rows.fields().to_vec();
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    fields.extend([text("near_duplicate_problem"), text("near_duplicate_of")]);
    fields.push(Arc::new(Field::new(DIVERSITY.0, DIVERSITY.1, true)));
    Arc::new(Schema::new(fields))
}

/// The sifted rows with what they resemble.
struct Resembling {
    path: PathBuf,
    rows: Reader,
    similar: Arc<Similar>,
    schema: SchemaRef,
    /// Place of the next row, and of the next survivor.
    row: u32,
    survivor: usize,
}

impl Resembling {
    fn open(path: &Path, similar: Arc<Similar>, schema: SchemaRef) -> records::Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            rows: Reader::open(path)?,
            similar,
            schema,
            row: 0,
            survivor: 0,
        })
    }

    /// What the next row resembles, where it passed the filter.
    fn resemblance(&mut self) -> Option<Resemblance> {
        let (row, resemblance) = *self.similar.rows.get(self.survivor)?;
        let found = row == self.row;
        self.row += 1;
        self.survivor += usize::from(found);
        found.then_some(resemblance)
    }

    fn extended(&mut self, batch: &RecordBatch) -> records::Result<RecordBatch> {
        let found: Vec<_> = (0..batch.num_rows()).map(|_| self.resemblance()).collect();
        let similar = &self.similar;
        let problems: StringArray = found
            .iter()
            .map(|found| found.as_ref().and_then(|found| similar.problem_of(found)))
            .collect();
        let traces: StringArray = found
            .iter()
            .map(|found| found.as_ref().and_then(|found| similar.trace_of(found)))
            .collect();
        let places = found.iter().map(|found| Some(found.as_ref()?.diversity));
        let diversity: UInt32Array = places
            .map(|place| place.filter(|&place| place > 0))
            .collect();
        let mut columns = batch.columns().to_vec();
        columns.extend([
            Arc::new(problems) as ArrayRef,
            Arc::new(traces),
            Arc::new(diversity),
        ]);
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl Iterator for Resembling {
    type Item = records::Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.rows.next()?;
        let extended = batch.and_then(|batch| self.extended(&batch));
        Some(extended.map_err(|error| error.in_file(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn shares_follow_weights_and_what_there_is() {
        let available: BTreeMap<_, _> = [("a", 100), ("b", 30), ("c", 500)]
            .map(|(source, n)| (source.to_owned(), n))
            .into();
        let check = |weights: &[(&str, f64)], rows: Option<u64>, expected: [u64; 3]| {
            let mix = Mix {
                weights: weights.iter().map(|(s, w)| ((*s).to_owned(), *w)).collect(),
                rows: rows.and_then(NonZeroU64::new),
            };
            let found: Vec<_> = quotas(&available, &mix).into_values().collect();
            assert_eq!(found, expected, "{mix:?}");
        };
        check(&[], None, [30, 30, 30]);
        check(&[("a", 2.0)], None, [60, 30, 30]);
        check(&[("b", 0.0)], None, [100, 0, 100]);
        check(&[("b", 0.1), ("c", 5.0)], None, [100, 10, 500]);
        check(&[], Some(60), [20, 20, 20]);
        check(&[("c", 8.0)], Some(400), [40, 30, 320]);
        check(&[("a", 0.0), ("b", 0.0), ("c", 0.0)], None, [0, 0, 0]);
    }
}
