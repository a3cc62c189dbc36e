//! What every teacher does: turn requests into completions.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::sampling::SamplingParams;
use model::tokenizer::Tokenizer;
use records::Message;
pub use records::failure::{Failure, FailureKind};
use records::top_k::TopK;
use records::trace::Trace;
use records::{FinishReason, LogprobSpace};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::notes::Note;

/// The most completions that one request asks for.
pub const CHOICES: usize = 128;

/// How completions are sampled.
#[derive(Debug, Clone)]
pub struct SamplingConfig {
    pub params: SamplingParams,
    pub max_new_tokens: u32,
    /// Entries of the distribution kept per position; 0 keeps none.
    pub top_k_logits: u16,
    /// Requests in flight. Completions do not depend on it.
    pub concurrency: usize,
    /// Samples of a prompt that one request to a server asks for, at most.
    pub samples_per_request: usize,
}

/// What an endpoint has been asked and has answered since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    pub url: String,
    /// Requests under way.
    pub outstanding: usize,
    pub answered: u64,
    pub faults: u64,
    /// Not asked for a while, for its faults.
    pub resting: bool,
    /// Not asked any more.
    #[serde(default)]
    pub stopped: bool,
    /// In the endpoint's words.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When it was, in microseconds since the epoch.
    #[serde(default)]
    pub last_error_at: Option<i64>,
}

impl EndpointStatus {
    /// In a word.
    pub fn state(&self) -> &'static str {
        match (self.stopped, self.resting) {
            (true, _) => "stopped",
            (false, true) => "resting",
            (false, false) => "up",
        }
    }
}

/// A prompt as the teacher's tokenizer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    pub token_ids: Vec<u32>,
    /// The chat template ends inside an opened `<think>`, so a completion begins as a thought.
    pub opens_think: bool,
}

impl EncodedPrompt {
    pub fn of(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Self> {
        let text = tokenizer.render_prompt(messages)?;
        Ok(Self {
            opens_think: tokenizer.opens_think(&text),
            token_ids: tokenizer.encode(&text)?,
        })
    }
}

/// One completion to be sampled; its identity is (`prompt_id`, `sample_index`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRequest {
    pub prompt_id: String,
    pub sample_index: u32,
    pub messages: Vec<Message>,
    /// Empty where the teacher renders `messages` itself.
    pub prompt_token_ids: Vec<u32>,
    pub prompt_text_opens_think: bool,
    /// Seeds this request's own random numbers, see `model::sampling::request_seed`.
    pub seed: u64,
}

impl SampleRequest {
    /// How many tokens, up to `most`, may follow the prompt in a model of so many positions.
    ///
    /// # Errors
    /// A failure where there is no room for any, and for an empty prompt.
    pub fn room(&self, n_positions: usize, most: u32) -> std::result::Result<usize, Failure> {
        let n_prompt = self.prompt_token_ids.len();
        if n_prompt == 0 || n_prompt >= n_positions {
            return Err(self.no_room(n_positions));
        }
        Ok((n_positions - n_prompt).min(most as usize))
    }

    /// The failure of a prompt that a model of so many positions cannot take.
    pub(crate) fn no_room(&self, n_positions: usize) -> Failure {
        Failure {
            kind: FailureKind::PromptTooLong,
            message: format!(
                "the prompt has {} tokens, the model takes 1 to {} and one new token",
                self.prompt_token_ids.len(),
                n_positions.saturating_sub(1)
            ),
        }
    }
}

/// What a teacher answered. T = `token_ids.len()`, K = `top.k`. What a server cannot give is none, never empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// Shape `[T]`; ends with the EOS id when it finished by itself.
    pub token_ids: Option<Vec<u32>>,
    /// Shape `[T]`: natural log of each sampled token's probability, in `logprob_space`.
    pub token_logprobs: Option<Vec<f32>>,
    /// Row *t* is the teacher's distribution given the prompt and `token_ids[..t]`.
    pub top: Option<TopK>,
    /// None where a server gave no log-probabilities.
    pub logprob_space: Option<LogprobSpace>,
    pub finish_reason: FinishReason,
    /// `token_ids` in words, without EOS and other control tokens; thought tags are kept. A server that gives thought
    /// and answer apart gives them in `split`, and here joined by the tags.
    pub text: String,
    /// Thought and answer, where the server has told them apart; no answer where it ended inside its thought.
    pub split: Option<(String, Option<String>)>,
    /// Where the prompt was rendered by the server.
    pub n_prompt_tokens: Option<u32>,
    /// T, what the server counted, or else what the tokenizer counts in `text`.
    pub n_completion_tokens: Option<u32>,
    /// Tokens that are paid for, of the prompt and of the completion, where a server is paid: what was counted, or an
    /// estimate that is not too low.
    pub paid: Option<[u32; 2]>,
    /// Another sample of the same request has the prompt's tokens to its account.
    pub shares_prompt: bool,
    /// From the request's first prompt token to its last sampled one.
    pub latency: Duration,
}

