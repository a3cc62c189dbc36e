//! Teachers that mistral.rs runs: GGUF and quantised checkpoints, and architectures that our decoder does not have.
//!
//! Its own log-probabilities are of base 10 and filtered, its random numbers shared by all requests, and it names no
//! token that it sampled. A logits processor sees every position's logits before any of that: the token is chosen
//! here, from the request's own random numbers, and handed back as the only one that is possible.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ::mistralrs::{
    CustomLogitsProcessor, Device, GgufModelBuilder, Model, ModelDType, NormalRequest, Request,
    RequestMessage, Response, SamplingParams, StopTokens, Tensor, TextModelBuilder,
    parse_isq_value,
};
use model::sampling::{Sampler, raw_top_k};
use model::tokenizer::Tokenizer;
use records::top_k::TopK;
use records::{FinishReason, LogprobSpace, Message};
use tokio::sync::mpsc;

use crate::candle;
use crate::config::TeacherConfig;
use crate::drive::drive;
use crate::error::{Error, Result};
use crate::teacher::{
    Completion, Description, EncodedPrompt, Failure, FailureKind, Outcome, SampleRequest,
    SamplingConfig, Teacher,
};

/// Completions under way: mistral.rs 0.8.1 mixes the caches of several of different lengths up, on the CPU at eight of
/// them for certain, and its limit on sequences does not hold while none runs.
const AT_A_TIME: usize = 1;

/// The teacher behind `[teacher] backend = "mistralrs"`.
pub struct MistralRsTeacher {
    runtime: tokio::runtime::Runtime,
    model: Model,
    tokenizer: Tokenizer,
    options: SamplingConfig,
    /// Positions that the model has.
    n_positions: usize,
    name: String,
    revision: String,
    tokens_sampled: Arc<AtomicU64>,
}

impl MistralRsTeacher {
    /// Loads a checkpoint folder, or a GGUF file beside the folder of its tokenizer.
    ///
    /// # Errors
    /// [`Error::MistralRs`] with what mistral.rs says.
    pub fn load(config: &TeacherConfig, options: SamplingConfig, revision: String) -> Result<Self> {
        let path = config.model.path();
        let folder = config.tokenizer.as_ref().unwrap_or(&config.model);
        let kwargs = config.chat_template_kwargs.clone().unwrap_or_default();
        let tokenizer = Tokenizer::from_dir(folder.path())?.with_chat_template_kwargs(kwargs)?;
        tokenizer.require_chat_template()?;
        let failed = |problem: String| Error::MistralRs {
            model: config.model.to_string(),
            problem,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let building = async {
            if path.is_file() {
                let (dir, file) = (path.parent(), path.file_name());
                let dir = dir.filter(|dir| !dir.as_os_str().is_empty());
                let dir = dir.unwrap_or(Path::new(".")).display().to_string();
                let file = file.unwrap_or_default().to_string_lossy();
                return GgufModelBuilder::new(dir, vec![file])
                    .with_force_cpu()
                    .with_max_num_seqs(AT_A_TIME)
                    .with_prefix_cache_n(None)
                    .build()
                    .await
                    .map_err(|error| format!("{error:#}"));
            }
            let mut builder = TextModelBuilder::new(path.display().to_string())
                .with_dtype(ModelDType::F32)
                .with_force_cpu()
                .with_max_num_seqs(AT_A_TIME)
                .with_prefix_cache_n(None);
            if let Some(name) = &config.quantization {
                builder = builder.with_isq(parse_isq_value(name, Some(&Device::Cpu))?);
            }
            builder.build().await.map_err(|error| format!("{error:#}"))
        };
        let model = runtime.block_on(building).map_err(failed)?;
        let n_positions = model
            .max_sequence_length()
            .map_err(|error| failed(error.to_string()))?
            .unwrap_or(usize::MAX);
        Ok(Self {
            runtime,
            model,
            tokenizer,
            options,
            n_positions,
            name: config.model.to_string(),
            revision,
            tokens_sampled: Arc::default(),
        })
    }

    fn finish(&self, recording: &mut Recording, answer: Answer) -> Outcome {
        if recording.non_finite {
            return Err(Failure {
                kind: FailureKind::NonFinite,
                message: format!(
                    "the logits of token {} are not finite",
                    recording.token_ids.len()
                ),
            });
        }
        if recording.lost {
            return Err(Failure {
                kind: FailureKind::Exhausted,
                message: "mistral.rs has not shown the logits of every position".into(),
            });
        }
        let word = answer.map_err(|message| Failure {
            kind: FailureKind::Exhausted,
            message,
        })?;
        let token_ids = std::mem::take(&mut recording.token_ids);
        let top = std::mem::take(&mut recording.top);
        Ok(Completion {
            latency: recording.started.elapsed(),
            token_logprobs: Some(std::mem::take(&mut recording.token_logprobs)),
            top: (self.options.top_k_logits > 0).then_some(top),
            ..candle::completion(
                &self.tokenizer,
                token_ids,
                FinishReason::from(word) == FinishReason::Stop,
            )
        })
    }
}

/// How mistral.rs says that it ended, or what went wrong.
type Answer = std::result::Result<String, String>;

/// What has been sampled for a request.
struct Recording {
    sampler: Sampler,
    top_k_logits: usize,
    n_prompt: usize,
    token_ids: Vec<u32>,
    token_logprobs: Vec<f32>,
    top: TopK,
    non_finite: bool,
    /// A position was passed over.
    lost: bool,
    started: Instant,
}

/// Chooses a request's tokens, and keeps what they were chosen from.
struct Recorder {
    recording: Mutex<Recording>,
    /// Ends a completion that cannot go on.
    end: u32,
    eos_ids: Vec<u32>,
    tokens_sampled: Arc<AtomicU64>,
}

impl Recorder {
    fn choose(&self, logits: &[f32], n_context: usize) -> u32 {
        let mut recording = self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let recording = &mut *recording;
        let at = n_context.saturating_sub(recording.n_prompt);
        // A sequence that was set aside is computed again.
        if let Some(&known) = recording.token_ids.get(at) {
            return known;
        }
        let ended = recording
            .token_ids
            .last()
            .is_some_and(|last| self.eos_ids.contains(last));
        // It goes by its own list of ends.
        if ended {
            return self.end;
        }
        if at > recording.token_ids.len() {
            recording.lost = true;
            return self.end;
        }
        if logits.iter().any(|logit| !logit.is_finite()) {
            recording.non_finite = true;
            return self.end;
        }
        let id = recording.sampler.sample(logits);
        let row = raw_top_k(logits, recording.top_k_logits, id);
        recording.token_ids.push(id);
        recording.token_logprobs.push(row.sampled_logprob);
        if recording.top_k_logits > 0 {
            row.append_to(&mut recording.top);
        }
        self.tokens_sampled.fetch_add(1, Ordering::Relaxed);
        id
    }
}

/// The one processor of a request.
struct Chooser(Arc<Recorder>);

impl CustomLogitsProcessor for Chooser {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> ::mistralrs::Result<Tensor> {
        let row = logits.to_vec1::<f32>()?;
        let id = self.0.choose(&row, context.len());
        let mut only = vec![f32::NEG_INFINITY; row.len()];
        if let Some(chosen) = only.get_mut(id as usize) {
            *chosen = 0.0;
        }
        Tensor::new(only, logits.device())
    }
}

impl Teacher for MistralRsTeacher {
    fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt> {
        EncodedPrompt::of(&self.tokenizer, messages)
    }

