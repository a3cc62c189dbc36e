//! DataFusion with the stage's limits: its threads, its memory, and its disk for what does not
//! fit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::StreamExt;
use tokio::runtime::Runtime;

use crate::error::{Error, Result, io};
use crate::scan::Failure;

/// How soon a query that is under way notices `stop`.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

/// Memory that one thread needs: every partition of every sort keeps a reservation of its own.
const BYTES_PER_THREAD: usize = 64 << 20;

pub struct Engine {
    pub context: SessionContext,
    pub n_threads: usize,
    runtime: Runtime,
}

impl Engine {
    /// Half of `memory_limit` is for queries; the other half is for what they read and write.
    /// Without a limit everything stays in memory. `spill_dir` is an empty folder.
    pub fn new(
        memory_limit: Option<usize>,
        spill_dir: &Path,
        functions: Vec<ScalarUDF>,
    ) -> Result<Self> {
        let n_threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(16);
        let mut environment = RuntimeEnvBuilder::new().with_temp_file_path(spill_dir);
        let n_threads = memory_limit.map_or(n_threads, |limit| {
            n_threads.min(limit / 2 / BYTES_PER_THREAD).max(1)
        });
        // The order of a file's rows stays as it is where nothing is sorted.
        let mut config = SessionConfig::new()
            .with_target_partitions(n_threads)
            .with_round_robin_repartition(false);
        if let Some(limit) = memory_limit {
            let limit = limit / 2;
            environment = environment.with_memory_pool(Arc::new(FairSpillPool::new(limit)));
            // The default of 10 MB per sort would be all there is under a small limit.
            let reservation = (limit / (16 * n_threads)).min(10 << 20);
            config = config.with_sort_spill_reservation_bytes(reservation);
        }
        let context = SessionContext::new_with_config_rt(config, environment.build_arc()?);
        for function in functions {
            context.register_udf(function);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n_threads)
            .enable_all()
            .build()
            .map_err(io(spill_dir))?;
        Ok(Self {
            context,
            n_threads,
            runtime,
        })
    }

    /// Plans a query, such as `context.sql(…)`.
    pub fn wait<T>(
        &self,
        planned: impl Future<Output = datafusion::error::Result<T>>,
    ) -> Result<T> {
        Ok(self.runtime.block_on(planned)?)
    }

    /// Starts a query; `failure` is where its tables leave their first error.
    pub fn stream(&self, query: DataFrame, failure: &Failure) -> Result<Batches<'_>> {
        let stream = self.wait(query.execute_stream())?;
        Ok(Batches {
            stream,
            failure: failure.clone(),
            engine: self,
        })
    }
}

/// The batches of a query's answer.
pub struct Batches<'a> {
    stream: SendableRecordBatchStream,
    failure: Failure,
    engine: &'a Engine,
}

/// What [`Batches::next`] has to say.
pub enum Step {
    Batch(RecordBatch),
    End,
    /// `stop` was set while the query was working.
    Stopped,
}

impl Batches<'_> {
    pub fn next(&mut self, stop: &AtomicBool) -> Result<Step> {
        let Self {
            stream,
            engine,
            failure,
        } = self;
        let batch = engine.runtime.block_on(async {
            loop {
                if stop.load(Ordering::Relaxed) {
                    break None;
                }
                if let Ok(batch) = tokio::time::timeout(STOP_INTERVAL, stream.next()).await {
                    break Some(batch);
                }
            }
        });
        match batch {
            None => Ok(Step::Stopped),
            Some(None) => Ok(Step::End),
            Some(Some(Ok(batch))) => Ok(Step::Batch(batch)),
            Some(Some(Err(error))) => {
                let first = failure.lock().ok().and_then(|mut first| first.take());
                Err(first.map_or_else(|| error.into(), Error::Records))
            }
        }
    }
}
