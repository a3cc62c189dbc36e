//! The documents' borders on the GPU.

use candle_core::{Result, Tensor};

use crate::cuda::Gpu;

/// Where every token's document begins and ends, u32 [N] each.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub starts: Tensor,
    pub ends: Tensor,
}

impl Bounds {
    pub fn new(gpu: &Gpu, spans: impl Iterator<Item = (usize, usize)>) -> Result<Self> {
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for (start, length) in spans {
            starts.resize(start + length, start as u32);
            ends.resize(start + length, (start + length) as u32);
        }
        Ok(Self {
            starts: gpu.upload(&starts)?,
            ends: gpu.upload(&ends)?,
        })
    }
}
