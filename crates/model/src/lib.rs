//! Checkpoints and what they compute: Qwen2/2.5, Qwen3 and Llama decoders with their tokenizers.
//!
//! # Layout
//!
//! - [`config`]: `config.json`, normalised; [`rope`]: rotary frequencies; [`parameters`]: the tensors' names.
//! - [`checkpoint`]: the files of a checkpoint folder; [`weights`]: reading safetensors; [`init`]: fresh random weights; [`export`]: writing checkpoints.
//! - [`training_text`]: what a conversation teaches, as prompt and completion ids.
//! - [`tokenizer`]: text to ids and back, [`added_tokens`] included; [`chat_template`]: messages to text, with [`jinja`].
//! - [`decoder`]: the forward and the backward pass, of [`layers`]; [`gradients`]: what the latter adds to;
//!   [`kv_cache`]: what decoding remembers; [`engine`]: many completions sampled together.
//! - [`sampling`]: one token from its logits; [`lora`]: which modules are adapted and how; [`adapter`]: PEFT's files;
//!   [`merge`]: an adapter folded into its base. [`taps`]: activations that a loss looks at beside the logits.
//!
//! Letters in shapes: N tokens of a pass (documents end to end, no padding), V vocabulary rows,
//! D hidden size, H heads, r LoRA rank.

pub mod adapter;
mod added_tokens;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod engine;
mod error;
pub mod export;
pub mod gradients;
pub mod init;
mod jinja;
mod json_keys;
pub mod kv_cache;
pub mod layers;
pub mod lora;
pub mod merge;
mod named_rng;
pub mod parameters;
pub mod rope;
mod safetensors_file;
pub mod sampling;
pub mod taps;
mod token_bytes;
pub mod tokenizer;
pub mod training_text;
pub mod weights;

pub use error::{Error, Result};
