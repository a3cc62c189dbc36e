//! The runtime that requests run on, TLS, and transfers that stand still.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::runtime::Runtime;

use crate::error::{Error, Result};
use crate::progress::Report;

/// Neither hf-hub nor a transfer from an object store ends by itself when a server falls silent.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// Runs `work` on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // Where a feature brings a second provider rustls takes none by itself; one that is there already is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Threads)?;
    let done = runtime.block_on(work);
    leave(runtime);
    done
}

/// The end of `work`, unless `stop` is set before.
pub async fn unless_stopped<T>(
    stop: &AtomicBool,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    const LOOK: Duration = Duration::from_millis(50);
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let (work, stopped) = (std::pin::pin!(work), std::pin::pin!(stopped));
    match select(work, stopped).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => Err(Error::Interrupted),
    }
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
    let arriving = unless_silent(report, || tokio::time::sleep(silence), transfer);
    arriving.await.ok_or_else(|| stalled(url, silence))
}

/// The end of a transfer; none once a `silence` passes in which nothing arrives.
async fn unless_silent<T, S: Future>(
    report: &Report,
    silence: impl Fn() -> S,
    transfer: impl Future<Output = T>,
) -> Option<T> {
    let mut transfer = std::pin::pin!(transfer);
    loop {
        let before = report.arrived();
        let silence = std::pin::pin!(silence());
        match select(transfer.as_mut(), silence).await {
            Either::Left((end, _)) => return Some(end),
            Either::Right(_) if report.arrived() == before => return None,
            Either::Right(_) => {}
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
    use std::task::Poll;

    #[test]
    fn a_transfer_may_take_long_as_long_as_something_arrives() {
        let report = Report::start(Arc::new(|_: &str| ()), "x", 10);
        // A silence passes whenever the transfer has nothing to say.
        let silence = || std::future::ready(());
        let mut left = 10;
        let arriving = std::future::poll_fn(|_| match left {
            0 => Poll::Ready("whole"),
            _ => {
                left -= 1;
                report.set(10 - left);
                Poll::Pending
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        let end = runtime.block_on(unless_silent(&report, silence, arriving));
        assert_eq!(end, Some("whole"));
        let silent = std::future::pending::<()>();
        let end = runtime.block_on(unless_silent(&report, silence, silent));
        assert_eq!(end, None);
    }
}