impl Completion {
    /// Writes what was answered into a trace whose prompt stands there already.
    pub fn record(self, trace: &mut Trace, prompt_opens_think: bool) {
        match self.split {
            Some((reasoning, answer)) => {
                trace.reasoning = Some(reasoning);
                trace.answer = answer;
            }
            None => {
                let split = verify::think::split(&self.text, prompt_opens_think);
                trace.reasoning = split.reasoning.map(str::to_owned);
                trace.answer = split.answer.map(str::to_owned);
            }
        }
        trace.text = Some(self.text);
        trace.finish_reason = Some(self.finish_reason);
        trace.n_prompt_tokens = trace.n_prompt_tokens.or(self.n_prompt_tokens);
        trace.n_completion_tokens = self.n_completion_tokens;
        trace.token_ids = self.token_ids;
        trace.token_logprobs = self.token_logprobs;
        trace.top = self.top;
        trace.logprob_space = self.logprob_space;
        trace.latency_ms = Some(self.latency.as_millis() as u64);
    }
}

/// One completion to be scored; its identity is (`part`, `key`). Neither prompt nor completion is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    pub part: u32,
    pub key: String,
    pub prompt_token_ids: Vec<u32>,
    /// T ids.
    pub token_ids: Vec<u32>,
}

impl ScoreRequest {
    /// Prompt and completion.
    pub fn all_ids(&self) -> Vec<u32> {
        [&*self.prompt_token_ids, &*self.token_ids].concat()
    }
}

/// What a teacher says of a completion of T tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Shape `[T]`: natural logarithms.
    pub token_logprobs: Vec<f32>,
    /// Row *t* is the distribution given the prompt and `token_ids[..t]`; none where no entries were asked for.
    pub top: Option<TopK>,
    pub logprob_space: LogprobSpace,
}

pub type ScoreOutcome = std::result::Result<Scored, Failure>;

/// An expected failure is a value: it ends one request, not the run.
pub type Outcome = std::result::Result<Completion, Failure>;

/// What a teacher is, for traces and manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub backend: String,
    /// The model as the recipe names it.
    pub model: String,
    /// Content hash of the checkpoint's files where it is local.
    pub revision: Option<String>,
    /// The same request gives the same completion, whatever else is asked beside it.
    pub reproducible: bool,
    pub logprob_space: LogprobSpace,
}

/// A source of completions.
///
/// The calls are synchronous: a teacher behind HTTP keeps its connections, retries and
/// limits to itself (threads or a private runtime), pulls a request when it has room to send
/// it, and calls `done` from the thread that called `sample`. It retries transient faults
/// itself, and reports as [`Failure`] only what asking again would not change.
pub trait Teacher: Sync {
    /// Renders and tokenizes a conversation that asks for an assistant turn.
    fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt>;

    /// Samples every request and hands each to `done` with its outcome, in any order.
    ///
    /// A request is pulled from `requests` only when it is about to be worked on, so the
    /// number pulled and not yet done is the number in flight. An error from `done` ends the
    /// call at once; one from `requests` once those in flight are done. When `stop` is set the call returns soon, with `Ok`; requests in
    /// flight are dropped without a call to `done`.
    fn sample(
        &self,
        requests: &mut dyn Iterator<Item = Result<SampleRequest>>,
        done: &mut dyn FnMut(SampleRequest, Outcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()>;

    /// Has completions scored that are there already, and hands each to `done` with what came of it, in any order;
    /// `requests`, `done` and `stop` are as for [`Self::sample`].
    ///
    /// # Errors
    /// Also [`Error::CannotScore`].
    fn score(
        &self,
        _requests: &mut dyn Iterator<Item = Result<ScoreRequest>>,
        _done: &mut dyn FnMut(ScoreRequest, ScoreOutcome) -> Result<()>,
        _stop: &AtomicBool,
    ) -> Result<()> {
        Err(Error::CannotScore {
            backend: self.describe().backend,
        })
    }

    fn describe(&self) -> Description;

    /// Asks the servers behind it what they can do, without a prompt; a line for each.
    ///
    /// # Errors
    /// A server that would refuse every request.
    fn probe(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What turns conversations into its token ids, where that is here.
    fn tokenizer(&self) -> Option<&Tokenizer> {
        None
    }

    /// Fingerprint of the tokenizer that the token ids belong to.
    fn tokenizer_fingerprint(&self) -> Option<String>;

    /// Tokens sampled since the teacher was made, unfinished completions included; read by
    /// the progress display while `sample` runs on another thread.
    fn tokens_sampled(&self) -> u64 {
        0
    }

    /// Tokens that were paid for and came to nothing since the teacher was made, of prompts and of completions.
    fn tokens_lost(&self) -> [u64; 2] {
        [0, 0]
    }

    /// What it does otherwise than one would think.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }

    /// The servers behind it, as they are now.
    fn endpoints(&self) -> Vec<EndpointStatus> {
        Vec::new()
    }
}
