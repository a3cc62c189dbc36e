//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of
//! the Hugging Face checkpoints: component i turns together with component i + C/2.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use std::sync::OnceLock;

use cpu::turn;

/// Cosines and sines for the tokens of one forward pass, made where they are first used.
#[derive(Debug)]
pub struct RopeTable {
    frequencies: Vec<f32>,
    scaling: f32,
    positions: Vec<usize>,
    tables: OnceLock<Tables>,
    #[cfg(feature = "cuda")]
    on_gpu: OnceLock<cuda::Tables>,
}

/// [N, C/2] each.
#[derive(Debug)]
struct Tables {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTable {
    /// Angles position · inv_freq, in f32 as transformers computes them.
    ///
    /// # Shapes
    /// `inverse_frequencies` [C/2], `positions` [N]; `scaling` multiplies both tables (YaRN's
    /// attention factor, 1 elsewhere).
    pub fn new(inverse_frequencies: &[f32], scaling: f32, positions: &[usize]) -> Self {
        Self {
            frequencies: inverse_frequencies.to_vec(),
            scaling,
            positions: positions.to_vec(),
            tables: OnceLock::new(),
            #[cfg(feature = "cuda")]
            on_gpu: OnceLock::new(),
        }
    }

    /// Tokens in the table.
    pub fn n_tokens(&self) -> usize {
        self.positions.len()
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(&self, gpu: &crate::cuda::Gpu) -> candle_core::Result<&cuda::Tables> {
        if let Some(tables) = self.on_gpu.get() {
            return Ok(tables);
        }
        let (frequencies, positions) = (&self.frequencies, &self.positions);
        let tables = cuda::Tables::new(gpu, frequencies, self.scaling, positions)?;
        Ok(self.on_gpu.get_or_init(|| tables))
    }

    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| {
            let frequencies = &self.frequencies;
            let angles = self
                .positions
                .iter()
                .flat_map(|&position| frequencies.iter().map(move |f| position as f32 * f));
            let (sines, cosines) = angles
                .map(|angle| angle.sin_cos())
                .map(|(sin, cos)| (sin * self.scaling, cos * self.scaling))
                .unzip();
            Tables { cosines, sines }
        })
    }

    /// Turns the heads of one token in place. `row` is [heads · C].
    pub fn rotate(&self, token: usize, row: &mut [f32]) {
        self.turn(token, row, 1.0);
    }

    /// The transpose of [`Self::rotate`]: what a gradient goes through.
    pub fn rotate_back(&self, token: usize, row: &mut [f32]) {
        self.turn(token, row, -1.0);
    }

    fn turn(&self, token: usize, row: &mut [f32], direction: f32) {
        let (half, tables) = (self.frequencies.len(), self.tables());
        let cos = &tables.cosines[token * half..][..half];
        let sin = &tables.sines[token * half..][..half];
        turn(row, cos, sin, direction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_back_undoes_a_turn() {
        let table = RopeTable::new(&[1.0, 0.1], 1.0, &[0, 5]);
        let row = [1.0f32, 2.0, 3.0, 4.0, -1.0, 0.5, 0.25, 2.0];
        let mut turned = row;
        table.rotate(0, &mut turned);
        assert_eq!(turned, row);
        table.rotate(1, &mut turned);
        assert!((turned[0] - (5f32.cos() - 3.0 * 5f32.sin())).abs() < 1e-6);
        table.rotate_back(1, &mut turned);
        assert!(turned.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
