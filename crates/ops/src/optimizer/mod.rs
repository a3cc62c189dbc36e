//! AdamW and norms of gradients on a GPU; on the CPU the trainer has its own.

mod cuda;

pub use cuda::{Coefficients, Update, adamw, sums_of_squares};
