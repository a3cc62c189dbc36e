//! What a kind of server is asked, and how its answers are read. A new one is a file beside this and a variant of
//! [`config::Dialect`](crate::config::Dialect).

use serde::Deserialize;
use serde_json::Value;

use super::answer::Answer;
use crate::candle::SampleOptions;
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
    /// Where an endpoint is asked.
    fn url(&self, endpoint: &str) -> String;

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

/// What a server has counted, in OpenAI's form.
#[derive(Deserialize)]
pub struct Usage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

/// Notes the counts of a body in OpenAI's form, and gives its one choice; none where the last event of a stream has the
/// counts alone.
pub fn only_choice<C>(
    choices: Vec<C>,
    usage: Option<Usage>,
    answer: &mut Answer,
) -> Result<Option<C>, String> {
    if let Some(usage) = usage {
        answer.n_prompt_tokens = usage.prompt_tokens.or(answer.n_prompt_tokens);
        answer.n_completion_tokens = usage.completion_tokens.or(answer.n_completion_tokens);
    }
    let mut choices = choices.into_iter();
    let choice = choices.next();
    match choices.next() {
        Some(_) => Err("more than one choice".into()),
        None => Ok(choice),
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
