//! Teachers that are servers: several endpoints, asked in the dialect of their kind.
//!
//! # Layout
//!
//! - [`dialect`]: what a kind of server is asked and how its answers are read; `vllm`, `sglang`, `llamacpp` and `chat`
//!   are one each. [`answer`]: an answer in pieces, and the completion it makes.
//! - [`exchange`]: one request over HTTP. [`retry`]: when it is sent again. [`pool`]: where to.
//! - [`secret`]: the key.

pub mod answer;
mod chat;
pub mod dialect;
pub mod exchange;
mod llamacpp;
pub mod pool;
pub mod retry;
pub mod secret;
mod sglang;
mod vllm;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::tokenizer::Tokenizer;
use records::Message;
use reqwest::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::answer::Expected;
use self::dialect::{Ask, Dialect};
use self::exchange::{Exchange, Fault, FaultKind};
use self::pool::{EndpointStatus, Pool};
use self::retry::Timing;
use self::secret::Secret;
use crate::candle::SampleOptions;
use crate::config::{self, Prices, TeacherConfig};
use crate::error::{Error, Result};
use crate::teacher::{
    Completion, Description, EncodedPrompt, Failure, FailureKind, Outcome, SampleRequest, Teacher,
};

/// How often `stop` is looked at while answers are waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Connections to an endpoint that are kept while nothing is asked: each holds on to a buffer as large as its largest
/// answer needed.
const IDLE: usize = 32;
/// Threads that read answers.
const WORKERS: usize = 4;

/// The teacher behind `[teacher] backend = "openai"`.
pub struct OpenAiTeacher {
    shared: Arc<Shared>,
    tokenizer: Option<Tokenizer>,
    config: TeacherConfig,
    /// What was spent before this start.
    spent_before: f64,
    concurrency: usize,
}

/// What every request's task holds on to.
struct Shared {
    model: String,
    options: SampleOptions,
    dialect: Box<dyn Dialect>,
    eos_ids: Vec<u32>,
    client: Client,
    pool: Arc<Pool>,
    secret: Option<Secret>,
    timing: Timing,
    /// See [`exchange::BODY_BYTES`].
    room: Arc<Semaphore>,
    buffers: Mutex<Vec<Vec<u8>>>,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
}

/// A request with its outcome, and what holds its place in memory until somebody takes it.
type Answered = (SampleRequest, Outcome, Option<OwnedSemaphorePermit>);

impl OpenAiTeacher {
    /// # Errors
    /// A tokenizer that cannot be read or has no chat template; no TLS.
    pub fn new(
        config: &TeacherConfig,
        options: SampleOptions,
        secret: Option<Secret>,
    ) -> Result<Self> {
        let timing = Timing::from(config.retry.unwrap_or_default());
        let tokenizer = match &config.tokenizer {
            Some(folder) => {
                let tokenizer = Tokenizer::from_dir(Path::new(folder))?;
                tokenizer.require_chat_template()?;
                Some(tokenizer)
            }
            None => None,
        };
        // Another part of the process may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(timing.connect)
            .pool_max_idle_per_host(IDLE)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Client {
                problem: error.to_string(),
            })?;
        let concurrency = options.concurrency.max(1);
        let pool = Pool::new(
            &config.endpoints,
            concurrency,
            config.requests_per_minute,
            config.tokens_per_minute,
        );
        let eos_ids = tokenizer.as_ref().map_or_else(Vec::new, |tokenizer| {
            // The token that ends a turn first: it is what a stop stands for.
            let mut ids = tokenizer.eos_ids().to_vec();
            if let Some(end) = tokenizer.end_of_turn_id() {
                ids.sort_by_key(|&id| id != end);
            }
            ids
        });
        Ok(Self {
            shared: Arc::new(Shared {
                model: config.model.clone(),
                options,
                dialect: dialect_of(config.dialect()),
                eos_ids,
                client,
                pool,
                secret,
                timing,
                room: Arc::new(Semaphore::new(exchange::BODY_BYTES >> 10)),
                buffers: Mutex::default(),
                input_tokens: AtomicU64::new(0),
                output_tokens: AtomicU64::new(0),
            }),
            tokenizer,
            config: config.clone(),
            spent_before: 0.0,
            concurrency,
        })
    }

    /// Counts what earlier starts have spent against the limit.
    #[must_use]
    pub fn with_spent(mut self, spent: f64) -> Self {
        self.spent_before = spent;
        self
    }

    fn spent(&self, prices: &Prices) -> f64 {
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        self.spent_before
            + prices.of(
                counted(&shared.input_tokens),
                counted(&shared.output_tokens),
            )
    }

    /// The limit, once it is reached.
    fn limit_reached(&self) -> Option<(f64, f64)> {
        let (limit, prices) = (self.config.spending_limit?, self.config.price_per_million?);
        let spent = self.spent(&prices);
        (spent >= limit).then_some((spent, limit))
    }
}

