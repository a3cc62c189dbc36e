//! Teachers that are servers: several endpoints, asked in the dialect of their kind.
//!
//! # Layout
//!
//! - `asked`: the two things that are asked for, samples and scores. `sending`: one of them, from its first attempt to
//!   what comes of it.
//! - [`dialect`]: what a kind of server is asked and how its answers are read; `vllm`, `sglang`, `llamacpp` and `chat`
//!   are one each. `body`: what the recipe adds. [`answer`]: an answer in pieces, and the completion it makes; `thought`:
//!   the thought that comes apart from it.
//! - [`ending`]: what an end means, and an error: the one place that decides. `logprobs`: whether they are such. `tokens`: what an answer costs where the
//!   server does not count.
//! - [`probe`]: what an endpoint says of itself. [`exchange`]: one request over HTTP; `events`, `json`: its body.
//!   [`retry`]: when it is sent again. [`pool`]: where to; [`health`]: how an endpoint fares.
//! - `access`, [`secret`]: the key, and the recipe's headers.

mod access;
pub mod answer;
mod asked;
mod body;
mod chat;
pub mod dialect;
pub mod ending;
mod events;
pub mod exchange;
pub mod health;
mod json;
mod llamacpp;
mod logprobs;
pub mod pool;
pub mod probe;
pub mod retry;
pub mod secret;
mod sending;
mod sglang;
mod shared;
mod thought;
mod tokens;
mod vllm;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use model::tokenizer::Tokenizer;
use records::{LogprobSpace, Message};
use reqwest::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::access::Access;
use self::asked::{Asked, AskedOutcome, Group, Groups};
use self::dialect::Dialect;
use self::health::Verdict;
use self::pool::Pool;
use self::retry::Timing;
use self::secret::Secret;
use self::shared::Shared;
use crate::config::{self, Prices, TeacherConfig};
use crate::drive::{Ended, drive};
use crate::error::{Error, Result};
use crate::notes::{Note, Notes};
use crate::teacher::{
    CHOICES, Completion, Description, EncodedPrompt, EndpointStatus, Outcome, SampleRequest,
    SamplingConfig, ScoreOutcome, ScoreRequest, Teacher,
};

/// Connections to an endpoint that are kept while nothing is asked: each holds on to a buffer as large as its largest
/// answer needed.
const IDLE: usize = 32;
/// Threads that read answers, at most.
const WORKERS: usize = 4;

/// The teacher behind `[teacher] backend = "openai"`.
pub struct OpenAiTeacher {
    shared: Arc<Shared>,
    config: TeacherConfig,
    /// What was spent before this start.
    spent_before: f64,
    concurrency: usize,
    /// Samples of a prompt that one request asks for, at most.
    group: usize,
}

/// A request with what came of it, and what holds its place in memory until somebody takes it. Nothing came of it where
/// nobody is asked any more: it waits for the next start.
type Answered<A> = (A, Option<AskedOutcome<A>>, Option<OwnedSemaphorePermit>);

impl OpenAiTeacher {
    /// # Errors
    /// A tokenizer that cannot be read or has no chat template; no TLS.
    pub fn new(
        config: &TeacherConfig,
        options: SamplingConfig,
        secret: Option<Secret>,
    ) -> Result<Self> {
        let timing = Timing::from(config.retry.unwrap_or_default());
        let tokenizer = match &config.tokenizer {
            Some(folder) => {
                let kwargs = config.chat_template_kwargs.clone().unwrap_or_default();
                let tokenizer = Tokenizer::from_dir(folder.path())?;
                let tokenizer = tokenizer.with_chat_template_kwargs(kwargs)?;
                tokenizer.require_chat_template()?;
                Some(tokenizer)
            }
            None => None,
        };
        // Another part of the process may have chosen one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(timing.connect)
            .pool_max_idle_per_host(IDLE)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Client {
                problem: error.to_string(),
            })?;
        let access = Access::new(config.request.as_ref(), secret.as_ref())?;
        let dialect = dialect_of(config.dialect());
        let concurrency = options.concurrency.max(1);
        let (options_group, top_k_logits) = (options.samples_per_request, options.top_k_logits);
        let pool = Pool::new(
            &config.endpoints,
            concurrency,
            config.requests_per_minute,
            config.tokens_per_minute,
            dialect.streams(),
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
                model: config.model.to_string(),
                options,
                template_kwargs: config
                    .chat_template_kwargs
                    .clone()
                    .filter(|_| dialect.renders()),
                request: config.request.clone(),
                dialect,
                eos_ids,
                client,
                pool,
                access,
                tokenizer,
                notes: Notes::default(),
                timing,
                room: Arc::new(Semaphore::new(exchange::BODY_BYTES >> 10)),
                buffers: Mutex::default(),
                // The first answers must not find out one by one.
                keeps: AtomicBool::new(top_k_logits == 0),
                tokens: Default::default(),
                lost: Default::default(),
            }),
            config: config.clone(),
            spent_before: 0.0,
            concurrency,
            group: options_group.clamp(1, concurrency.min(CHOICES)),
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
        let [input, output] = loaded(&self.shared.tokens);
        self.spent_before + prices.of(input, output)
    }

    /// The limit, once it is reached.
    fn limit_reached(&self) -> Option<(f64, f64)> {
        let (limit, prices) = (self.config.spending_limit?, self.config.price_per_million?);
        let spent = self.spent(&prices);
        (spent >= limit).then_some((spent, limit))
    }
}

