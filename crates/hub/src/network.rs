//! The runtime that requests run on, TLS, and transfers that stand still.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::error::{Error, Result};
use crate::progress::Report;

/// Neither hf-hub nor a transfer from an object store ends by itself when a server falls silent.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// Runs `work` on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // Two providers are compiled in, so rustls takes none by itself; one that is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Threads)?;
    let done = runtime.block_on(work);
    leave(runtime);
    done
}

/// A thread that waits for a file lock would keep the runtime from ending.
fn leave(runtime: Runtime) {
    runtime.shutdown_background();
}

/// The answer to a request, unless it takes longer than anyone waits.
pub async fn in_time<T>(url: &str, request: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(LONGEST_SILENCE, request)
        .await
        .map_err(|_| stalled(url, LONGEST_SILENCE))
}

/// The end of a transfer, unless nothing arrives for `silence`.
pub async fn unless_stalled<T>(
    url: &str,
    report: &Report,
    silence: Duration,
    transfer: impl Future<Output = T>,
) -> Result<T> {
    let mut transfer = std::pin::pin!(transfer);
    loop {
        let before = report.arrived();
        match tokio::time::timeout(silence, transfer.as_mut()).await {
            Ok(end) => return Ok(end),
            Err(_) if report.arrived() == before => return Err(stalled(url, silence)),
            Err(_) => {}
        }
    }
}

fn stalled(url: &str, silence: Duration) -> Error {
    Error::Stalled {
        url: url.to_owned(),
        seconds: silence.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_transfer_may_take_long_as_long_as_something_arrives() {
        let silence = Duration::from_millis(40);
        let report = Report::start(Arc::new(|_: &str| ()), "x", 10);
        let arriving = async {
            for n in 1..=10 {
                tokio::time::sleep(Duration::from_millis(15)).await;
                report.set(n);
            }
        };
        block_on(unless_stalled("x", &report, silence, arriving)).unwrap();
        let silent = tokio_sleep();
        let error = block_on(unless_stalled("x", &report, silence, silent)).unwrap_err();
        assert!(matches!(error, Error::Stalled { .. }), "{error}");
    }

    async fn tokio_sleep() {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
}
