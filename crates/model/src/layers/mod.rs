//! The parts a decoder is made of.
//!
//! # Layout
//!
//! - [`linear`]: a projection, frozen, packed for decoding, adapted or trained.
//! - [`block`]: one decoder layer. `builder`: tensors on their way from a checkpoint into layers.

pub mod block;
pub(crate) mod builder;
pub mod linear;
pub mod mlp;
pub(crate) mod norm;
