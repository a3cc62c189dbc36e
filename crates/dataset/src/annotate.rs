//! The DataFusion plan: from the text columns of the trace parts to one narrow row per trace
//! that says what becomes of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, when};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use futures::StreamExt;
use tokio::runtime::Runtime;

use crate::contamination::Index;
use crate::error::{Error, Result, io};
use crate::scan::{self, Failure};
use crate::sql::Selection;
use crate::udf;

/// `text` and `problem` end here: everything above is ids, counts, verdicts and hashes.
///
/// The failed samples of a prompt are missing from its pass rate, and so are those whose gold
/// answer could not be read.
const ANNOTATE: &str = "
    WITH annotated AS (
        SELECT part, part_row, payload_bytes, prompt_id, sample_index, source, teacher,
            n_prompt_tokens, n_completion_tokens AS n_tokens, finish_reason, truncated,
            text IS NULL AS failed,
            verdict(gold_answer, answer, text) AS verdict,
            repetition(text) AS repetition,
            text_hash(text) AS text_hash,
            contaminated_by(problem) AS contaminated_by
        FROM traces
    )
    SELECT *,
        text_hash IS NOT NULL
            AND row_number() OVER (PARTITION BY prompt_id, text_hash ORDER BY sample_index) > 1
            AS exact_duplicate,
        CAST(avg(CASE
                WHEN verdict = 'correct' THEN 1.0
                WHEN verdict IN ('incorrect', 'no_answer') THEN 0.0
            END) OVER (PARTITION BY prompt_id) AS REAL) AS pass_rate,
        CAST(count(text_hash) OVER (PARTITION BY prompt_id) AS INT UNSIGNED) AS n_samples
    FROM annotated";

/// Why a trace is not an example, in the order in which the reasons are looked at; a filter's
/// reason names the conjunct that failed.
pub const GENERATION_FAILED: &str = "generation_failed";
pub const CONTAMINATED: &str = "contaminated";
pub const EXACT_DUPLICATE: &str = "exact_duplicate";
pub const FILTER: &str = "filter: ";
pub const PER_PROMPT: &str = "per_prompt";

/// How soon a query that is under way notices `stop`.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

/// What is known of one trace without its payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where the trace stands: the index of its part, and its row there.
    pub part: u32,
    pub part_row: u64,
    /// About how much memory the whole trace takes.
    pub payload_bytes: u64,
    pub prompt_id: String,
    pub sample_index: u32,
    pub source: Option<String>,
    pub n_tokens: Option<u32>,
    pub finish_reason: Option<String>,
    pub truncated: bool,
    pub verdict: Option<String>,
    pub repetition: Option<f32>,
    pub exact_duplicate: bool,
    pub contaminated_by: Option<String>,
    pub pass_rate: Option<f32>,
    /// Why it is rejected; `None` for an example.
    pub reject_reason: Option<String>,
}

/// What the annotation reads and how much it may use.
pub struct Annotate<'a> {
    pub parts: &'a [PathBuf],
    pub contamination: Index,
    pub selection: &'a Selection,
    pub per_prompt: Option<u32>,
    /// Bytes; without a limit everything stays in memory.
    pub memory_limit: Option<usize>,
    /// An empty folder for what does not fit.
    pub spill_dir: &'a Path,
}

/// The annotated rows of all parts in the order of (prompt_id, sample_index), batch by batch.
pub struct Annotated {
    // Before the runtime, on which it depends.
    stream: SendableRecordBatchStream,
    runtime: Runtime,
    failure: Failure,
}

impl Annotate<'_> {
    pub fn run(self) -> Result<Annotated> {
        let n_threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(16);
        let n_threads = match self.memory_limit {
            // Every partition of every sort keeps a reservation of its own.
            Some(limit) => n_threads.min(limit / (64 << 20)).max(1),
            None => n_threads,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n_threads)
            .enable_all()
            .build()
            .map_err(io(self.spill_dir))?;
        let failure = Failure::default();
        let context = self.context(n_threads)?;
        for function in udf::all(Arc::new(self.contamination)) {
            context.register_udf(function);
        }
        let table = scan::table(self.parts, n_threads, &failure)?;
        context.register_table("traces", Arc::new(table))?;
        let stream = runtime.block_on(async {
            let rows = context.sql(ANNOTATE).await?;
            let rows = rows.with_column("reason", reason(&self.selection.conjuncts)?)?;
            let rows = match self.per_prompt {
                None => rows,
                Some(n) => {
                    let mut order = self.selection.order_by.clone();
                    order.push(col("sample_index").sort(true, false));
                    let place = row_number()
                        .partition_by(vec![col("prompt_id"), col("reason").is_null()])
                        .order_by(order)
                        .build()?;
                    let beyond = col("reason")
                        .is_null()
                        .and(col("place").gt(lit(u64::from(n))));
                    let reason = when(beyond, lit(PER_PROMPT)).otherwise(col("reason"))?;
                    rows.with_column("place", place)?
                        .with_column("reason", reason)?
                }
            };
            rows.select_columns(&COLUMNS)?
                .sort(vec![
                    col("prompt_id").sort(true, false),
                    col("sample_index").sort(true, false),
                ])?
                .execute_stream()
                .await
        })?;
        Ok(Annotated {
            stream,
            runtime,
            failure,
        })
    }

    fn context(&self, n_threads: usize) -> Result<SessionContext> {
        let mut environment = RuntimeEnvBuilder::new().with_temp_file_path(self.spill_dir);
        let mut config = SessionConfig::new().with_target_partitions(n_threads);
        if let Some(limit) = self.memory_limit {
            environment = environment.with_memory_pool(Arc::new(FairSpillPool::new(limit)));
            // The default of 10 MB per sort would be all there is under a small limit.
            let reservation = (limit / (16 * n_threads)).min(10 << 20);
            config = config.with_sort_spill_reservation_bytes(reservation);
        }
        Ok(SessionContext::new_with_config_rt(
            config,
            environment.build_arc()?,
        ))
    }
}

