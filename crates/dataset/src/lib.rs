//! Traces in, training examples out: annotate, filter, choose, write Parquet.
//!
//! # Layout
//!
//! - [`config`]: the recipe's `[dataset]` section.

pub mod config;
mod error;

pub use error::{Error, Result};
