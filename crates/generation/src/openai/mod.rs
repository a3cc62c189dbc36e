//! Teachers that are servers: several endpoints, asked in the dialect of their kind.
//!
//! # Layout
//!
//! - `asked`: the two things that are asked for, samples and scores.
//! - [`dialect`]: what a kind of server is asked and how its answers are read; `vllm`, `sglang`, `llamacpp` and `chat`
//!   are one each. [`answer`]: an answer in pieces, and the completion it makes.
//! - [`probe`]: what an endpoint says of itself. [`exchange`]: one request over HTTP. [`retry`]: when it is sent again. [`pool`]: where to.
//! - [`secret`]: the key.

pub mod answer;
mod asked;
mod chat;
pub mod dialect;
pub mod exchange;
mod llamacpp;
pub mod pool;
pub mod probe;
pub mod retry;
pub mod secret;
mod sglang;
mod vllm;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::Instant;

use model::tokenizer::Tokenizer;
use records::Message;
use reqwest::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::asked::{Asked, AskedOutcome, Group, Groups};
use self::dialect::Dialect;
use self::exchange::{Exchange, Fault, FaultKind};
use self::pool::{EndpointStatus, Pool};
use self::probe::Probe;
use self::retry::Timing;
use self::secret::Secret;
use crate::candle::SampleOptions;
use crate::config::{self, Prices, TeacherConfig};
use crate::drive::{Ended, drive};
use crate::error::{Error, Result};
use crate::teacher::{
    Completion, Description, EncodedPrompt, Failure, FailureKind, Outcome, SampleRequest,
    ScoreOutcome, ScoreRequest, Teacher,
};

/// Connections to an endpoint that are kept while nothing is asked: each holds on to a buffer as large as its largest
/// answer needed.
const IDLE: usize = 32;
/// Threads that read answers, at most.
const WORKERS: usize = 4;

/// The teacher behind `[teacher] backend = "openai"`.
pub struct OpenAiTeacher {
    shared: Arc<Shared>,
    tokenizer: Option<Tokenizer>,
    config: TeacherConfig,
    /// What was spent before this start.
    spent_before: f64,
    concurrency: usize,
    /// Samples of a prompt that one request asks for, at most.
    group: usize,
}

/// What every request's task holds on to.
pub(crate) struct Shared {
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
    /// See [`Exchange::keeps`].
    keeps: AtomicBool,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
}

