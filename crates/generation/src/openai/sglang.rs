//! SGLang's `/generate`: ids natively; its log-probabilities are of the tempered logits unless the server was started
//! with SGLANG_RETURN_ORIGINAL_LOGPROB=1, which it does not say.
//!
//! Answers are asked for whole. Every event of a stream repeats all that was said before, so that a long answer with its
//! log-probabilities grows with the square of its length (12,000 tokens with 20 entries each pass 1 GiB). A stream that
//! comes all the same is read in either form: repeating, or as `--incremental-streaming-output` has it.

use records::LogprobSpace;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Answers, Position, or_no_mass};
use super::dialect::{Ask, Dialect, Reading, Scoring, decimal, root};
use super::ending::{ServerError, Word, end, word};
use super::json::parse;
use crate::teacher::ScoreRequest;

pub struct Sglang;

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    text: String,
    output_ids: Option<Vec<u32>>,
    meta_info: Option<Meta>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default, deserialize_with = "word")]
    finish_reason: Option<Word>,
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    output_token_logprobs: Option<Vec<Entry>>,
    output_top_logprobs: Option<Vec<Option<Vec<Entry>>>>,
}

/// Log-probability, id, and the token's text where it was asked for.
#[derive(Deserialize)]
struct Entry(Option<f64>, u32, #[allow(dead_code)] Value);

impl Dialect for Sglang {
    fn url(&self, endpoint: &str) -> String {
        format!("{}/generate", root(endpoint))
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let params = &ask.options.params;
        let mut body = json!({
            "input_ids": ask.request.prompt_token_ids,
            "stream": false,
            "sampling_params": {
                "max_new_tokens": ask.options.max_new_tokens,
                "temperature": decimal(params.temperature),
                "top_p": decimal(params.top_p),
                "top_k": params.top_k.map_or(-1, i64::from),
                "min_p": decimal(params.min_p.unwrap_or(0.0)),
                "sampling_seed": ask.seed(),
                "skip_special_tokens": false,
            },
        });
        if ask.options.top_k_logits > 0 {
            body["return_logprob"] = true.into();
            body["logprob_start_len"] = (-1).into();
            body["top_logprobs_num"] = ask.options.top_k_logits.into();
        }
        body
    }

    fn reading(&self) -> &dyn Reading {
        self
    }

    fn probes(&self, endpoint: &str) -> Vec<String> {
        let root = root(endpoint);
        vec![
            format!("{root}/v1/models"),
            format!("{root}/get_server_info"),
        ]
    }

    fn names_models(&self) -> bool {
        false
    }

    fn scoring(&self) -> Option<&dyn Scoring> {
        Some(&InputLogprobs)
    }

    fn logprob_space(&self) -> LogprobSpace {
        LogprobSpace::Tempered
    }

    fn gives_ids(&self) -> bool {
        true
    }

    fn streams(&self) -> bool {
        false
    }

    fn limit_keys(&self) -> &'static [&'static str] {
        &["sampling_params.max_new_tokens"]
    }
}

