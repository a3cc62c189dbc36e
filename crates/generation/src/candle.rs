//! The teacher in this process: our own decoder with a KV cache and continuous batching.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::decoder::{Decoder, Feed, Mode};
use model::engine::{self, Ending, EngineConfig, Sampled};
use model::kv_cache::KvCache;
use model::sampling::raw_top_k;
use model::tokenizer::Tokenizer;
use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use records::top_k::TopK;
use records::{FinishReason, LogprobSpace, Message};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::teacher::{
    Completion, Description, EncodedPrompt, Failure, FailureKind, Outcome, SampleRequest,
    SamplingConfig, ScoreOutcome, ScoreRequest, Scored, Teacher,
};

/// Logits that scoring has in memory at a time: 64 MiB.
const SCORED_LOGITS: usize = 16 << 20;

/// A checkpoint folder that is sampled, see [`model::engine`].
pub struct CandleTeacher {
    decoder: Decoder,
    tokenizer: Tokenizer,
    options: SamplingConfig,
    dir: PathBuf,
    revision: Option<String>,
    tokens_sampled: AtomicU64,
}

impl CandleTeacher {
    /// Loads a checkpoint folder in Hugging Face layout; a folder without a chat template is
    /// refused here, not at the first prompt.
    pub fn load(dir: &Path, options: SamplingConfig) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        tokenizer.require_chat_template()?;
        let decoder = Decoder::load(dir, Mode::Inference)?;
        Ok(Self::new(dir, decoder, tokenizer, options))
    }

    /// Gives the chat template these variables.
    ///
    /// # Errors
    /// Those of [`Tokenizer::with_chat_template_kwargs`].
    pub fn with_chat_template_kwargs(self, kwargs: Map<String, Value>) -> Result<Self> {
        Ok(Self {
            tokenizer: self.tokenizer.with_chat_template_kwargs(kwargs)?,
            ..self
        })
    }

    /// A teacher of parts that are already in memory; `dir` is only its name. Bit-equal
    /// completions at every concurrency need a decoder in [`Mode::Inference`].
    pub fn new(
        dir: &Path,
        decoder: Decoder,
        tokenizer: Tokenizer,
        options: SamplingConfig,
    ) -> Self {
        Self {
            decoder,
            tokenizer,
            options,
            dir: dir.to_path_buf(),
            revision: None,
            tokens_sampled: AtomicU64::new(0),
        }
    }

    /// Names the checkpoint's contents, see [`crate::checkpoint::revision`].
    pub fn with_revision(self, revision: String) -> Self {
        Self {
            revision: Some(revision),
            ..self
        }
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn options(&self) -> &SamplingConfig {
        &self.options
    }

    /// Reads one completion, some tokens at a time; `None` where `stop` was set meanwhile.
    fn score_one(
        &self,
        request: &ScoreRequest,
        cache: &mut KvCache,
        stop: &AtomicBool,
    ) -> Result<Option<ScoreOutcome>> {
        let config = self.decoder.config();
        let n_prompt = request.prompt_token_ids.len();
        let ids: Vec<u32> = request.all_ids();
        let fail = |kind, message| Ok(Some(Err(Failure { kind, message })));
        if ids.len() > config.max_position_embeddings {
            let message = format!(
                "prompt and completion have {} tokens, the model takes {}",
                ids.len(),
                config.max_position_embeddings
            );
            return fail(FailureKind::PromptTooLong, message);
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            let message = format!(
                "token id {id} is not of the model's vocabulary of {}",
                config.vocab_size
            );
            return fail(FailureKind::Refused, message);
        }
        let k = usize::from(self.options.top_k_logits);
        let (mut token_logprobs, mut top) = (Vec::new(), TopK::default());
        // The last token's logits are of what would follow.
        let seen = &ids[..ids.len() - 1];
        let mut at = 0;
        for ids in seen.chunks((SCORED_LOGITS / config.vocab_size).max(1)) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let keep = (at + ids.len()).saturating_sub(n_prompt - 1).min(ids.len());
            let logits = self
                .decoder
                .decode_last(Feed { slot: 0, ids }, keep, cache)?;
            at += ids.len();
            if let Some(row) = logits
                .iter()
                .position(|row| row.iter().any(|logit| !logit.is_finite()))
            {
                let token = token_logprobs.len() + row;
                let message = format!("the logits of token {token} are not finite");
                return fail(FailureKind::NonFinite, message);
            }
            let rows: Vec<_> = logits
                .par_iter()
                .zip(&request.token_ids[token_logprobs.len()..])
                .map(|(logits, &id)| raw_top_k(logits, k, id))
                .collect();
            self.tokens_sampled
                .fetch_add(rows.len() as u64, Ordering::Relaxed);
            for row in rows {
                token_logprobs.push(row.sampled_logprob);
                if k > 0 {
                    row.append_to(&mut top);
                }
            }
        }
        Ok(Some(Ok(Scored {
            token_logprobs,
            top: (k > 0).then_some(top),
            logprob_space: LogprobSpace::Raw,
        })))
    }

    fn finish(&self, request: &SampleRequest, sampled: Sampled) -> Outcome {
        match sampled.ending {
            Ending::NoRoom => Err(request.no_room(self.decoder.config().max_position_embeddings)),
            Ending::NonFinite => Err(Failure {
                kind: FailureKind::NonFinite,
                message: format!(
                    "the logits of token {} are not finite",
                    sampled.token_ids.len()
                ),
            }),
            ending => Ok(Completion {
                latency: sampled.latency,
                token_logprobs: Some(sampled.token_logprobs),
                top: (self.options.top_k_logits > 0).then_some(sampled.top),
                ..completion(
                    &self.tokenizer,
                    sampled.token_ids,
                    ending == Ending::Stopped,
                )
            }),
        }
    }
}