/// A request with what came of it, and what holds its place in memory until somebody takes it.
type Answered<A> = (A, AskedOutcome<A>, Option<OwnedSemaphorePermit>);

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
        let (options_group, top_k_logits) = (options.samples_per_request, options.top_k_logits);
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
                // The first answers must not find out one by one.
                keeps: AtomicBool::new(top_k_logits == 0),
                input_tokens: AtomicU64::new(0),
                output_tokens: AtomicU64::new(0),
            }),
            tokenizer,
            config: config.clone(),
            spent_before: 0.0,
            concurrency,
            group: options_group.clamp(1, concurrency.min(answer::CHOICES)),
        })
    }

    /// Counts what earlier starts have spent against the limit.
    #[must_use]
    pub fn with_spent(mut self, spent: f64) -> Self {
        self.spent_before = spent;
        self
    }

    /// What completions will have.
    fn gives(&self) -> String {
        let (dialect, k) = (&self.shared.dialect, self.shared.options.top_k_logits);
        match (dialect.gives_ids(), k) {
            (true, 0) => "token ids".to_owned(),
            (true, _) => format!("token ids, {} top {k}", dialect.logprob_space()),
            (false, 0) => "text".to_owned(),
            (false, _) => "text, no top-k (score-traces can add it)".to_owned(),
        }
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
        let mut groups = Groups {
            requests,
            held: None,
            most: self.group,
        };
        let mut done = |Group(requests), outcome: AskedOutcome<Group>| match outcome {
            Ok(completions) => requests
                .into_iter()
                .zip(completions)
                .enumerate()
                .try_for_each(|(number, (request, completion))| {
                    let shares_prompt = number > 0;
                    let completion = Completion {
                        shares_prompt,
                        ..completion
                    };
                    done(request, Ok(completion))
                }),
            Err(failure) => requests
                .into_iter()
                .try_for_each(|request| done(request, Err(failure.clone()))),
        };
        self.ask_all(&mut groups, &mut done, self.group, stop)
    }

    fn score(
        &self,
        requests: &mut dyn Iterator<Item = ScoreRequest>,
        done: &mut dyn FnMut(ScoreRequest, ScoreOutcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        if self.shared.dialect.scoring().is_none() {
            return Err(Error::CannotScore {
                backend: self.describe().backend,
            });
        }
        self.ask_all(requests, done, 1, stop)
    }

    fn probe(&self) -> Result<Vec<String>> {
        let shared = self.shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Client {
                problem: error.to_string(),
            })?;
        let probes = runtime.block_on(async {
            let urls = shared.pool.urls();
            let asked = urls.into_iter().map(|url| {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let dialect = shared.dialect.as_ref();
                    Probe::ask(&shared.client, &url, dialect, shared.secret.as_ref()).await
                })
            });
            let asked: Vec<_> = asked.collect();
            let mut probes = Vec::new();
            for probe in asked {
                probes.extend(probe.await.ok());
            }
            probes
        });
        for probe in &probes {
            if let Some(words) = &probe.unauthorized {
                return Err(Error::Unauthorized {
                    url: probe.url.clone(),
                    words: words.clone(),
                });
            }
            let (models, model) = (&probe.models, &shared.model);
            if shared.dialect.names_models() && !models.is_empty() && !models.contains(model) {
                return Err(Error::NotServed {
                    url: probe.url.clone(),
                    model: model.clone(),
                    served: models.join(", "),
                });
            }
        }
        let gives = self.gives();
        Ok(probes.iter().map(|probe| probe.describe(&gives)).collect())
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
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
    /// Asks for everything, each `size` samples, as many at a time as the servers take.
    fn ask_all<A: Asked>(
        &self,
        requests: &mut dyn Iterator<Item = A>,
        done: &mut dyn FnMut(A, AskedOutcome<A>) -> Result<()>,
        size: usize,
        stop: &AtomicBool,
    ) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(available_parallelism().map_or(WORKERS, |n| n.get().min(WORKERS)))
            .enable_all()
            .build()
            .map_err(|error| Error::Client {
                problem: error.to_string(),
            })?;
        let result = self.feed(&runtime, requests, done, size, stop);
        // What is under way is dropped with its connections.
        runtime.shutdown_background();
        result
    }

    fn feed<A: Asked>(
        &self,
        runtime: &tokio::runtime::Runtime,
        requests: &mut dyn Iterator<Item = A>,
        done: &mut dyn FnMut(A, AskedOutcome<A>) -> Result<()>,
        size: usize,
        stop: &AtomicBool,
    ) -> Result<()> {
        let room = || match self.limit_reached() {
            Some(_) => 0,
            None => (self.shared.pool.allowed().min(self.concurrency) / size).max(1),
        };
        let ended = drive(
            requests,
            &room,
            &mut |request, sender: Sender<Answered<A>>| {
                let shared = self.shared.clone();
                runtime.spawn(async move {
                    let (outcome, share) = shared.answer(&request).await;
                    // Nobody listens once the call has ended.
                    let _ = sender.send((request, outcome, share));
                });
            },
            &mut |(request, outcome, share)| {
                done(request, outcome)?;
                drop(share);
                Ok(())
            },
            stop,
        )?;
        match (ended, self.limit_reached()) {
            (Ended::Closed, Some((spent, limit))) => Err(Error::SpendingLimit { spent, limit }),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Asks until there is an answer, or no point in asking.
    async fn answer<A: Asked>(&self, asked: &A) -> (AskedOutcome<A>, Option<OwnedSemaphorePermit>) {
        let body = asked.body(self).to_string().into_bytes();
        let clock = Instant::now();
        let mut failed = 0;
        loop {
            let (endpoint, place) = self.pool.place();
            endpoint.ready().await;
            let fault = match self.exchange(asked, &endpoint.url, body.clone()).await {
                Ok((answered, share)) => {
                    place.answered();
                    let [input, output] = answered.tokens;
                    self.input_tokens.fetch_add(input.into(), Ordering::Relaxed);
                    self.output_tokens
                        .fetch_add(output.into(), Ordering::Relaxed);
                    endpoint.owe(input.saturating_add(output));
                    return (Ok(A::timed(answered.value, clock.elapsed())), share);
                }
                Err(fault) => fault,
            };
            let mut pause = None;
            match fault.kind {
                FaultKind::Refused => {
                    place.answered();
                    let failure = Failure {
                        kind: FailureKind::Refused,
                        message: fault.message,
                    };
                    return (Err(failure), None);
                }
                FaultKind::Busy(asked) => {
                    self.pool.slow_down();
                    pause = asked;
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
            tokio::time::sleep(self.timing.pause(failed, pause)).await;
        }
    }

    async fn exchange<A: Asked>(
        &self,
        asked: &A,
        endpoint: &str,
        body: Vec<u8>,
    ) -> Result<(asked::Answered<A::Value>, Option<OwnedSemaphorePermit>), Fault> {
        let exchange = Exchange {
            room: &self.room,
            buffers: &self.buffers,
            client: &self.client,
            timing: &self.timing,
            secret: self.secret.as_ref(),
            reading: A::reading(self),
            keeps: &self.keeps,
        };
        let read = exchange.ask(&A::url(self, endpoint), body).await?;
        let paid = [
            read.answers.n_prompt_tokens,
            read.answers.n_completion_tokens,
        ];
        let answered = asked.complete(read.answers, self).inspect_err(|_| {
            // What comes to nothing is paid for, too.
            let counters = [&self.input_tokens, &self.output_tokens];
            for (counter, tokens) in counters.into_iter().zip(paid) {
                counter.fetch_add(tokens.unwrap_or(0).into(), Ordering::Relaxed);
            }
        })?;
        Ok((answered, read.share))
    }
}
