//! One graded sample: the row of `samples.parquet`.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use records::benchmark::Problem;
use records::trace::{self, Trace};
use verify::{Verdict, Verifier};

use crate::error::{Error, Result};

/// A trace with its grade. A failed request has neither text nor verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub trace: Trace,
    pub benchmark: String,
    pub role: String,
    pub verdict: Option<Verdict>,
    /// The final answer as it is written in the response.
    pub extracted: Option<String>,
    /// Of the question, where the benchmark says them.
    pub subject: Option<String>,
    pub level: Option<String>,
}

impl Sample {
    /// Grades a trace against the answer of its question.
    pub fn graded(
        mut trace: Trace,
        problem: &Problem,
        benchmark: &str,
        role: &str,
        verifier: Verifier,
    ) -> Self {
        // The gold answer may have been corrected since the row was sampled.
        trace.gold_answer = Some(problem.gold.clone());
        let gold = [problem.gold.as_str()];
        let graded = verifier.verify_answer(&gold, trace.answer.as_deref());
        let extracted = graded.extracted.map(Cow::into_owned);
        let verdict = trace.text.as_ref().map(|_| graded.verdict);
        Self {
            verdict,
            extracted,
            benchmark: benchmark.to_owned(),
            role: role.to_owned(),
            subject: problem.subject.clone(),
            level: problem.level.clone(),
            trace,
        }
    }
}

/// Columns of a trace that say when it was made, which would make equal samples differ.
const OF_TIME: [&str; 2] = ["created_at", "latency_ms"];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, null: bool| Arc::new(Field::new(name, DataType::Utf8, null));
    let traces = trace::schema();
    let lasting = traces
        .fields()
        .iter()
        .filter(|field| !OF_TIME.contains(&field.name().as_str()));
    let graded = ["verdict", "extracted", "subject", "level"].map(|name| text(name, true));
    let place = [text("benchmark", false), text("role", false)];
    let fields: Vec<_> = place
        .into_iter()
        .chain(lasting.cloned())
        .chain(graded)
        .collect();
    Arc::new(Schema::new(fields))
});

/// `benchmark`, `role`, the columns of a trace but its times, `verdict`, `extracted`, `subject`, `level`.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

pub fn to_batch(samples: &[Sample]) -> Result<RecordBatch> {
    let traces: Vec<Trace> = samples.iter().map(|sample| sample.trace.clone()).collect();
    let traces = trace::to_batch(&traces)?;
    let text = |get: fn(&Sample) -> Option<&str>| -> ArrayRef {
        Arc::new(samples.iter().map(get).collect::<StringArray>())
    };
    let mut columns = vec![text(|s| Some(&s.benchmark)), text(|s| Some(&s.role))];
    for (field, column) in traces.schema().fields().iter().zip(traces.columns()) {
        if !OF_TIME.contains(&field.name().as_str()) {
            columns.push(column.clone());
        }
    }
    columns.push(text(|s| s.verdict.map(Verdict::as_str)));
    columns.push(text(|s| s.extracted.as_deref()));
    columns.push(text(|s| s.subject.as_deref()));
    columns.push(text(|s| s.level.as_deref()));
    RecordBatch::try_new(schema(), columns).map_err(|error| Error::Records(error.into()))
}

/// Reads rows back; `path` is for errors.
pub fn from_batch(batch: &RecordBatch, path: &Path) -> Result<Vec<Sample>> {
    let text = |name: &str| -> Result<Vec<Option<String>>> {
        let column = batch
            .column_by_name(name)
            .and_then(|column| column.as_string_opt::<i32>());
        let column = column.ok_or_else(|| {
            let missing = records::Error::MissingColumn {
                column: name.to_owned(),
                present: batch
                    .schema()
                    .fields()
                    .iter()
                    .map(|f| f.name().as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            Error::Records(missing.in_file(path))
        })?;
        Ok((0..column.len())
            .map(|row| column.is_valid(row).then(|| column.value(row).to_owned()))
            .collect())
    };
    let (benchmarks, roles) = (text("benchmark")?, text("role")?);
    let (verdicts, extracted) = (text("verdict")?, text("extracted")?);
    // Files of earlier versions do not have them.
    let lenient = |name: &str| match batch.column_by_name(name) {
        Some(_) => text(name),
        None => Ok(vec![None; batch.num_rows()]),
    };
    let (subjects, levels) = (lenient("subject")?, lenient("level")?);
    let traces = trace::from_batch(batch).map_err(|error| error.in_file(path))?;
    let places = benchmarks.into_iter().zip(roles);
    let graded = verdicts.into_iter().zip(extracted);
    let groups = subjects.into_iter().zip(levels);
    let beside = places.zip(graded).zip(groups);
    traces
        .into_iter()
        .zip(beside)
        .map(
            |(trace, (((benchmark, role), (verdict, extracted)), (subject, level)))| {
                let verdict = verdict
                    .map(|name| {
                        Verdict::from_name(&name).ok_or_else(|| Error::UnknownVerdict {
                            path: path.to_path_buf(),
                            verdict: name,
                        })
                    })
                    .transpose()?;
                Ok(Sample {
                    trace,
                    benchmark: benchmark.unwrap_or_default(),
                    role: role.unwrap_or_default(),
                    verdict,
                    extracted,
                    subject,
                    level,
                })
            },
        )
        .collect()
}
