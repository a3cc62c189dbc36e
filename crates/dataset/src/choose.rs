//! Of what passed the filter, what becomes an example: without near-duplicates, so many per
//! prompt, and from each source its share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion_common::DFSchema;
use datafusion_physical_expr::PhysicalExpr;
use records::parquet_file::Reader;

use crate::columns::DIVERSITY;
use crate::config::Mix;
use crate::error::Result;
use crate::expression;
use crate::hash::first_u64;
use crate::prompts::{Prompts, ranges};
use crate::rows::column;
use crate::similar::{Resemblance, Similar};
use crate::sql::Selection;

/// Why what passed the filter is no example, in the order in which the reasons are looked at.
pub const NEAR_DUPLICATE_PROBLEM: &str = "near_duplicate_problem";
pub const NEAR_DUPLICATE: &str = "near_duplicate";
pub const PER_PROMPT: &str = "per_prompt";
pub const MIX: &str = "mix";

/// What a near-duplicate resembles: a prompt, and a trace.
const NEAR_DUPLICATES: [&str; 2] = ["near_duplicate_problem", "near_duplicate_of"];

/// What is chosen from.
pub struct Choose<'a> {
    /// The sifted rows in order, their columns, and how they resemble each other.
    pub rows: &'a Path,
    pub schema: SchemaRef,
    pub similar: &'a Similar,
    pub selection: &'a Selection,
    pub per_prompt: Option<u32>,
    pub mix: Option<&'a Mix>,
}

/// Rows in their order, with the reason against each.
pub type Chosen<'a> = Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>;

impl Choose<'_> {
    /// The rows with the reasons; none when `stop` was set.
    pub fn run(&self, stop: &AtomicBool) -> Result<Option<Chosen<'_>>> {
        let Some(mix) = self.mix else {
            return Ok(Some(self.by_prompt()?));
        };
        let mut shares = Shares::default();
        for batch in self.by_prompt()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            shares.count(&batch?)?;
        }
        let mut shares = shares.among(mix);
        let rows = self.by_prompt()?;
        Ok(Some(Box::new(rows.map(move |batch| shares.cut(&batch?)))))
    }

    /// The rows without near-duplicates and with so many per prompt. Batches hold whole prompts where that matters.
    fn by_prompt(&self) -> Result<Chosen<'_>> {
        let rows = Resembling {
            rows: Reader::open(self.rows)?,
            similar: self.similar,
            row: 0,
            survivor: 0,
        };
        if self.per_prompt.is_none() && self.mix.is_none() {
            return Ok(Box::new(rows));
        }
        let rows = Prompts::new(rows);
        let Some(n) = self.per_prompt else {
            return Ok(Box::new(rows));
        };
        let best = Best::of(n, self.selection, &resembling_schema(&self.schema))?;
        Ok(Box::new(rows.map(move |batch| best.cut(&batch?))))
    }
}

/// So many of each prompt, in the recipe's order.
struct Best {
    n: usize,
    order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
}

impl Best {
    fn of(n: u32, selection: &Selection, schema: &Schema) -> Result<Self> {
        let schema = DFSchema::try_from(schema.clone())?;
        let order = selection.order_by.iter().map(|item| {
            let options = SortOptions {
                descending: !item.asc,
                nulls_first: item.nulls_first,
            };
            Ok((expression::physical(item.expr.clone(), &schema)?, options))
        });
        Ok(Self {
            n: n as usize,
            order: order.collect::<Result<_>>()?,
        })
    }

    fn cut(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (expr, options) in &self.order {
            let column = expr.evaluate(batch)?.into_array(batch.num_rows())?;
            let kind = column.data_type().clone();
            fields.push(SortField::new_with_options(kind, *options));
            columns.push(column);
        }
        let samples = column(batch, "sample_index")?;
        fields.push(SortField::new(samples.data_type().clone()));
        columns.push(samples.clone());
        let order = RowConverter::new(fields)?.convert_columns(&columns)?;

        let mut reasons = Reasons::of(batch)?;
        for rows in ranges(column(batch, "prompt_id")?.as_string()) {
            let mut free: Vec<_> = rows.filter(|&row| reasons.is_free(row)).collect();
            free.sort_by(|&a, &b| order.row(a).cmp(&order.row(b)));
            free.iter()
                .skip(self.n)
                .for_each(|&row| reasons.set(row, PER_PROMPT));
        }
        reasons.in_place(batch)
    }
}

/// The reasons of a batch's rows.
struct Reasons<'a>(Vec<Option<&'a str>>);

