//! Differentiable fused tensor operations on candle, forward and backward.
//!
//! # Layout
//!
//! - [`linear`], [`lora`]: matrix products over frozen and trainable weights. What is frozen
//!   gets no gradient computed: candle's own matmul would compute both sides.
//! - [`norm`]: RMSNorm. [`activation`]: SwiGLU.
//! - [`rope`]: rotation tables. [`attention`]: rotary embedding with causal, block-diagonal
//!   attention over packed documents. [`segments`]: where the documents begin.
//! - [`cached_attention`]: the same attention for decoding, against a key-value cache.
//! - [`head_loss`]: LM head and loss in chunks; the loss is a value, see [`head_loss::RowLoss`].
//! - [`gemm`]: strided products for training. [`packed`]: products over packed weights whose
//!   rows do not depend on each other, for decoding.
//! - [`row`]: passes over one row of logits, for the losses.
//! - `math`: what the kernels share.
//!
//! Throughout: N tokens of a micro-batch (documents laid end to end, no padding), D hidden
//! size, H attention heads, G key-value heads, C head dimension, V vocabulary.
//! Tensors are f32, contiguous, row-major; anything else is an error.
//!
//! Each operation is a candle custom op over plain slice kernels. The CPU forms are here;
//! on another device an operation answers with candle's own "no implementation" error.

pub mod activation;
pub mod attention;
pub mod cached_attention;
pub mod gemm;
pub mod head_loss;
pub mod linear;
pub mod lora;
mod math;
pub mod norm;
pub mod packed;
pub mod rope;
pub mod row;
pub mod segments;
mod slices;

pub use math::{exp, log_sum_exp};
