//! Divergences of a student's row of logits from a teacher's, over the whole vocabulary, with their gradient.
//!
//! With p = softmax(teacher / T), q = softmax(student / T), and a loss of T² · D(p, q):
//! - forward KL: Σ p (log p − log q). Gradient of the student's logits: T (q − p).
//! - reverse KL: Σ q (log q − log p). Gradient: T q (r − Σ q r), r = log q − log p.
//! - generalised Jensen–Shannon, m = β p + (1 − β) q: β KL(p‖m) + (1 − β) KL(q‖m) (Agarwal et al. 2024,
//!   arXiv:2306.13649, in TRL's convention; β = 0 is forward, β = 1 reverse KL). r = (1 − β)(log q − log m).
//! - total variation: ½ Σ |p − q|. r = ½ sign(q − p), 0 at equality.
//!
//! A student equal to its teacher has a loss and a gradient of exactly 0. A KL is summed as p (e^−d − 1 + d), d = log p
//! − log q: the terms e^−d − 1 sum to 0, and no term is negative, so that small divergences keep their digits.
//! A teacher's log-probability below [`LOG_FLOOR`] counts as that, and a student's of minus infinity, so that nothing
//! is infinite.

mod cpu;

pub use cpu::row;

/// exp(-100) is 4e-44, nothing in a sum, but finite in a product.
pub const LOG_FLOOR: f64 = -100.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    ForwardKl,
    ReverseKl,
    /// β of the teacher, above 0 and below 1.
    Jsd {
        beta: f32,
    },
    TotalVariation,
}

/// A loss over the student's and the teacher's logits of one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FullLoss {
    pub divergence: Divergence,
    /// T, above 0.
    pub temperature: f32,
    /// Of the divergence.
    pub soft_weight: f32,
    /// Of the cross-entropy with the target, at T = 1.
    pub hard_weight: f32,
}

/// What a row measures, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FullRow {
    /// Cross-entropy with the target.
    pub hard: f64,
    /// T² · D.
    pub soft: f64,
    /// Of the teacher at T = 1.
    pub teacher_entropy: f64,
    /// Whether both find the same token most likely; of equals the lower id.
    pub agrees: bool,
}