impl Reading for Sglang {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: Body = parse(data)?;
        answers.note_error(ServerError::of(&body.error));
        let Some(meta) = body.meta_info else {
            answers.skip(!body.error.is_null());
            return Ok(());
        };
        let mut tops = meta.output_top_logprobs.unwrap_or_default().into_iter();
        let entries = meta.output_token_logprobs.unwrap_or_default();
        if tops.len() != 0 && tops.len() != entries.len() {
            return Err(differing(entries.len(), tops.len()));
        }
        let positions = entries.into_iter().map(|Entry(logprob, id, _)| Position {
            id: Some(id),
            logprob: or_no_mass(logprob),
            top: entries_of(tops.next().flatten()),
        });
        let positions: Vec<Position> = positions.collect();
        let token_ids = body.output_ids.unwrap_or_default();
        let answer = answers.choice(0)?;
        let known = answer.token_ids.len().max(answer.positions.len());
        // The tokens are counted from the first one in either form: what is missing up to that number is what was said
        // before. Each part may go on or repeat by itself.
        let goes_on = |said: usize, new: usize| {
            let total = meta.completion_tokens.map_or(0, |n| n as usize);
            said > 0 && new < total && said + new == total
        };
        let text_goes_on = match (token_ids.len(), positions.len()) {
            (0, 0) => known > 0 && !body.text.starts_with(&answer.text),
            (0, n) | (n, _) => goes_on(known, n),
        };
        let before = std::mem::take(answer);
        let joined = |goes_on: bool, before: Vec<u32>, new: Vec<u32>| match goes_on {
            true => [before, new].concat(),
            false => new,
        };
        *answer = Answer {
            text: match text_goes_on {
                true => before.text + &body.text,
                false => body.text,
            },
            positions: match goes_on(before.positions.len(), positions.len()) {
                true => before.positions.into_iter().chain(positions).collect(),
                false => positions,
            },
            token_ids: joined(
                goes_on(before.token_ids.len(), token_ids.len()),
                before.token_ids,
                token_ids,
            ),
            end: meta.finish_reason.map(|word| end(&word, &[])),
            n_prompt_tokens: meta.prompt_tokens.filter(|&n| n > 0),
            n_completion_tokens: meta.completion_tokens.filter(|&n| n > 0),
            ..Answer::default()
        };
        Ok(())
    }
}

/// `input_token_logprobs`: those of the prompt's last tokens, which here are the completion. Asked at temperature 1,
/// they are of the logits as they are.
struct InputLogprobs;

#[derive(Deserialize)]
struct ScoredBody {
    meta_info: Option<ScoredMeta>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct ScoredMeta {
    completion_tokens: Option<u32>,
    input_token_logprobs: Vec<ScoredEntry>,
    #[serde(default)]
    input_top_logprobs: Option<Vec<Option<Vec<Entry>>>>,
}

/// As [`Entry`], without a log-probability at the first token that is read.
#[derive(Deserialize)]
struct ScoredEntry(Option<f64>, u32, #[allow(dead_code)] Value);

impl Scoring for InputLogprobs {
    fn url(&self, endpoint: &str) -> String {
        Sglang.url(endpoint)
    }

    fn body(&self, _model: &str, request: &ScoreRequest, top_k: u16) -> Value {
        json!({
            "input_ids": request.all_ids(),
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": true,
            // The token before the completion has none.
            "logprob_start_len": request.prompt_token_ids.len() - 1,
            "top_logprobs_num": top_k,
        })
    }

    fn reading(&self) -> &dyn Reading {
        self
    }
}

impl Reading for InputLogprobs {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: ScoredBody = parse(data)?;
        answers.note_error(ServerError::of(&body.error));
        let Some(meta) = body.meta_info else {
            return match answers.error {
                Some(_) => Ok(()),
                None => Err("the answer has no meta_info".to_owned()),
            };
        };
        let entries = meta.input_token_logprobs;
        let mut tops = meta.input_top_logprobs.unwrap_or_default().into_iter();
        if tops.len() != 0 && tops.len() != entries.len() {
            return Err(differing(entries.len(), tops.len()));
        }
        answers.n_completion_tokens = meta.completion_tokens;
        answers.choice(0)?.positions = entries
            .into_iter()
            .enumerate()
            .map(|(at, ScoredEntry(logprob, id, _))| Position {
                id: Some(id),
                logprob: match at {
                    // Nothing comes before it.
                    0 => logprob.unwrap_or(f64::NAN),
                    _ => or_no_mass(logprob),
                },
                top: entries_of(tops.next().flatten()),
            })
            .collect();
        Ok(())
    }
}

fn differing(tokens: usize, lists: usize) -> String {
    format!("{tokens} tokens with {lists} lists of the likeliest")
}

fn entries_of(top: Option<Vec<Entry>>) -> Vec<(u32, f64)> {
    let entries = top.into_iter().flatten();
    entries
        .map(|Entry(logprob, id, _)| (id, or_no_mass(logprob)))
        .collect()
}
