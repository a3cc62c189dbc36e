//! One request over HTTP: sent, read as it arrives, and told apart by what can be done about it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::access::Access;
use super::answer::{Answers, Problem};
use super::dialect::Reading;
use super::ending::ServerError;
use super::events::{Events, Form};
use super::retry::{Timing, retry_after};

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
    /// The message without what differs from answer to answer.
    pub alike: String,
}

/// What can be done about a fault.
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
    /// It answers nobody who asks there, or with this key, as far as can be told from one request.
    Closed,
    /// What it answers cannot be used, and never will: it was started otherwise than it has to be.
    Unusable,
    /// The provider will not be paid.
    Account,
}

impl Fault {
    pub fn malformed(message: String) -> Self {
        Self::new(FaultKind::Malformed, message)
    }

    pub fn endpoint(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Endpoint, message)
    }

    pub fn unusable(message: String) -> Self {
        Self::new(FaultKind::Unusable, message)
    }

    /// An error that came with a 200, in the place of an answer or within one: whatever it says, it is of this moment,
    /// but for the account's.
    pub fn reported(error: &ServerError) -> Self {
        let kind = match error {
            error if error.is_account() => FaultKind::Account,
            error if error.is_busy() => FaultKind::Busy(None),
            _ => FaultKind::Endpoint,
        };
        Self::new(
            kind,
            format!("an error instead of an answer: {}", error.words),
        )
    }

    fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            kind,
            alike: alike(&message),
            message,
        }
    }

    /// A body that does not parse.
    fn unread(body: &[u8], problem: &str) -> Self {
        if let Some(error) = ServerError::of_body(body) {
            return Self::reported(&error);
        }
        let problem = format!("the answer does not parse: {problem}");
        Self {
            alike: alike(&problem),
            ..Self::malformed(format!("{problem}: {}", plain(body)))
        }
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        match problem.is_of_all {
            true => Self::unusable(problem.words),
            false => Self::malformed(problem.words),
        }
    }
}

/// A message without numbers and quoted words.
fn alike(message: &str) -> String {
    let quoted = message.split(['"', '`']).enumerate();
    let plain = quoted.filter(|(at, _)| at % 2 == 0).map(|(_, text)| text);
    let text: String = plain.collect();
    text.split(|c: char| c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("#")
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
    pub access: &'a Access,
    pub reading: &'a dyn Reading,
    /// Connections are kept: the last answer was a stream, or no larger than [`LARGE`].
    pub keeps: &'a AtomicBool,
    /// Set once something of the answer has come.
    pub begun: &'a AtomicBool,
}

/// A connection holds on to a buffer as large as its largest body needed, up to 400 KiB, and there is one for every
/// request under way: where bodies are larger than this, connections are not kept.
const LARGE: usize = 128 << 10;

impl Exchange<'_> {
    /// Sends `body` to `url` and reads the answer to its end.
    pub async fn ask(&self, url: &str, body: Vec<u8>) -> Result<Read, Fault> {
        let found = self.attempt(url, body).await;
        found.map_err(|fault| {
            let message = self.access.redact(&fault.message);
            // Not before: a key may lie across the cut.
            let message = message.chars().take(ERROR_CHARS).collect();
            Fault { message, ..fault }
        })
    }

    async fn attempt(&self, url: &str, body: Vec<u8>) -> Result<Read, Fault> {
        let url = self.access.url(url).map_err(Fault::unusable)?;
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .headers(self.access.headers().clone())
            .body(body);
        if !self.keeps.load(Ordering::Relaxed) {
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        let response = match timeout(self.timing.first_byte, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Fault::endpoint(unreachable(&error))),
            Err(_) => {
                let waited = self.timing.first_byte.as_secs_f64();
                let message = format!("no response in {waited:.0} s");
                return Err(Fault::endpoint(message));
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
        let error = ServerError::of_body(&body);
        let account = error.as_ref().is_some_and(ServerError::is_account);
        let words = error.map_or_else(|| plain(&body), |error| error.words);
        let kind = match status {
            StatusCode::PAYMENT_REQUIRED => FaultKind::Account,
            status if account && status.is_client_error() => FaultKind::Account,
            StatusCode::TOO_MANY_REQUESTS => FaultKind::Busy(asked),
            StatusCode::SERVICE_UNAVAILABLE if asked.is_some() => FaultKind::Busy(asked),
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => FaultKind::Endpoint,
            status if status.is_server_error() => FaultKind::Endpoint,
            StatusCode::BAD_REQUEST
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => FaultKind::Refused,
            // Of the address or of the key. A redirect or a 1xx is no answer either.
            _ => FaultKind::Closed,
        };
        Fault::new(kind, format!("{status}: {words}"))
    }

    async fn read(&self, mut response: Response) -> Result<Read, Fault> {
        let says_events = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let length = response.content_length().filter(|_| !says_events);
        let share = match length {
            Some(bytes) => {
                let kib = (bytes >> 10).clamp(1, (BODY_BYTES >> 10) as u64) as u32;
                self.room.clone().acquire_many_owned(kib).await.ok()
            }
            None => None,
        };
        let (mut answers, mut events, mut form) = (Answers::default(), Events::default(), None);
        let room = length.unwrap_or(0).min(ANSWER_BYTES as u64) as usize;
        let (mut pending, mut total) = (self.buffer(room), 0);
        loop {
            let piece = match timeout(self.timing.idle, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    let message = format!("the response broke off: {}", causes(&error));
                    return Err(Fault::endpoint(message));
                }
                Err(_) => {
                    let waited = self.timing.idle.as_secs_f64();
                    let message = format!("the response stood still for {waited:.0} s");
                    return Err(Fault::endpoint(message));
                }
            };
            self.begun.store(true, Ordering::Relaxed);
            total += piece.len();
            if total > ANSWER_BYTES {
                return Err(Fault::malformed("the answer is longer than 1 GiB".into()));
            }
            pending.extend_from_slice(&piece);
            form = form.or_else(|| Form::of(&pending, false));
            if form == Some(Form::Events) {
                let taken = events.take(&mut pending, self.reading, &mut answers);
                taken.map_err(|(data, problem)| Fault::unread(&data, &problem))?;
            }
        }
        let streams = form.or_else(|| Form::of(&pending, true)) == Some(Form::Events);
        self.keeps
            .store(streams || total <= LARGE, Ordering::Relaxed);
        if streams {
            events.finish(pending, self.reading, &mut answers);
            return Ok(Read { answers, share });
        }
        let read = self.reading.read(&mut pending, &mut answers);
        read.map_err(|problem| Fault::unread(&pending, &problem))?;
        if answers.is_empty() && answers.error.is_none() {
            return Err(Fault::unread(&pending, "it has nothing of an answer"));
        }
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