fn loaded(counters: &[AtomicU64; 2]) -> [u64; 2] {
    counters
        .each_ref()
        .map(|counter| counter.load(Ordering::Relaxed))
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
pub fn logprob_space(dialect: config::Dialect) -> LogprobSpace {
    dialect_of(dialect).logprob_space()
}

impl Teacher for OpenAiTeacher {
    fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt> {
        match &self.shared.tokenizer {
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
        requests: &mut dyn Iterator<Item = Result<SampleRequest>>,
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
        requests: &mut dyn Iterator<Item = Result<ScoreRequest>>,
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
        probe::all(&self.shared, &self.gives())
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.shared.tokenizer.as_ref()
    }

    fn describe(&self) -> Description {
        Description {
            backend: "openai".to_owned(),
            model: self.shared.model.clone(),
            revision: None,
            reproducible: false,
            logprob_space: self.shared.dialect.logprob_space(),
        }
    }

    fn tokenizer_fingerprint(&self) -> Option<String> {
        let gives_ids = self.shared.dialect.gives_ids();
        self.tokenizer()
            .filter(|_| gives_ids)
            .map(Tokenizer::fingerprint)
    }

    fn tokens_sampled(&self) -> u64 {
        loaded(&self.shared.tokens)[1]
    }

    fn tokens_lost(&self) -> [u64; 2] {
        loaded(&self.shared.lost)
    }

    fn notes(&self) -> Vec<Note> {
        self.shared.notes.all()
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        self.shared.pool.status()
    }
}

impl OpenAiTeacher {
    /// Asks for everything, each `size` samples, as many at a time as the servers take.
    fn ask_all<A: Asked>(
        &self,
        requests: &mut dyn Iterator<Item = Result<A>>,
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
        requests: &mut dyn Iterator<Item = Result<A>>,
        done: &mut dyn FnMut(A, AskedOutcome<A>) -> Result<()>,
        size: usize,
        stop: &AtomicBool,
    ) -> Result<()> {
        let ended = || self.shared.pool.ended();
        let room = || match self.limit_reached() {
            Some(_) => 0,
            None => (self.shared.pool.allowed().min(self.concurrency) / size).max(1),
        };
        let driven = drive(
            requests,
            &room,
            &|| ended().is_some(),
            &mut |request, sender: Sender<Answered<A>>| {
                let shared = self.shared.clone();
                runtime.spawn(async move {
                    let (outcome, share) = shared.answer(&request).await;
                    // Nobody listens once the call has ended.
                    let _ = sender.send((request, outcome, share));
                });
            },
            &mut |(request, outcome, share)| {
                if let Some(outcome) = outcome {
                    done(request, outcome)?;
                }
                drop(share);
                Ok(())
            },
            stop,
        )?;
        match (driven, self.limit_reached(), ended()) {
            (Ended::Halted, _, Some(endpoints)) => Err(given_up(endpoints)),
            (Ended::Closed, Some((spent, limit)), _) => Err(Error::SpendingLimit { spent, limit }),
            _ => Ok(()),
        }
    }
}

/// Why sampling has ended before its time, in the words of each endpoint.
fn given_up(endpoints: Vec<(String, Verdict, String)>) -> Error {
    let account = |(_, verdict, _): &&(String, Verdict, String)| *verdict == Verdict::Account;
    if let Some((url, _, words)) = endpoints.iter().find(account) {
        return Error::Account {
            url: url.clone(),
            words: words.clone(),
        };
    }
    let words = endpoints.into_iter().map(|(url, verdict, words)| {
        let why = match verdict {
            Verdict::Closed => "answers nobody",
            Verdict::Useless | Verdict::Account => "gives no answer that can be used",
        };
        format!("{url} {why}: {words}")
    });
    Error::NoEndpoint {
        words: words.collect::<Vec<_>>().join("; "),
    }
}
