//! Continuous batching over a [`Decoder`]: sequences are sampled together, and one that ends makes room for the next.
//!
//! A completion depends on its request alone: random numbers are the request's own, and the decoder's logits do not
//! depend on the batch. Requests of one prompt that follow each other share its prefill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::{IntoParallelRefMutIterator, ParallelIterator};
use records::top_k::TopK;

use crate::decoder::{Decoder, Feed};
use crate::error::Error;
use crate::kv_cache::KvCache;
use crate::sampling::{Sampler, SamplingParams, raw_top_k};

/// Prompt tokens that one decoding step takes in beside the running completions: new requests
/// should not hold the others up for long. A longer prompt gets a step of its own.
const PREFILL_TOKENS: usize = 2048;

/// How completions are sampled.
#[derive(Debug, Clone)]
pub struct EngineConfig<'a> {
    pub params: &'a SamplingParams,
    pub max_new_tokens: usize,
    /// Entries of the raw distribution kept per position; 0 keeps none.
    pub top_k: usize,
    /// Sequences that are sampled together; at least 1.
    pub n_slots: usize,
    /// A completion ends with the first of these.
    pub eos_ids: &'a [u32],
}

/// A prompt that asks for a completion.
pub trait Request: Send {
    /// At least one token.
    fn prompt_ids(&self) -> &[u32];

    /// Seeds the request's own random numbers.
    fn seed(&self) -> u64;
}

/// What was sampled after a prompt. T = `token_ids.len()`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Shape `[T]`, the EOS id included.
    pub token_ids: Vec<u32>,
    /// Shape `[T]`: natural logarithms of the raw probabilities.
    pub token_logprobs: Vec<f32>,
    /// Row *t* is the raw distribution given the prompt and `token_ids[..t]`; empty where no entries are kept.
    pub top: TopK,
    /// From the prompt's first token to the last one sampled.
    pub latency: Duration,
    pub ending: Ending,
}

/// Why a sequence has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It has sampled an EOS id.
    Stopped,
    /// It has all tokens that it may have.
    Full,
    /// The logits of the next token hold NaN or an infinity.
    NonFinite,
    /// The prompt is empty, or leaves no room for a single new token.
    NoRoom,
}

