//! What the operations share on NVIDIA GPUs; each has its launchers (`cuda.rs`) and its kernels (`.cu`) in its own folder.
//!
//! Every kernel stands in a `.cu` file with the formula it computes; a launcher makes the outputs and launches. All work
//! of a device is in one stream, so an operation may use what the one before it writes and memory is free for the next
//! as soon as a tensor is dropped. Nothing waits for the GPU but the loss of the head, which needs the losses' rows, and
//! the norms of gradients.
//!
//! Of products, f32 operands beside bf16 ones, or on the way to a bf16 result, are rounded to bf16 first, as autocast
//! does in PyTorch; sums are f32.

pub mod gpu;
pub mod kernel;
pub mod staging;

pub use gpu::{Gpu, device_count, forget_peak, open, peak_memory};

/// Threads of a block where nothing asks for another number.
pub const THREADS: u32 = 256;
