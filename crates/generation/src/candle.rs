//! The teacher in this process: our own decoder with a KV cache and continuous batching.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use half::f16;
use model::decoder::{Decoder, Feed, Mode};
use model::kv_cache::KvCache;
use model::sampling::{Sampler, TopKRow, raw_top_k};
use model::tokenizer::Tokenizer;
use rayon::prelude::{
    IndexedParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator,
};
use records::Message;
use records::top_k::TopK;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::teacher::{
    Completion, Description, EncodedPrompt, Failure, FailureKind, LENGTH, Outcome, RAW, STOP,
    SampleRequest, SamplingConfig, ScoreOutcome, ScoreRequest, Scored, Teacher,
};

/// Prompt tokens that one decoding step takes in beside the running completions: new requests
/// should not hold the others up for long. A longer prompt gets a step of its own.
const PREFILL_TOKENS: usize = 2048;

/// Logits that scoring has in memory at a time: 64 MiB.
const SCORED_LOGITS: usize = 16 << 20;

/// A checkpoint folder that is sampled. A completion depends on its request alone: the random
/// numbers are the request's own, and the decoder's logits do not depend on the batch.
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
                    push(&mut top, row);
                }
            }
        }
        Ok(Some(Ok(Scored {
            token_logprobs,
            top: (k > 0).then_some(top),
            logprob_space: RAW.to_owned(),
        })))
    }

    fn finish(&self, active: Active) -> (SampleRequest, Outcome) {
        let outcome = match active.ending {
            Some(Ending::Failed(failure)) => Err(failure),
            ending => {
                let top = (self.options.top_k_logits > 0).then_some(active.top);
                let stopped = matches!(ending, Some(Ending::Stopped));
                Ok(Completion {
                    latency: active.started.elapsed(),
                    token_logprobs: Some(active.token_logprobs),
                    top,
                    ..completion(&self.tokenizer, active.token_ids, stopped)
                })
            }
        };
        (active.request, outcome)
    }
}

enum Ending {
    Stopped,
    Full,
    Failed(Failure),
}

/// A request in flight.
struct Active {
    slot: usize,
    request: SampleRequest,
    sampler: Sampler,
    room: usize,
    token_ids: Vec<u32>,
    token_logprobs: Vec<f32>,
    top: TopK,
    started: Instant,
    ending: Option<Ending>,
}

impl Active {
    /// What the decoder has not seen yet: the prompt, then the token sampled last.
    fn feed(&self) -> Feed<'_> {
        let ids = match self.token_ids.len() {
            0 => &self.request.prompt_token_ids,
            n => &self.token_ids[n - 1..],
        };
        Feed {
            slot: self.slot,
            ids,
        }
    }

    /// Takes the next token from its logits [V].
    fn step(&mut self, logits: &[f32], options: &SamplingConfig, eos_ids: &[u32]) {
        if logits.iter().any(|logit| !logit.is_finite()) {
            self.ending = Some(Ending::Failed(Failure {
                kind: FailureKind::NonFinite,
                message: format!(
                    "the logits of token {} are not finite",
                    self.token_ids.len()
                ),
            }));
            return;
        }
        let id = self.sampler.sample(logits);
        let row = raw_top_k(logits, usize::from(options.top_k_logits), id);
        self.token_ids.push(id);
        self.token_logprobs.push(row.sampled_logprob);
        if options.top_k_logits > 0 {
            push(&mut self.top, row);
        }
        if eos_ids.contains(&id) {
            self.ending = Some(Ending::Stopped);
        } else if self.token_ids.len() >= self.room {
            self.ending = Some(Ending::Full);
        }
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
        logprob_space: Some(RAW.to_owned()),
        finish_reason: if stopped || ended { STOP } else { LENGTH }.to_owned(),
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

/// Appends a position. A vocabulary smaller than K gives fewer entries, the same number everywhere.
pub(crate) fn push(top: &mut TopK, row: TopKRow) {
    top.k = row.ids.len() as u16;
    top.ids.extend(row.ids);
    let logprobs = row.logprobs.into_iter().map(f16::from_f32);
    top.logprobs.extend(logprobs);
    top.tail_logprobs.push(row.tail_logprob);
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
        requests: &mut dyn Iterator<Item = SampleRequest>,
        done: &mut dyn FnMut(SampleRequest, Outcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let n_slots = self.options.concurrency.max(1);
        let mut cache = KvCache::new(self.decoder.config(), n_slots);
        let mut free: Vec<usize> = (0..n_slots).rev().collect();
        let mut running: Vec<Active> = Vec::with_capacity(n_slots);
        let mut exhausted = false;
        while !stop.load(Ordering::Relaxed) {
            let mut prefill = 0;
            while prefill < PREFILL_TOKENS && !exhausted && !free.is_empty() {
                let Some(request) = requests.next() else {
                    exhausted = true;
                    break;
                };
                let limit = self.decoder.config().max_position_embeddings;
                let room = match request.room(limit, self.options.max_new_tokens) {
                    Ok(room) => room,
                    Err(failure) => {
                        done(request, Err(failure))?;
                        continue;
                    }
                };
                let Some(slot) = free.pop() else { break };
                prefill += request.prompt_token_ids.len();
                running.push(Active {
                    slot,
                    sampler: Sampler::new(&self.options.params, request.seed),
                    request,
                    room,
                    token_ids: Vec::new(),
                    token_logprobs: Vec::new(),
                    top: TopK::default(),
                    started: Instant::now(),
                    ending: None,
                });
            }
            if running.is_empty() {
                break;
            }
            let feeds: Vec<_> = running.iter().map(Active::feed).collect();
            let logits = self.decoder.decode(&feeds, &mut cache)?;
            let eos_ids = self.tokenizer.eos_ids();
            running
                .par_iter_mut()
                .zip(&logits)
                .for_each(|(active, logits)| active.step(logits, &self.options, eos_ids));
            self.tokens_sampled
                .fetch_add(logits.len() as u64, Ordering::Relaxed);
            let (ended, going): (Vec<_>, Vec<_>) = running
                .into_iter()
                .partition(|active| active.ending.is_some());
            running = going;
            for active in ended {
                cache.clear(active.slot);
                free.push(active.slot);
                let (request, outcome) = self.finish(active);
                done(request, outcome)?;
            }
        }
        Ok(())
    }

    fn score(
        &self,
        requests: &mut dyn Iterator<Item = ScoreRequest>,
        done: &mut dyn FnMut(ScoreRequest, ScoreOutcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut cache = KvCache::new(self.decoder.config(), 1);
        while !stop.load(Ordering::Relaxed) {
            let Some(request) = requests.next() else {
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
            logprob_space: RAW.to_owned(),
        }
    }

    fn tokenizer_fingerprint(&self) -> Option<String> {
        Some(self.tokenizer.fingerprint())
    }

    fn tokens_sampled(&self) -> u64 {
        self.tokens_sampled.load(Ordering::Relaxed)
    }
}
