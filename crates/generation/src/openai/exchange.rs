//! One request over HTTP: sent, read as it arrives, and told apart by what can be done about it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::answer::Answers;
use super::dialect::{Reading, error_message};
use super::retry::{Timing, retry_after};
use super::secret::Secret;

/// The longest error that is kept.
pub(super) const ERROR_CHARS: usize = 500;
const ERROR_BYTES: usize = 64 << 10;
/// No answer is longer: 32,768 tokens with 20 entries each are about 60 MB.
const ANSWER_BYTES: usize = 1 << 30;

/// Why an attempt gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// The endpoint could not be reached, broke off or failed.
    Endpoint,
    /// It has too many requests, and may say for how long.
    Busy(Option<Duration>),
    /// It answered with something that is no answer.
    Malformed,
    /// It will not answer this request.
    Refused,
}

impl Fault {
    pub fn malformed(message: String) -> Self {
        Self::new(FaultKind::Malformed, message)
    }

    pub fn refused(message: String) -> Self {
        Self::new(FaultKind::Refused, message)
    }

    fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// Bytes of whole bodies that are read or made into answers at a time. A server that answers many requests at once is
/// made to wait by its connections; answers that come as streams take what they are.
pub const BODY_BYTES: usize = 32 << 20;

/// Answers, and their share of [`BODY_BYTES`], which is free again when this is dropped.
pub struct Read {
    pub answers: Answers,
    pub share: Option<OwnedSemaphorePermit>,
}

pub struct Exchange<'a> {
    /// Of [`BODY_BYTES`], in KiB.
    pub room: &'a Arc<Semaphore>,
    /// What whole bodies were read into before.
    pub buffers: &'a Mutex<Vec<Vec<u8>>>,
    pub client: &'a Client,
    pub timing: &'a Timing,
    pub secret: Option<&'a Secret>,
    pub reading: &'a dyn Reading,
    /// Connections are kept: the last answer was a stream, or no larger than [`LARGE`].
    pub keeps: &'a AtomicBool,
}

/// A connection holds on to a buffer as large as its largest body needed, up to 400 KiB, and there is one for every
/// request under way: where bodies are larger than this, connections are not kept.
const LARGE: usize = 128 << 10;

