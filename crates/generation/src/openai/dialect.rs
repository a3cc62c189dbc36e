//! What a kind of server is asked, and how its answers are read. A new one is a file beside this and a variant of
//! [`config::Dialect`](crate::config::Dialect).

use serde_json::Value;

use super::answer::Answer;
use super::{chat, llamacpp, sglang, vllm};
use crate::candle::SampleOptions;
use crate::config;
use crate::teacher::{RAW, SampleRequest};

/// One request in a dialect's terms.
pub struct Ask<'a> {
    pub model: &'a str,
    pub request: &'a SampleRequest,
    pub options: &'a SampleOptions,
}

impl Ask<'_> {
    /// Servers take signed integers, some of them of 32 bits.
    pub fn seed(&self) -> u64 {
        self.request.seed & 0x7fff_ffff
    }
}

pub trait Dialect: Send + Sync {
    /// What is added to an endpoint's address.
    fn path(&self) -> &'static str;

    /// The request's body.
    fn body(&self, ask: &Ask<'_>) -> Value;

    /// Takes in one piece of an answer: an event of a stream, or a whole body.
    ///
    /// # Errors
    /// Says what does not parse.
    fn read(&self, data: &[u8], answer: &mut Answer) -> Result<(), String>;

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

pub fn of(dialect: config::Dialect) -> Box<dyn Dialect> {
    match dialect {
        config::Dialect::Vllm => Box::new(vllm::Vllm),
        config::Dialect::Sglang => Box::new(sglang::Sglang),
        config::Dialect::Llamacpp => Box::new(llamacpp::LlamaCpp),
        config::Dialect::Deepseek => Box::new(chat::Chat { logprobs: false }),
        config::Dialect::Openai => Box::new(chat::Chat { logprobs: true }),
    }
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
    text.strip_prefix("token_id:")?.parse().ok()
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
