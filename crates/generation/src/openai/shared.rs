//! What all requests of a teacher share.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use model::tokenizer::Tokenizer;
use reqwest::Client;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::access::Access;
use super::dialect::Dialect;
use super::pool::Pool;
use super::retry::Timing;
use crate::config::RequestConfig;
use crate::notes::Notes;
use crate::teacher::SamplingConfig;

/// What every request's task holds on to.
pub(crate) struct Shared {
    pub(super) model: String,
    pub(super) options: SamplingConfig,
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) eos_ids: Vec<u32>,
    pub(super) client: Client,
    pub(super) pool: Arc<Pool>,
    pub(super) access: Access,
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) request: Option<RequestConfig>,
    /// For servers that render the messages.
    pub(super) template_kwargs: Option<Map<String, Value>>,
    pub(super) notes: Notes,
    pub(super) timing: Timing,
    /// See [`BODY_BYTES`](super::exchange::BODY_BYTES).
    pub(super) room: Arc<Semaphore>,
    pub(super) buffers: Mutex<Vec<Vec<u8>>>,
    /// See [`Exchange::keeps`](super::exchange::Exchange::keeps).
    pub(super) keeps: AtomicBool,
    /// Of the prompt and of completions, since the start.
    pub(super) tokens: [AtomicU64; 2],
    /// Those of them that came to nothing.
    pub(super) lost: [AtomicU64; 2],
}