/// Samples every request and hands each to `done`, in any order; counts tokens in `n_sampled` as they come.
///
/// A request is pulled only when it is about to be worked on. When `stop` is set the call returns soon, and drops what
/// it has under way.
///
/// # Errors
/// One of `done` or of the decoder ends the call at once; one among the requests once those under way have ended.
pub fn run<R: Request, E: From<Error>>(
    decoder: &Decoder,
    config: &EngineConfig<'_>,
    requests: &mut dyn Iterator<Item = Result<R, E>>,
    done: &mut dyn FnMut(R, Sampled) -> Result<(), E>,
    n_sampled: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(), E> {
    let n_positions = decoder.config().max_position_embeddings;
    let mut cache = KvCache::new(decoder.config(), config.n_slots.max(1));
    let mut free: Vec<usize> = (0..cache.n_slots()).rev().collect();
    let mut running: Vec<Sequence<R>> = Vec::with_capacity(free.len());
    let (mut failed, mut exhausted) = (None, false);
    while !stop.load(Ordering::Relaxed) {
        let mut prefill = 0;
        while prefill < PREFILL_TOKENS && !exhausted && !free.is_empty() {
            let request = match requests.next() {
                Some(Ok(request)) => request,
                other => {
                    (failed, exhausted) = (other.and_then(Result::err), true);
                    break;
                }
            };
            let n_prompt = request.prompt_ids().len();
            if n_prompt == 0 || n_prompt >= n_positions {
                done(request, Sampled::none(Ending::NoRoom))?;
                continue;
            }
            let Some(slot) = free.pop() else { break };
            let same = |sequence: &&Sequence<R>| {
                sequence.leads && sequence.request.prompt_ids() == request.prompt_ids()
            };
            let leader = running.iter().find(same);
            let shares = leader.map(|leader| (leader.slot, leader.prompt_logits.clone()));
            if shares.is_none() {
                // Requests of a prompt follow each other: nobody asks for the others' any more.
                for sequence in &mut running {
                    (sequence.leads, sequence.prompt_logits) = (false, None);
                }
                prefill += n_prompt;
            }
            running.push(Sequence {
                slot,
                sampler: Sampler::new(config.params, request.seed()),
                room: (n_positions - n_prompt).min(config.max_new_tokens),
                request,
                leads: shares.is_none(),
                shares,
                prompt_logits: None,
                logits: None,
                sampled: Sampled::none(Ending::Full),
                ended: false,
                started: Instant::now(),
            });
        }
        if running.is_empty() {
            break;
        }
        decode(decoder, &mut cache, &mut running)?;
        running
            .par_iter_mut()
            .for_each(|sequence| sequence.step(config));
        n_sampled.fetch_add(running.len() as u64, Ordering::Relaxed);
        let (ended, going): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|sequence| sequence.ended);
        running = going;
        for sequence in ended {
            cache.clear(sequence.slot);
            free.push(sequence.slot);
            let mut sampled = sequence.sampled;
            sampled.latency = sequence.started.elapsed();
            done(sequence.request, sampled)?;
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Gives every sequence the logits of its next token.
fn decode<R: Request>(
    decoder: &Decoder,
    cache: &mut KvCache,
    running: &mut [Sequence<R>],
) -> Result<(), Error> {
    let fed = running.iter().filter(|sequence| sequence.shares.is_none());
    let feeds: Vec<_> = fed.map(Sequence::feed).collect();
    let logits = match feeds.is_empty() {
        true => Vec::new(),
        false => decoder.decode(&feeds, cache)?,
    };
    let fed = running
        .iter_mut()
        .filter(|sequence| sequence.shares.is_none());
    for (sequence, logits) in fed.zip(logits) {
        let logits = Arc::new(logits);
        if sequence.leads && sequence.sampled.token_ids.is_empty() {
            sequence.prompt_logits = Some(logits.clone());
        }
        sequence.logits = Some(logits);
    }
    for at in 0..running.len() {
        let Some((from, known)) = running[at].shares.take() else {
            continue;
        };
        // One that has come in the same step has just been fed the prompt.
        let leader = running.iter().find(|sequence| sequence.slot == from);
        let logits = known.or_else(|| leader.and_then(|leader| leader.logits.clone()));
        let sequence = &mut running[at];
        let n_prompt = sequence.request.prompt_ids().len();
        cache.copy_prefix(from, sequence.slot, n_prompt);
        sequence.logits = logits;
    }
    Ok(())
}

/// A request that is being sampled.
struct Sequence<R> {
    slot: usize,
    request: R,
    sampler: Sampler,
    room: usize,
    /// Requests that follow may be of the same prompt. At most one sequence leads.
    leads: bool,
    /// The slot that has its prompt, and the prompt's logits [V] if they are known, until they are taken over.
    shares: Option<(usize, Option<Arc<Vec<f32>>>)>,
    /// Of a leader's prompt [V].
    prompt_logits: Option<Arc<Vec<f32>>>,
    /// Of the next token [V].
    logits: Option<Arc<Vec<f32>>>,
    sampled: Sampled,
    ended: bool,
    started: Instant,
}

impl<R: Request> Sequence<R> {
    /// What the decoder has not seen yet: the prompt, then the token sampled last.
    fn feed(&self) -> Feed<'_> {
        let ids = match self.sampled.token_ids.len() {
            0 => self.request.prompt_ids(),
            n => &self.sampled.token_ids[n - 1..],
        };
        Feed {
            slot: self.slot,
            ids,
        }
    }

    /// Takes the next token.
    fn step(&mut self, config: &EngineConfig<'_>) {
        let logits = self.logits.take().unwrap_or_default();
        let sampled = &mut self.sampled;
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            (sampled.ending, self.ended) = (Ending::NonFinite, true);
            return;
        }
        let id = self.sampler.sample(&logits);
        let row = raw_top_k(&logits, config.top_k, id);
        sampled.token_ids.push(id);
        sampled.token_logprobs.push(row.sampled_logprob);
        if config.top_k > 0 {
            row.append_to(&mut sampled.top);
        }
        if config.eos_ids.contains(&id) {
            (sampled.ending, self.ended) = (Ending::Stopped, true);
        } else if sampled.token_ids.len() >= self.room {
            (sampled.ending, self.ended) = (Ending::Full, true);
        }
    }
}

impl Sampled {
    fn none(ending: Ending) -> Self {
        Self {
            token_ids: Vec::new(),
            token_logprobs: Vec::new(),
            top: TopK::default(),
            latency: Duration::ZERO,
            ending,
        }
    }
}