impl<'a> Reasons<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let reasons = column(batch, "reason")?.as_string::<i32>();
        Ok(Self(reasons.iter().collect()))
    }

    fn is_free(&self, row: usize) -> bool {
        self.0.get(row).is_some_and(Option::is_none)
    }

    fn set(&mut self, row: usize, why: &'static str) {
        if let Some(reason) = self.0.get_mut(row) {
            *reason = Some(why);
        }
    }

    /// The batch with these.
    fn in_place(self, batch: &RecordBatch) -> Result<RecordBatch> {
        let (schema, mut columns) = (batch.schema(), batch.columns().to_vec());
        let at = schema.index_of("reason")?;
        if let Some(column) = columns.get_mut(at) {
            *column = Arc::new(StringArray::from(self.0));
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

/// Each source's share: whole prompts, in an order that has nothing to do with what they ask.
#[derive(Default)]
struct Shares {
    sources: BTreeMap<String, Source>,
    /// What each prompt has of each source, in the order of the rows.
    groups: Vec<Group>,
    /// The group that comes next.
    next: usize,
}

#[derive(Default)]
struct Source {
    number: u32,
    available: u64,
    quota: u64,
}

struct Group {
    source: u32,
    /// By which prompts are shuffled.
    hash: u64,
    rows: u64,
    /// How many rows of its source come before its own.
    before: u64,
}

/// The rows of each source among the rows of a prompt that have no reason against them yet.
fn groups<'a>(
    batch: &'a RecordBatch,
    reasons: &Reasons<'_>,
) -> Result<Vec<(&'a str, &'a str, Vec<usize>)>> {
    let prompt_ids = column(batch, "prompt_id")?.as_string::<i32>();
    let sources = column(batch, "source")?.as_string::<i32>();
    let mut groups: Vec<(&str, &str, Vec<usize>)> = Vec::new();
    for rows in ranges(prompt_ids) {
        let first = groups.len();
        for row in rows.filter(|&row| reasons.is_free(row)) {
            let source = if sources.is_valid(row) {
                sources.value(row)
            } else {
                ""
            };
            let mut of_prompt = groups.iter_mut().skip(first);
            match of_prompt.find(|(_, of, _)| *of == source) {
                Some((_, _, rows)) => rows.push(row),
                None => groups.push((prompt_ids.value(row), source, vec![row])),
            }
        }
    }
    Ok(groups)
}

impl Shares {
    fn count(&mut self, batch: &RecordBatch) -> Result<()> {
        for (prompt_id, source, rows) in groups(batch, &Reasons::of(batch)?)? {
            let number = self.sources.len() as u32;
            let source = match self.sources.get_mut(source) {
                Some(source) => source,
                None => self.sources.entry(source.to_owned()).or_insert(Source {
                    number,
                    ..Source::default()
                }),
            };
            source.available += rows.len() as u64;
            self.groups.push(Group {
                source: source.number,
                hash: first_u64(format!("mix {prompt_id}").as_bytes()),
                rows: rows.len() as u64,
                before: 0,
            });
        }
        Ok(())
    }

    /// Gives every source its quota, and every group its place.
    fn among(mut self, mix: &Mix) -> Self {
        let available = self.sources.iter();
        let available = available.map(|(name, source)| (name.clone(), source.available));
        let quotas = quotas(&available.collect(), mix);
        for (name, source) in &mut self.sources {
            source.quota = quotas.get(name).copied().unwrap_or(0);
        }
        let mut shuffled: Vec<_> = (0..self.groups.len()).collect();
        // Stable: prompts of one hash stay in order.
        shuffled.sort_by_key(|&at| self.groups[at].hash);
        let mut before = vec![0; self.sources.len()];
        for at in shuffled {
            let group = &mut self.groups[at];
            let before = &mut before[group.source as usize];
            group.before = *before;
            *before += group.rows;
        }
        self
    }

    /// Rejects the next rows' surplus.
    fn cut(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut reasons = Reasons::of(batch)?;
        for (_, source, rows) in groups(batch, &reasons)? {
            let quota = self.sources.get(source).map_or(0, |source| source.quota);
            let before = self.groups.get(self.next).map_or(0, |group| group.before);
            self.next += 1;
            let left = usize::try_from(quota.saturating_sub(before)).unwrap_or(usize::MAX);
            rows.iter()
                .skip(left)
                .for_each(|&row| reasons.set(row, MIX));
        }
        reasons.in_place(batch)
    }
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

/// The columns of the sifted rows, and what `order_by` can name beside them.
fn resembling_schema(rows: &SchemaRef) -> SchemaRef {
    let mut fields = rows.fields().to_vec();
    fields.push(Arc::new(Field::new(DIVERSITY.0, DIVERSITY.1, true)));
    fields.extend(NEAR_DUPLICATES.map(|name| Arc::new(Field::new(name, DataType::Utf8, true))));
    Arc::new(Schema::new(fields))
}

/// The sifted rows with what they resemble. Near-duplicates get their reason here.
struct Resembling<'a> {
    rows: Reader,
    similar: &'a Similar,
    /// Place of the next row, and of the next survivor.
    row: u32,
    survivor: usize,
}

impl Resembling<'_> {
    /// What the next row resembles, where it passed the filter.
    fn resemblance(&mut self) -> Option<Resemblance> {
        let (row, resemblance) = *self.similar.rows.get(self.survivor)?;
        let found = row == self.row;
        self.row += 1;
        self.survivor += usize::from(found);
        found.then_some(resemblance)
    }

    fn extended(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let found: Vec<_> = (0..batch.num_rows()).map(|_| self.resemblance()).collect();
        let found = || found.iter().map(Option::as_ref);
        let similar = self.similar;
        let problems: StringArray = found().map(|of| similar.problem_of(of?)).collect();
        let traces: StringArray = found().map(|of| similar.trace_of(of?)).collect();
        let place = |of: &Resemblance| Some(of.diversity).filter(|&place| place > 0);
        let diversity: UInt32Array = found().map(|of| place(of?)).collect();
        let mut reasons = Reasons::of(batch)?;
        for row in 0..batch.num_rows() {
            match (
                reasons.is_free(row),
                problems.is_valid(row),
                traces.is_valid(row),
            ) {
                (true, true, _) => reasons.set(row, NEAR_DUPLICATE_PROBLEM),
                (true, false, true) => reasons.set(row, NEAR_DUPLICATE),
                _ => {}
            }
        }
        let batch = reasons.in_place(batch)?;
        let added: [ArrayRef; 3] = [Arc::new(diversity), Arc::new(problems), Arc::new(traces)];
        let columns = batch.columns().iter().cloned().chain(added);
        let schema = resembling_schema(&batch.schema());
        Ok(RecordBatch::try_new(schema, columns.collect())?)
    }
}

impl Iterator for Resembling<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.rows.next()?;
        Some(
            batch
                .map_err(Into::into)
                .and_then(|batch| self.extended(&batch)),
        )
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
