//! What servers are asked for: samples of a prompt, or the scores of a completion that is there.

use std::time::Duration;

use serde_json::Value;

use super::answer::{Answers, Expected, Problem};
use super::dialect::{Ask, Reading, Scoring};
use super::exchange::Fault;
use super::shared::Shared;
use super::tokens::{self, Count};
use crate::error::Error;
use crate::teacher::{Completion, Failure, SampleRequest, SamplingConfig, ScoreRequest, Scored};

pub(crate) type AskedOutcome<A> = Result<<A as Asked>::Value, Failure>;

/// What an answer came to, and the tokens that it cost: of the prompt, and of the completions.
pub(crate) struct Answered<V> {
    pub value: V,
    pub tokens: [u32; 2],
}

pub(crate) trait Asked: Send + Sync + Sized + 'static {
    type Value: Send + 'static;

    fn url(shared: &Shared, endpoint: &str) -> String;

    /// Asks for at most `limit` new tokens.
    fn body(&self, shared: &Shared, limit: u32) -> Value;

    /// The tokens of the prompt; none where nothing follows it that could be cut.
    fn n_prompt(&self, _shared: &Shared) -> Option<Count> {
        None
    }

    /// Names the request for people.
    fn name(&self) -> String;

    /// What reads the answers.
    fn reading(shared: &Shared) -> &dyn Reading;

    /// # Errors
    /// An answer that contradicts itself, or is not whole.
    fn complete(&self, answers: Answers, shared: &Shared) -> Result<Answered<Self::Value>, Fault>;

    /// The value, once it is known how long it took.
    fn timed(value: Self::Value, _latency: Duration) -> Self::Value {
        value
    }
}

/// Samples of one prompt that one request asks for; at least one.
pub(crate) struct Group(pub Vec<SampleRequest>);

/// Groups of at most `most`, in the order of their requests. One request too many is pulled to see where a group ends,
/// and begins the next.
pub(crate) struct Groups<'a> {
    pub requests: &'a mut dyn Iterator<Item = Result<SampleRequest, Error>>,
    pub held: Option<Result<SampleRequest, Error>>,
    pub most: usize,
}

impl Iterator for Groups<'_> {
    type Item = Result<Group, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut group = match self.held.take().or_else(|| self.requests.next())? {
            Ok(first) => vec![first],
            Err(error) => return Some(Err(error)),
        };
        while group.len() < self.most {
            match self.requests.next() {
                Some(Ok(next)) if next.prompt_id == group[0].prompt_id => group.push(next),
                other => {
                    self.held = other;
                    break;
                }
            }
        }
        // A server seeds the samples of a request one after the other.
        let seed = group[0].seed;
        for (offset, request) in (0..).zip(&mut group) {
            request.seed = seed.wrapping_add(offset);
        }
        Some(Ok(Group(group)))
    }
}

impl Asked for Group {
    type Value = Vec<Completion>;

    fn url(shared: &Shared, endpoint: &str) -> String {
        shared.dialect.url(endpoint)
    }

    fn body(&self, shared: &Shared, limit: u32) -> Value {
        shared.dialect.body(&Ask {
            model: &shared.model,
            request: &self.0[0],
            n: self.0.len(),
            options: &SamplingConfig {
                max_new_tokens: limit,
                ..shared.options.clone()
            },
        })
    }

    fn n_prompt(&self, shared: &Shared) -> Option<Count> {
        let request = &self.0[0];
        Some(match request.prompt_token_ids.len() as u32 {
            0 => tokens::of_messages(shared.tokenizer.as_ref(), &request.messages),
            n => Count { n, counted: true },
        })
    }

    fn name(&self) -> String {
        let request = &self.0[0];
        format!("{}-{}", request.prompt_id, request.sample_index)
    }

    fn reading(shared: &Shared) -> &dyn Reading {
        shared.dialect.reading()
    }

