//! What a kind of server is asked, and how its answers are read. A new one is a file beside this and a variant of
//! [`config::Dialect`](crate::config::Dialect).

use records::LogprobSpace;
use serde::Deserialize;
use serde_json::Value;

use super::answer::Answers;
use crate::teacher::{SampleRequest, SamplingConfig, ScoreRequest};

/// One request in a dialect's terms.
pub struct Ask<'a> {
    pub model: &'a str,
    pub request: &'a SampleRequest,
    /// Completions that are asked for at once, at most [`CHOICES`](crate::teacher::CHOICES).
    pub n: usize,
    pub options: &'a SamplingConfig,
}

impl Ask<'_> {
    /// Servers take signed integers, some of them of 32 bits.
    pub fn seed(&self) -> u64 {
        self.request.seed & 0x7fff_ffff
    }
}

/// Reads answers.
pub trait Reading: Send + Sync {
    /// Takes in one piece of an answer: an event of a stream, or a whole body, which may be changed on the way. A piece
    /// that is nothing of an answer (a heartbeat, a report of progress) is counted in [`Answers::skipped`].
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
    fn logprob_space(&self) -> LogprobSpace {
        LogprobSpace::Raw
    }

    /// Answers have token ids.
    fn gives_ids(&self) -> bool;

    /// Answers may have tokens without log-probabilities.
    fn leaves_gaps(&self) -> bool {
        false
    }

    /// Answers come in pieces, so that the first of them comes soon.
    fn streams(&self) -> bool {
        true
    }

    /// The server renders `messages` by itself, and takes `chat_template_kwargs` for it.
    fn renders(&self) -> bool {
        false
    }

    /// The places in a body that hold the token limit, each a path of keys.
    fn limit_keys(&self) -> &'static [&'static str] {
        &["max_tokens", "max_completion_tokens"]
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
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    completion_tokens: Option<u32>,
}

impl Usage {
    /// Notes the counts of a body, which in a stream come last and by themselves. A count of 0 is none: there is no
    /// prompt without tokens, and a server that counts nothing says 0.
    pub fn note(usage: Option<Self>, answers: &mut Answers) {
        if let Some(usage) = usage {
            let counted = |n: Option<u32>| n.filter(|&n| n > 0);
            answers.n_prompt_tokens = counted(usage.prompt_tokens).or(answers.n_prompt_tokens);
            answers.n_completion_tokens =
                counted(usage.completion_tokens).or(answers.n_completion_tokens);
        }
    }
}

/// An endpoint's address without the `/v1` of OpenAI's routes, for servers whose own routes lie beside it.
pub fn root(url: &str) -> &str {
    url.strip_suffix("/v1").unwrap_or(url)
}

/// The number as it was written: 0.6, and not the 0.6000000238… that its f32 stands for.
pub(super) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
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