pub fn dialect_of(kind: config::Dialect) -> Box<dyn Dialect> {
    match kind {
        config::Dialect::Vllm => Box::new(vllm::Vllm),
        config::Dialect::Sglang => Box::new(sglang::Sglang),
        config::Dialect::Llamacpp => Box::new(llamacpp::LlamaCpp),
        config::Dialect::Deepseek => Box::new(chat::Chat { logprobs: false }),
        config::Dialect::Openai => Box::new(chat::Chat { logprobs: true }),
    }
}

/// What the sampling log-probabilities of a dialect are.
pub fn logprob_space(dialect: config::Dialect) -> &'static str {
    dialect_of(dialect).logprob_space()
}

impl Teacher for OpenAiTeacher {
    fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt> {
        match &self.tokenizer {
            Some(tokenizer) if self.config.dialect().takes_token_ids() => {
                EncodedPrompt::of(tokenizer, messages)
            }
            _ => Ok(EncodedPrompt {
                token_ids: Vec::new(),
                opens_think: false,
            }),
        }
    }

    fn sample(
        &self,
        requests: &mut dyn Iterator<Item = SampleRequest>,
        done: &mut dyn FnMut(SampleRequest, Outcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .map_err(|error| Error::Client {
                problem: error.to_string(),
            })?;
        let (sender, receiver) = channel();
        let result = self.feed(&runtime, requests, done, stop, &sender, &receiver);
        // What is under way is dropped with its connections.
        runtime.shutdown_background();
        result
    }

    fn describe(&self) -> Description {
        Description {
            backend: "openai".to_owned(),
            model: self.shared.model.clone(),
            revision: None,
            reproducible: false,
            logprob_space: self.shared.dialect.logprob_space().to_owned(),
        }
    }

    fn tokenizer_fingerprint(&self) -> Option<String> {
        let gives_ids = self.shared.dialect.gives_ids();
        self.tokenizer
            .as_ref()
            .filter(|_| gives_ids)
            .map(Tokenizer::fingerprint)
    }

    fn tokens_sampled(&self) -> u64 {
        self.shared.output_tokens.load(Ordering::Relaxed)
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        self.shared.pool.status()
    }
}

impl OpenAiTeacher {
    fn feed(
        &self,
        runtime: &tokio::runtime::Runtime,
        requests: &mut dyn Iterator<Item = SampleRequest>,
        done: &mut dyn FnMut(SampleRequest, Outcome) -> Result<()>,
        stop: &AtomicBool,
        sender: &Sender<Answered>,
        receiver: &Receiver<Answered>,
    ) -> Result<()> {
        let (mut under_way, mut exhausted) = (0usize, false);
        while !stop.load(Ordering::Relaxed) {
            let allowed = self.shared.pool.allowed().min(self.concurrency);
            while under_way < allowed && !exhausted && self.limit_reached().is_none() {
                match requests.next() {
                    Some(request) => {
                        let (shared, sender) = (self.shared.clone(), sender.clone());
                        runtime.spawn(async move {
                            let (outcome, share) = shared.answer(&request).await;
                            // Nobody listens once the call has ended.
                            let _ = sender.send((request, outcome, share));
                        });
                        under_way += 1;
                    }
                    None => exhausted = true,
                }
            }
            if under_way == 0 {
                return match self.limit_reached().filter(|_| !exhausted) {
                    Some((spent, limit)) => Err(Error::SpendingLimit { spent, limit }),
                    None => Ok(()),
                };
            }
            match receiver.recv_timeout(LOOK) {
                Ok((request, outcome, share)) => {
                    under_way -= 1;
                    done(request, outcome)?;
                    drop(share);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::WriterGone),
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Asks until there is an answer, or no point in asking.
    async fn answer(&self, request: &SampleRequest) -> (Outcome, Option<OwnedSemaphorePermit>) {
        let ask = Ask {
            model: &self.model,
            request,
            options: &self.options,
        };
        let body = self.dialect.body(&ask).to_string().into_bytes();
        let clock = Instant::now();
        let mut failed = 0;
        loop {
            let (endpoint, place) = self.pool.place();
            endpoint.ready().await;
            let fault = match self.exchange(&endpoint.url, body.clone()).await {
                Ok((completion, share)) => {
                    place.answered();
                    let n_prompt = completion
                        .n_prompt_tokens
                        .unwrap_or(request.prompt_token_ids.len() as u32);
                    let n_completion = completion.n_completion_tokens.unwrap_or(0);
                    self.input_tokens
                        .fetch_add(n_prompt.into(), Ordering::Relaxed);
                    self.output_tokens
                        .fetch_add(n_completion.into(), Ordering::Relaxed);
                    endpoint.owe(n_prompt.saturating_add(n_completion));
                    let latency = clock.elapsed();
                    return (
                        Ok(Completion {
                            latency,
                            ..completion
                        }),
                        share,
                    );
                }
                Err(fault) => fault,
            };
            let mut asked = None;
            match fault.kind {
                FaultKind::Refused => {
                    place.answered();
                    let failure = Failure {
                        kind: FailureKind::Refused,
                        message: fault.message,
                    };
                    return (Err(failure), None);
                }
                FaultKind::Busy(pause) => {
                    self.pool.slow_down();
                    asked = pause;
                }
                FaultKind::Endpoint => place.fault(),
                FaultKind::Malformed => {}
            }
            // Another endpoint may be asked meanwhile.
            drop(place);
            failed += 1;
            if failed >= self.timing.attempts {
                let failure = Failure {
                    kind: FailureKind::Exhausted,
                    message: format!("{failed} attempts, the last: {}", fault.message),
                };
                return (Err(failure), None);
            }
            tokio::time::sleep(self.timing.pause(failed, asked)).await;
        }
    }

    async fn exchange(
        &self,
        endpoint: &str,
        body: Vec<u8>,
    ) -> Result<(Completion, Option<OwnedSemaphorePermit>), Fault> {
        let exchange = Exchange {
            room: &self.room,
            buffers: &self.buffers,
            client: &self.client,
            timing: &self.timing,
            secret: self.secret.as_ref(),
            dialect: self.dialect.as_ref(),
        };
        let read = exchange.ask(&self.dialect.url(endpoint), body).await?;
        let expected = Expected {
            top_k: self.options.top_k_logits,
            logprob_space: self.dialect.logprob_space(),
            ids: self.dialect.gives_ids(),
            eos_ids: &self.eos_ids,
            gaps: self.dialect.leaves_gaps(),
        };
        let completion = read.answer.complete(&expected).map_err(|message| Fault {
            kind: FaultKind::Malformed,
            message,
        })?;
        Ok((completion, read.share))
    }
}
