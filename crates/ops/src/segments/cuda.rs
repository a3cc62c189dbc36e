//! The documents' borders on the GPU.

use candle_core::Result;

use crate::cuda::Gpu;
use crate::cuda::kernel::{Array, word};

/// Where every token's document begins and ends, [N] each.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub starts: Array<u32>,
    pub ends: Array<u32>,
}

impl Bounds {
    pub fn new(gpu: &Gpu, spans: impl Iterator<Item = (usize, usize)>) -> Result<Self> {
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for (start, length) in spans {
            starts.resize(start + length, word(start)?);
            ends.resize(start + length, word(start + length)?);
        }
        Ok(Self {
            starts: Array::upload(gpu, &starts)?,
            ends: Array::upload(gpu, &ends)?,
        })
    }
}
