//! vLLM's `/v1/completions`: prompts and completions as token ids, log-probabilities raw by default.

use std::fmt;

use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::answer::{Answers, Position, or_no_mass};
use super::dialect::{Ask, Dialect, Reading, Scoring, Usage, decimal, root, token_id};
use super::ending::{ServerError, Word, end, word};
use super::json::parse;
use crate::teacher::ScoreRequest;

pub struct Vllm;

/// Its detector of repetition ends a completion, too, where it is asked to.
const ENDS: &[&str] = &["repetition"];

#[derive(Deserialize)]
struct Body {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    text: String,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Logprobs>,
    #[serde(default, deserialize_with = "word")]
    finish_reason: Option<Word>,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    tokens: Vec<TokenId>,
    #[serde(default)]
    token_logprobs: Vec<Option<f64>>,
    #[serde(default)]
    top_logprobs: Option<Vec<Option<Top>>>,
}

/// `"token_id:N"`.
struct TokenId(u32);

/// `{"token_id:N": logprob, …}`, of which an answer has tens of thousands.
#[derive(Default)]
struct Top(Vec<(u32, f64)>);

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = TokenId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a token as `token_id:N` (does the server know `return_tokens_as_token_ids`?)",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenId, E> {
                let id = token_id(text);
                id.map(TokenId)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Top;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with their log-probabilities")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
                let mut entries = Vec::with_capacity(24);
                while let Some((TokenId(id), logprob)) = map.next_entry()? {
                    entries.push((id, or_no_mass(logprob)));
                }
                Ok(Top(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Dialect for Vllm {
    fn url(&self, endpoint: &str) -> String {
        format!("{endpoint}/completions")
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let params = &ask.options.params;
        let mut body = json!({
            "model": ask.model,
            "prompt": ask.request.prompt_token_ids,
            "max_tokens": ask.options.max_new_tokens,
            // All of them: what is left out comes from the model's generation_config.json.
            "temperature": decimal(params.temperature),
            "top_p": decimal(params.top_p),
            "top_k": params.top_k.map_or(-1, i64::from),
            "min_p": decimal(params.min_p.unwrap_or(0.0)),
            "repetition_penalty": 1.0,
            "seed": ask.seed(),
            "stream": true,
            "stream_options": {"include_usage": true},
            "return_token_ids": true,
            "skip_special_tokens": false,
        });
        if ask.n > 1 {
            body["n"] = ask.n.into();
        }
        if ask.options.top_k_logits > 0 {
            body["logprobs"] = ask.options.top_k_logits.into();
            body["return_tokens_as_token_ids"] = true.into();
        }
        body
    }

    fn reading(&self) -> &dyn Reading {
        self
    }

    fn probes(&self, endpoint: &str) -> Vec<String> {
        vec![
            format!("{endpoint}/models"),
            format!("{}/version", root(endpoint)),
        ]
    }

    fn scoring(&self) -> Option<&dyn Scoring> {
        Some(&PromptLogprobs)
    }

    fn gives_ids(&self) -> bool {
        true
    }
}

impl Reading for Vllm {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: Body = parse(data)?;
        let counts = body.usage.is_some();
        Usage::note(body.usage, answers);
        answers.note_error(ServerError::of(&body.error));
        let Some(choices) = body.choices else {
            answers.skip(counts || !body.error.is_null());
            return Ok(());
        };
        for choice in choices {
            let brings = !choice.text.is_empty()
                || choice.token_ids.as_ref().is_some_and(|ids| !ids.is_empty())
                || choice
                    .logprobs
                    .as_ref()
                    .is_some_and(|l| !l.tokens.is_empty());
            let Some(answer) = answers.going_on(choice.index, brings)? else {
                continue;
            };
            answer.text += &choice.text;
            answer
                .token_ids
                .extend(choice.token_ids.unwrap_or_default());
            if let Some(logprobs) = choice.logprobs {
                answer.positions.extend(positions(logprobs)?);
            }
            if let Some(word) = choice.finish_reason {
                answer.end = Some(end(&word, ENDS));
            }
        }
        Ok(())
    }
}

fn positions(logprobs: Logprobs) -> Result<Vec<Position>, String> {
    let n = logprobs.tokens.len();
    let top_logprobs = logprobs.top_logprobs.unwrap_or_default();
    let tops = top_logprobs.len();
    if logprobs.token_logprobs.len() != n || (tops != 0 && tops != n) {
        return Err(format!(
            "{n} tokens with {} log-probabilities and {tops} lists of the likeliest",
            logprobs.token_logprobs.len()
        ));
    }
    let mut tops = top_logprobs.into_iter();
    let pairs = logprobs.tokens.into_iter().zip(logprobs.token_logprobs);
    Ok(pairs
        .map(|(TokenId(id), logprob)| {
            let Top(top) = tops.next().flatten().unwrap_or_default();
            Position {
                id: Some(id),
                logprob: or_no_mass(logprob),
                top,
            }
        })
        .collect())
}

/// `prompt_logprobs`: the distribution at every position of the prompt, which here ends with the completion.
struct PromptLogprobs;

#[derive(Deserialize)]
struct ScoredBody {
    choices: Option<Vec<ScoredChoice>>,
    usage: Option<Usage>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct ScoredChoice {
    prompt_logprobs: Option<Vec<Option<ScoredTop>>>,
}

/// `{"id": {"logprob": …}, …}`: the likeliest, and the token that is there.
struct ScoredTop(Vec<(u32, f64)>);

impl<'de> Deserialize<'de> for ScoredTop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Logprob {
            logprob: Option<f64>,
        }

        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = ScoredTop;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("token ids with their log-probabilities")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ScoredTop, A::Error> {
                let mut entries = Vec::with_capacity(24);
                while let Some((id, Logprob { logprob })) = map.next_entry()? {
                    entries.push((id, or_no_mass(logprob)));
                }
                Ok(ScoredTop(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Scoring for PromptLogprobs {
    fn url(&self, endpoint: &str) -> String {
        Vllm.url(endpoint)
    }

    fn body(&self, model: &str, request: &ScoreRequest, top_k: u16) -> Value {
        json!({
            "model": model,
            "prompt": request.all_ids(),
            // It will not take 0.
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": top_k,
            "add_special_tokens": false,
        })
    }

    fn reading(&self) -> &dyn Reading {
        self
    }
}

impl Reading for PromptLogprobs {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: ScoredBody = parse(data)?;
        Usage::note(body.usage, answers);
        answers.note_error(ServerError::of(&body.error));
        if answers.error.is_some() {
            return Ok(());
        }
        let mut choices = body.choices.unwrap_or_default().into_iter();
        let positions = choices
            .next()
            .and_then(|choice| choice.prompt_logprobs)
            .ok_or("the answer has no prompt_logprobs")?;
        if choices.next().is_some() {
            return Err("the answer has more than one choice".into());
        }
        answers.choice(0)?.positions = positions
            .into_iter()
            .map(|top| Position {
                id: None,
                logprob: f64::NAN,
                top: top.map_or_else(Vec::new, |ScoredTop(top)| top),
            })
            .collect();
        Ok(())
    }
}
