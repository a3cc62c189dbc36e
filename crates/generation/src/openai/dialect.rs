//! What a kind of server is asked, and how its answers are read. A new one is a file beside this and a variant of
//! [`config::Dialect`](crate::config::Dialect).

use std::cell::RefCell;

use serde::Deserialize;
use serde_json::Value;
use simd_json::Buffers;

use super::answer::Answers;
use crate::candle::SampleOptions;
use crate::teacher::{RAW, SampleRequest, ScoreRequest};

/// One request in a dialect's terms.
pub struct Ask<'a> {
    pub model: &'a str,
    pub request: &'a SampleRequest,
    /// Completions that are asked for at once, at most [`CHOICES`](super::answer::CHOICES).
    pub n: usize,
    pub options: &'a SampleOptions,
}

impl Ask<'_> {
    /// Servers take signed integers, some of them of 32 bits.
    pub fn seed(&self) -> u64 {
        self.request.seed & 0x7fff_ffff
    }
}

/// Reads answers.
pub trait Reading: Send + Sync {
    /// Takes in one piece of an answer: an event of a stream, or a whole body, which may be changed on the way.
    ///
    /// # Errors
    /// Says what does not parse.
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String>;
}

pub trait Dialect: Send + Sync {
    /// Where an endpoint is asked.
    fn url(&self, endpoint: &str) -> String;

    /// The request's body.
    fn body(&self, ask: &Ask<'_>) -> Value;

    fn reading(&self) -> &dyn Reading;

    /// Addresses of an endpoint that say what it is; the first lies beside the one that is asked, behind the same key.
    fn probes(&self, endpoint: &str) -> Vec<String>;

    /// The endpoint serves the models that it names, and no others.
    fn names_models(&self) -> bool {
        true
    }

    /// How completions are scored that are there already; none where the server cannot.
    fn scoring(&self) -> Option<&dyn Scoring> {
        None
    }

    /// Of the log-probabilities it gives.
    fn logprob_space(&self) -> &'static str {
        RAW
    }

    /// Answers have token ids.
    fn gives_ids(&self) -> bool;

    /// Answers may have tokens without log-probabilities.
    fn leaves_gaps(&self) -> bool {
        false
    }
}

/// Teacher-forced scores of a kind of server.
pub trait Scoring: Send + Sync {
    fn url(&self, endpoint: &str) -> String;

    /// Asks for `top_k` entries at each of the completion's positions.
    fn body(&self, model: &str, request: &ScoreRequest, top_k: u16) -> Value;

    /// Gives a position for each token that was read; those of the completion come last.
    fn reading(&self) -> &dyn Reading;
}

/// What a server has counted, in OpenAI's form.
#[derive(Deserialize)]
pub struct Usage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

impl Usage {
    /// Notes the counts of a body, which in a stream come last and by themselves.
    pub fn note(usage: Option<Self>, answers: &mut Answers) {
        if let Some(usage) = usage {
            answers.n_prompt_tokens = usage.prompt_tokens.or(answers.n_prompt_tokens);
            answers.n_completion_tokens = usage.completion_tokens.or(answers.n_completion_tokens);
        }
    }
}

/// From this size on a body is indexed before it is read, which for events of a stream would take longer than it saves.
const INDEXED: usize = 32 << 10;

/// Up to this size what an index is made in is kept for the next one: its pages need not be cleared again.
const KEPT: usize = 4 << 20;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Reads JSON, which it may change on the way.
///
/// # Errors
/// Says what does not parse.
pub fn parse<'a, T: Deserialize<'a>>(data: &'a mut [u8]) -> Result<T, String> {
    if data.len() >= INDEXED {
        let read = BUFFERS.with_borrow_mut(|buffers| {
            let mut fresh = Buffers::default();
            let kept = if data.len() <= KEPT {
                buffers
            } else {
                &mut fresh
            };
            simd_json::serde::from_slice_with_buffers(data, kept)
        });
        return read.map_err(|error| error.to_string());
    }
    // Checked once and not string by string.
    let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// An endpoint's address without the `/v1` of OpenAI's routes, for servers whose own routes lie beside it.
pub fn root(url: &str) -> &str {
    url.strip_suffix("/v1").unwrap_or(url)
}

/// Sets `key` where there is a value.
pub fn set<T: Into<Value>>(body: &mut Value, key: &str, value: Option<T>) {
    if let Some(value) = value {
        body[key] = value.into();
    }
}

/// `token_id:N`, as vLLM writes tokens on request.
pub fn token_id(text: &str) -> Option<u32> {
    let digits = text.as_bytes().strip_prefix(b"token_id:")?;
    // An answer has tens of thousands of them.
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + u32::from(digit - b'0')),
        _ => None,
    })
}

/// The words of an error in any of the forms that servers use.
pub fn error_message(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error").unwrap_or(&value);
    let text = error.as_str().or_else(|| {
        ["message", "detail", "msg"]
            .iter()
            .find_map(|key| error.get(key)?.as_str())
    });
    text.map(str::to_owned)
}
