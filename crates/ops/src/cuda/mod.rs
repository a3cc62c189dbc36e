//! The operations on NVIDIA GPUs.
//!
//! Every kernel stands in a `.cu` file with the formula it computes; the functions here check nothing that their
//! callers have checked, make the outputs and launch. All work of a device is in one stream, so an operation may use
//! what the one before it writes and memory is free for the next as soon as a tensor is dropped. Nothing here waits
//! for the GPU but [`head_loss`], which needs the losses' rows, and [`optimizer::sums_of_squares`].
//!
//! Of products, f32 operands beside bf16 ones, or on the way to a bf16 result, are rounded to bf16 first, as autocast
//! does in PyTorch; sums are f32.

pub mod gpu;
pub mod staging;

pub(crate) use gpu::{Gpu, Module};
pub use gpu::{device_count, forget_peak, open, peak_memory};

/// Threads of a block where nothing asks for another number.
pub const THREADS: u32 = 256;