impl Exchange<'_> {
    /// Sends `body` to `url` and reads the answer to its end.
    pub async fn ask(&self, url: &str, body: Vec<u8>) -> Result<Read, Fault> {
        let found = self.attempt(url, body).await;
        found.map_err(|fault| {
            let message = match self.secret {
                Some(secret) => secret.redact(&fault.message),
                None => fault.message,
            };
            // Not before: a key may lie across the cut.
            let message = message.chars().take(ERROR_CHARS).collect();
            Fault { message, ..fault }
        })
    }

    async fn attempt(&self, url: &str, body: Vec<u8>) -> Result<Read, Fault> {
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(secret) = self.secret {
            let value = secret.header().map_err(Fault::refused)?;
            request = request.header(AUTHORIZATION, value);
        }
        if !self.keeps.load(Ordering::Relaxed) {
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        let response = match timeout(self.timing.first_byte, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Fault::new(FaultKind::Endpoint, unreachable(&error))),
            Err(_) => {
                let waited = self.timing.first_byte.as_secs_f64();
                let message = format!("no response in {waited:.0} s");
                return Err(Fault::new(FaultKind::Endpoint, message));
            }
        };
        if response.status().is_success() {
            self.read(response).await
        } else {
            Err(self.refusal(response).await)
        }
    }

    async fn refusal(&self, mut response: Response) -> Fault {
        let status = response.status();
        let asked = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        let mut body = Vec::new();
        while let Ok(Ok(Some(piece))) = timeout(self.timing.idle, response.chunk()).await {
            body.extend_from_slice(&piece);
            if body.len() > ERROR_BYTES {
                break;
            }
        }
        let words = error_message(&body).unwrap_or_else(|| plain(&body));
        let message = format!("{status}: {words}");
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => FaultKind::Busy(asked),
            StatusCode::SERVICE_UNAVAILABLE if asked.is_some() => FaultKind::Busy(asked),
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => FaultKind::Endpoint,
            status if status.is_server_error() => FaultKind::Endpoint,
            // A redirect or a 1xx is no answer either, and will not become one.
            _ => FaultKind::Refused,
        };
        Fault::new(kind, message)
    }

    async fn read(&self, mut response: Response) -> Result<Read, Fault> {
        let streams = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let length = response.content_length().filter(|_| !streams);
        let share = match length {
            Some(bytes) => {
                let kib = (bytes >> 10).clamp(1, (BODY_BYTES >> 10) as u64) as u32;
                self.room.clone().acquire_many_owned(kib).await.ok()
            }
            None => None,
        };
        let mut answers = Answers::default();
        let room = length.unwrap_or(0).min(ANSWER_BYTES as u64) as usize;
        let (mut pending, mut total, mut ended) = (self.buffer(room), 0, false);
        loop {
            let piece = match timeout(self.timing.idle, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    let message = format!("the response broke off: {}", causes(&error));
                    return Err(Fault::new(FaultKind::Endpoint, message));
                }
                Err(_) => {
                    let waited = self.timing.idle.as_secs_f64();
                    let message = format!("the response stood still for {waited:.0} s");
                    return Err(Fault::new(FaultKind::Endpoint, message));
                }
            };
            total += piece.len();
            if total > ANSWER_BYTES {
                return Err(Fault::new(
                    FaultKind::Malformed,
                    "the answer is longer than 1 GiB",
                ));
            }
            pending.extend_from_slice(&piece);
            if streams && !ended {
                ended = self.events(&mut pending, &mut answers)?;
            }
        }
        self.keeps
            .store(streams || total <= LARGE, Ordering::Relaxed);
        if streams {
            // What is left without a line's end is an event that broke off.
            return Ok(Read { answers, share });
        }
        let read = self.reading.read(&mut pending, &mut answers);
        read.map_err(|problem| malformed(&pending, problem))?;
        if share.is_some() {
            let buffers = self.buffers.lock();
            buffers
                .unwrap_or_else(PoisonError::into_inner)
                .push(pending);
        }
        Ok(Read { answers, share })
    }

    /// An empty buffer for `bytes`; pages that were there before need not be cleared again.
    fn buffer(&self, bytes: usize) -> Vec<u8> {
        let used = || {
            self.buffers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        };
        let mut buffer = match bytes {
            0 => Vec::new(),
            _ => used().unwrap_or_default(),
        };
        buffer.clear();
        buffer.reserve_exact(bytes);
        buffer
    }

    /// Takes whole lines out of `pending`; true once the stream says that it is done.
    fn events(&self, pending: &mut Vec<u8>, answers: &mut Answers) -> Result<bool, Fault> {
        let (mut start, mut ended) = (0, false);
        while let Some(length) = pending[start..].iter().position(|&byte| byte == b'\n') {
            let line = &mut pending[start..start + length];
            start += length + 1;
            // Comments, event names and the empty lines between events.
            let Some(data) = line.strip_prefix(b"data:") else {
                continue;
            };
            if data.trim_ascii() == b"[DONE]" {
                ended = true;
                break;
            }
            let data = &mut line[b"data:".len()..];
            let read = self.reading.read(data, answers);
            read.map_err(|problem| malformed(data, problem))?;
        }
        pending.drain(..start);
        Ok(ended)
    }
}

/// A body that does not parse: an error in a 200, or something else altogether.
fn malformed(body: &[u8], problem: String) -> Fault {
    let words = match error_message(body) {
        Some(words) => format!("an error instead of an answer: {words}"),
        None => format!("the answer does not parse: {problem}: {}", plain(body)),
    };
    Fault::malformed(words)
}

/// The beginning of a body that is no JSON, in one line.
fn plain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_BYTES)]);
    let words: Vec<&str> = text.split_whitespace().take(40).collect();
    words.join(" ")
}

fn unreachable(error: &reqwest::Error) -> String {
    let what = if error.is_connect() {
        "cannot connect"
    } else {
        "no response"
    };
    format!("{what}: {}", causes(error))
}

/// What an error is made of; reqwest's own words repeat the address.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words.push(cause.to_string());
        source = cause.source();
    }
    if words.is_empty() {
        error.to_string()
    } else {
        words.join(": ")
    }
}
