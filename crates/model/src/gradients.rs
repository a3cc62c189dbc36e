//! Gradients of what is trained, summed over the passes of an optimizer step.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

/// f32 tensors by parameter name.
#[derive(Default)]
pub struct Gradients {
    sums: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// Adds `gradient`, of the parameter's shape, to what is there.
    pub fn add(&mut self, name: &str, gradient: Tensor) -> Result<()> {
        let sum = match self.sums.remove(name) {
            Some(sum) => ops::rows::add(sum, &gradient)?,
            None => gradient,
        };
        self.sums.insert(name.to_owned(), sum);
        Ok(())
    }

    pub fn into_map(self) -> BTreeMap<String, Tensor> {
        self.sums
    }
}
