//! Terms over hidden states.

pub mod rkd;