impl engine::Request for SampleRequest {
    fn prompt_ids(&self) -> &[u32] {
        &self.prompt_token_ids
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}

/// A completion of raw log-probabilities, without these.
pub(crate) fn completion(tokenizer: &Tokenizer, token_ids: Vec<u32>, stopped: bool) -> Completion {
    let ended = token_ids
        .last()
        .is_some_and(|last| tokenizer.eos_ids().contains(last));
    let n_spoken = token_ids.len() - usize::from(ended);
    Completion {
        text: text(tokenizer, &token_ids[..n_spoken]),
        n_completion_tokens: Some(token_ids.len() as u32),
        token_ids: Some(token_ids),
        logprob_space: Some(LogprobSpace::Raw),
        finish_reason: match stopped || ended {
            true => FinishReason::Stop,
            false => FinishReason::Length,
        },
        ..Completion::default()
    }
}

/// A completion in words: EOS and control tokens go, thought tags stay even where the
/// tokenizer counts them among the control tokens.
fn text(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let tags = [verify::think::OPEN, verify::think::CLOSE];
    let hidden: Vec<(u32, &str)> = tags
        .into_iter()
        .filter_map(|tag| Some((tokenizer.token_to_id(tag)?, tag)))
        .filter(|(id, _)| tokenizer.decode(&[*id], false).is_empty())
        .collect();
    let mut text = String::new();
    let mut start = 0;
    for (at, id) in ids.iter().enumerate() {
        if let Some((_, tag)) = hidden.iter().find(|(tag_id, _)| tag_id == id) {
            text += &tokenizer.decode(&ids[start..at], false);
            text += tag;
            start = at + 1;
        }
    }
    text += &tokenizer.decode(&ids[start..], false);
    text
}

impl Teacher for CandleTeacher {
    fn probe(&self) -> Result<Vec<String>> {
        let notices = [
            self.decoder.config().notices.as_slice(),
            self.tokenizer.notices(),
        ];
        Ok(notices.concat())
    }

    fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt> {
        EncodedPrompt::of(&self.tokenizer, messages)
    }

    fn sample(
        &self,
        requests: &mut dyn Iterator<Item = Result<SampleRequest>>,
        done: &mut dyn FnMut(SampleRequest, Outcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let config = EngineConfig {
            params: &self.options.params,
            max_new_tokens: self.options.max_new_tokens as usize,
            top_k: usize::from(self.options.top_k_logits),
            n_slots: self.options.concurrency,
            eos_ids: self.tokenizer.eos_ids(),
        };
        let mut done = |request: SampleRequest, sampled| {
            let outcome = self.finish(&request, sampled);
            done(request, outcome)
        };
        let n_sampled = &self.tokens_sampled;
        engine::run(&self.decoder, &config, requests, &mut done, n_sampled, stop)
    }

    fn score(
        &self,
        requests: &mut dyn Iterator<Item = Result<ScoreRequest>>,
        done: &mut dyn FnMut(ScoreRequest, ScoreOutcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut cache = KvCache::new(self.decoder.config(), 1);
        while !stop.load(Ordering::Relaxed) {
            let Some(request) = requests.next().transpose()? else {
                break;
            };
            cache.clear(0);
            let outcome = self.score_one(&request, &mut cache, stop)?;
            match outcome {
                Some(outcome) => done(request, outcome)?,
                None => break,
            }
        }
        Ok(())
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.tokenizer)
    }

    fn describe(&self) -> Description {
        Description {
            backend: "candle".to_owned(),
            model: self.dir.display().to_string(),
            revision: self.revision.clone(),
            reproducible: true,
            logprob_space: LogprobSpace::Raw,
        }
    }

    fn tokenizer_fingerprint(&self) -> Option<String> {
        Some(self.tokenizer.fingerprint())
    }

    fn tokens_sampled(&self) -> u64 {
        self.tokens_sampled.load(Ordering::Relaxed)
    }
}