const COLUMNS: [&str; 15] = [
    "part",
    "part_row",
    "payload_bytes",
    "prompt_id",
    "sample_index",
    "source",
    "n_tokens",
    "finish_reason",
    "truncated",
    "verdict",
    "repetition",
    "exact_duplicate",
    "contaminated_by",
    "pass_rate",
    "reason",
];

/// The first reason that applies, or null.
fn reason(conjuncts: &[(String, Expr)]) -> datafusion::error::Result<Expr> {
    let mut case = when(col("failed"), lit(GENERATION_FAILED))
        .when(col("contaminated_by").is_not_null(), lit(CONTAMINATED))
        .when(col("exact_duplicate"), lit(EXACT_DUPLICATE));
    for (sql, conjunct) in conjuncts {
        let failed = Expr::IsNotTrue(Box::new(conjunct.clone()));
        case = case.when(failed, lit(format!("{FILTER}{sql}")));
    }
    case.end()
}

impl Annotated {
    fn rows(batch: &RecordBatch) -> Result<Vec<Row>> {
        let column = |at: usize| batch.column(at).as_ref();
        let (part, part_row) = (
            column(0).as_primitive::<UInt32Type>(),
            column(1).as_primitive::<UInt64Type>(),
        );
        let payload_bytes = column(2).as_primitive::<UInt64Type>();
        let (prompt_id, sample_index) = (column(3), column(4).as_primitive::<UInt32Type>());
        let (n_tokens, truncated) = (
            column(6).as_primitive::<UInt32Type>(),
            column(8).as_boolean(),
        );
        let repetition = column(10).as_primitive::<Float32Type>();
        let exact_duplicate = column(11).as_boolean();
        let pass_rate = column(13).as_primitive::<Float32Type>();
        (0..batch.num_rows())
            .map(|row| {
                if !prompt_id.is_valid(row) || !sample_index.is_valid(row) {
                    let column = if prompt_id.is_valid(row) {
                        "sample_index"
                    } else {
                        "prompt_id"
                    };
                    let row = part_row.value(row) as usize;
                    return Err(Error::Records(records::Error::NullValue {
                        column: column.into(),
                        row,
                    }));
                }
                Ok(Row {
                    part: part.value(row),
                    part_row: part_row.value(row),
                    payload_bytes: payload_bytes.value(row),
                    prompt_id: text(prompt_id, row).unwrap_or_default(),
                    sample_index: sample_index.value(row),
                    source: text(column(5), row),
                    n_tokens: n_tokens.is_valid(row).then(|| n_tokens.value(row)),
                    finish_reason: text(column(7), row),
                    truncated: truncated.value(row),
                    verdict: text(column(9), row),
                    repetition: repetition.is_valid(row).then(|| repetition.value(row)),
                    exact_duplicate: exact_duplicate.is_valid(row) && exact_duplicate.value(row),
                    contaminated_by: text(column(12), row),
                    pass_rate: pass_rate.is_valid(row).then(|| pass_rate.value(row)),
                    reject_reason: text(column(14), row),
                })
            })
            .collect()
    }
}

fn text(column: &dyn Array, row: usize) -> Option<String> {
    column
        .is_valid(row)
        .then(|| column.as_string::<i32>().value(row).to_owned())
}

/// What [`Annotated::next`] has to say.
pub enum Step {
    Rows(Vec<Row>),
    End,
    /// `stop` was set while the query was working.
    Stopped,
}

impl Annotated {
    /// The next rows. The first come late, once everything is annotated and sorted.
    pub fn next(&mut self, stop: &AtomicBool) -> Result<Step> {
        let Self {
            stream,
            runtime,
            failure,
        } = self;
        let batch = runtime.block_on(async {
            loop {
                match tokio::time::timeout(STOP_INTERVAL, stream.next()).await {
                    Ok(batch) => break Some(batch),
                    Err(_) if stop.load(Ordering::Relaxed) => break None,
                    Err(_) => {}
                }
            }
        });
        match batch {
            None => Ok(Step::Stopped),
            Some(None) => Ok(Step::End),
            Some(Some(Ok(batch))) => Self::rows(&batch).map(Step::Rows),
            Some(Some(Err(error))) => {
                let first = failure.lock().ok().and_then(|mut first| first.take());
                Err(first.map_or_else(|| error.into(), Error::Records))
            }
        }
    }
}