    fn complete(
        &self,
        answers: Answers,
        shared: &Shared,
    ) -> Result<Answered<Vec<Completion>>, Fault> {
        let asked = self.0.len();
        if asked > 1 && answers.is_one() {
            return Err(Fault::unusable(format!(
                "one sample where {asked} were asked for; set generate.samples_per_request = 1 for this server"
            )));
        }
        let n_completion_tokens = answers.n_completion_tokens;
        let dialect = shared.dialect.as_ref();
        let expected = Expected {
            top_k: shared.options.top_k_logits,
            logprob_space: dialect.logprob_space(),
            ids: dialect.gives_ids(),
            eos_ids: &shared.eos_ids,
            gaps: dialect.leaves_gaps(),
        };
        let mut completions = answers
            .exactly(asked)
            .map_err(Fault::malformed)?
            .into_iter()
            .map(|answer| answer.complete(&expected))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut counted, mut estimated) = (true, false);
        let n_prompt = completions.iter().find_map(|one| one.n_prompt_tokens);
        let n_prompt = n_prompt.unwrap_or_else(|| {
            let count = self.n_prompt(shared).unwrap_or(Count {
                n: 0,
                counted: false,
            });
            // Ids that went out are what was paid for, whether or not the server says so.
            counted &= !self.0[0].prompt_token_ids.is_empty();
            estimated |= !count.counted;
            count.n
        });
        let mut n_completion = 0;
        for completion in &mut completions {
            let n = completion.n_completion_tokens.unwrap_or_else(|| {
                let count = tokens::of_text(shared.tokenizer.as_ref(), &completion.text);
                counted = false;
                estimated |= !count.counted;
                if count.counted {
                    completion.n_completion_tokens = Some(count.n);
                }
                count.n
            });
            n_completion += n;
            completion.paid = Some([n_prompt, n]);
        }
        if !counted {
            let how = match estimated {
                true => {
                    "the server counts no tokens: they are estimated from the text, rather too many than too few (teacher.tokenizer would count them)"
                }
                false => "the server counts no tokens: the tokenizer here does",
            };
            shared.notes.count(how, asked as u64, || self.name());
        }
        Ok(Answered {
            tokens: [n_prompt, n_completion_tokens.unwrap_or(n_completion)],
            value: completions,
        })
    }

    fn timed(mut value: Vec<Completion>, latency: Duration) -> Vec<Completion> {
        for completion in &mut value {
            completion.latency = latency;
        }
        value
    }
}

impl Asked for ScoreRequest {
    type Value = Scored;

    fn url(shared: &Shared, endpoint: &str) -> String {
        match shared.dialect.scoring() {
            Some(scoring) => scoring.url(endpoint),
            None => shared.dialect.url(endpoint),
        }
    }

    fn body(&self, shared: &Shared, _limit: u32) -> Value {
        let body =
            |scoring: &dyn Scoring| scoring.body(&shared.model, self, shared.options.top_k_logits);
        shared.dialect.scoring().map_or(Value::Null, body)
    }

    fn name(&self) -> String {
        format!("part {}, {}", self.part, self.key)
    }

    fn reading(shared: &Shared) -> &dyn Reading {
        match shared.dialect.scoring() {
            Some(scoring) => scoring.reading(),
            None => shared.dialect.reading(),
        }
    }

    fn complete(&self, answers: Answers, shared: &Shared) -> Result<Answered<Scored>, Fault> {
        let n_completion = answers.n_completion_tokens.unwrap_or(0);
        let read = || -> Result<Scored, Problem> {
            let answer = answers.exactly(1)?.pop().unwrap_or_default();
            let (n_prompt, k) = (self.prompt_token_ids.len(), shared.options.top_k_logits);
            answer.scored(n_prompt, &self.token_ids, k)
        };
        let value = read()?;
        let n_read = (self.prompt_token_ids.len() + self.token_ids.len()) as u32;
        Ok(Answered {
            value,
            tokens: [n_read, n_completion],
        })
    }
}
