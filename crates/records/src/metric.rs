//! One line of `metrics.jsonl`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
}

/// What one optimizer step (or one validation pass) measured. Losses are means over the
/// supervised tokens, in nats; a term that is not in use is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    pub split: Split,
    /// Optimizer steps done, from 1.
    pub step: u64,
    /// Epochs done, fractional.
    pub epoch: f64,
    pub loss: f64,
    pub loss_hard: Option<f64>,
    pub loss_soft: Option<f64>,
    pub loss_features: Option<f64>,
    pub loss_relations: Option<f64>,
    /// Mean entropy of the teacher's stored distribution, in nats.
    pub teacher_entropy: Option<f64>,
    /// Mean probability mass inside the stored entries.
    pub top_k_mass: Option<f64>,
    /// Share of tokens where student and teacher agree on the most likely token.
    pub agreement: Option<f64>,
    /// Global norm before clipping; null for validation.
    pub grad_norm: Option<f64>,
    pub learning_rate: Option<f64>,
    pub n_supervised_tokens: u64,
    pub n_tokens: u64,
    /// Wall time since the step before.
    pub seconds: f64,
    /// `n_tokens / seconds`.
    pub tokens_per_second: f64,
    pub peak_memory_bytes: u64,
}
