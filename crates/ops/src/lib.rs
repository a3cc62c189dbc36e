//! Differentiable fused tensor operations on candle, forward and backward.
//!
//! # Layout
//!
//! - [`linear`]: sums of matrix products: a layer with its adapter, its bias and its residual in one pass.
//! - [`norm`]: RMSNorm. [`activation`]: SwiGLU. [`dropout`]: masks that follow from keys.
//! - [`rope`]: rotation tables. [`attention`]: rotary embedding with causal, block-diagonal
//!   attention over packed documents. [`segments`]: where the documents begin.
//! - [`cached_attention`]: the same attention for decoding, against a key-value cache.
//! - [`head_loss`]: LM head and loss in chunks; the loss is a value, see [`head_loss::RowLoss`].
//! - [`divergence`]: a row of a student's logits against a teacher's, over the whole vocabulary.
//! - [`gemm`]: f32 and bf16 products for training. [`packed`]: products over packed weights whose rows do not depend
//!   on each other, for decoding.
//! - [`row`]: passes over one row of logits, for the losses. [`rows`]: rows of a matrix by their ids.
//! - `optimizer`: AdamW and norms of gradients on a GPU, with the `cuda` feature.
//! - [`element`]: the number types. `math`: what the CPU's loops share. `shared`: buffers that tasks fill together.
//!   `cpu`: which instructions there are. `cuda`: what the kernels' launchers share. [`device`] opens a GPU.
//!
//! Throughout: N tokens of a micro-batch (documents laid end to end, no padding), D hidden
//! size, H attention heads, G key-value heads, C head dimension, V vocabulary.
//! Tensors are f32 or bf16, contiguous, row-major; anything else is an error.
//!
//! Each operation is a pair of functions on candle tensors, forward and backward; `model::layers` composes them. With
//! the `cuda` feature tensors may lie on an NVIDIA GPU; another device is answered with an error.
//!
//! An operation has a folder: `mod.rs` with its types, its documentation and the choice of a device, `cpu.rs` with
//! loops over plain slices, `cuda.rs` with `kernels!`, which declares what the kernels take, and their launchers, and
//! the kernels in a `.cu` file of the folder's name. A new one is such a folder and a line below; build.rs finds the
//! kernels.

pub mod activation;
pub mod attention;
pub mod cached_attention;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
pub mod divergence;
pub mod dropout;
pub mod element;
pub mod features;
pub mod gemm;
pub mod head_loss;
pub mod linear;
mod math;
pub mod norm;
#[cfg(feature = "cuda")]
pub mod optimizer;
pub mod packed;
pub mod relations;
pub mod rope;
pub mod row;
pub mod rows;
pub mod segments;
mod shared;

pub use math::{exp, log_sum_exp};