    fn sample(
        &self,
        requests: &mut dyn Iterator<Item = Result<SampleRequest>>,
        done: &mut dyn FnMut(SampleRequest, Outcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        type Answered = (
            SampleRequest,
            std::result::Result<(Arc<Recorder>, Answer), Failure>,
        );
        let engine = self
            .model
            .inner()
            .get_sender(None)
            .map_err(|error| Error::MistralRs {
                model: self.name.clone(),
                problem: error.to_string(),
            })?;
        drive(
            requests,
            &|| AT_A_TIME,
            &|| false,
            &mut |request, sender: std::sync::mpsc::Sender<Answered>| {
                let room = match request.room(self.n_positions, self.options.max_new_tokens) {
                    Ok(room) => room,
                    Err(failure) => {
                        let _ = sender.send((request, Err(failure)));
                        return;
                    }
                };
                let recorder = Arc::new(Recorder {
                    recording: Mutex::new(Recording {
                        sampler: Sampler::new(&self.options.params, request.seed),
                        top_k_logits: usize::from(self.options.top_k_logits),
                        n_prompt: request.prompt_token_ids.len(),
                        token_ids: Vec::new(),
                        token_logprobs: Vec::new(),
                        top: TopK::default(),
                        non_finite: false,
                        lost: false,
                        started: Instant::now(),
                    }),
                    eos_ids: self.tokenizer.eos_ids().to_vec(),
                    end: self.tokenizer.eos_ids().first().copied().unwrap_or(0),
                    tokens_sampled: self.tokens_sampled.clone(),
                });
                let engine = engine.clone();
                self.runtime.spawn(async move {
                    let answer = ask(&engine, &request.prompt_token_ids, room, &recorder).await;
                    // Nobody listens once the call has ended.
                    let _ = sender.send((request, Ok((recorder, answer))));
                });
            },
            &mut |(request, answered)| {
                let outcome = answered.and_then(|(recorder, answer)| {
                    let mut recording = recorder
                        .recording
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    self.finish(&mut recording, answer)
                });
                done(request, outcome)
            },
            stop,
        )
        .map(drop)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.tokenizer)
    }

    fn describe(&self) -> Description {
        Description {
            backend: "mistralrs".to_owned(),
            model: self.name.clone(),
            revision: Some(self.revision.clone()),
            reproducible: false,
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

async fn ask(
    engine: &mpsc::Sender<Request>,
    prompt_token_ids: &[u32],
    room: usize,
    recorder: &Arc<Recorder>,
) -> Answer {
    let (sender, mut receiver) = mpsc::channel(1);
    let params = SamplingParams {
        max_len: Some(room),
        stop_toks: Some(StopTokens::Ids(recorder.eos_ids.clone())),
        ..SamplingParams::deterministic()
    };
    let messages = RequestMessage::CompletionTokens(prompt_token_ids.to_vec());
    let mut request = NormalRequest::new_simple(messages, params, sender, 0, None, None);
    request.logits_processors = Some(vec![Arc::new(Chooser(recorder.clone()))]);
    let gone = || "mistral.rs has ended".to_owned();
    engine
        .send(Request::Normal(Box::new(request)))
        .await
        .map_err(|_| gone())?;
    match receiver.recv().await.ok_or_else(gone)? {
        Response::CompletionDone(response) => {
            let choice = response.choices.into_iter().next();
            Ok(choice
                .map(|choice| choice.finish_reason)
                .unwrap_or_default())
        }
        Response::InternalError(error) | Response::ValidationError(error) => Err(error.to_string()),
        Response::CompletionModelError(message, _) | Response::ModelError(message, _) => {
            Err(message)
        }
        _ => Err("mistral.rs answered with something that is no completion".to_owned()),
    }
}
