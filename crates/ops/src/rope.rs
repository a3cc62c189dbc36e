//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of
//! the Hugging Face checkpoints: component i turns together with component i + C/2.

use crate::math::vectorized;

/// Cosines and sines for the tokens of one forward pass.
#[derive(Debug, Clone)]
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Angles position · inv_freq, in f32 as transformers computes them.
    ///
    /// # Shapes
    /// `inverse_frequencies` [C/2], `positions` [N]; `scaling` multiplies both tables (YaRN's
    /// attention factor, 1 elsewhere).
    pub fn new(inverse_frequencies: &[f32], scaling: f32, positions: &[usize]) -> Self {
        let half = inverse_frequencies.len();
        let angles = positions
            .iter()
            .flat_map(|&position| inverse_frequencies.iter().map(move |f| position as f32 * f));
        let (sin, cos) = angles
            .map(|angle| angle.sin_cos())
            .map(|(sin, cos)| (sin * scaling, cos * scaling))
            .unzip();
        Self { half, cos, sin }
    }

    /// Tokens in the table.
    pub fn n_tokens(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
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
        let half = self.half;
        let cos = &self.cos[token * half..][..half];
        let sin = &self.sin[token * half..][..half];
        turn(row, cos, sin, direction);
    }
}

vectorized! {
    fn turn(row: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
        let half = cos.len();
        for head in row.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            let angles = cos.iter().zip(sin);
            for ((low, high), (cos, sin)) in low.iter_mut().zip(high).zip(angles) {
                let (x, y) = (*low, *high);
                let sin = sin * direction;
                *low = x * cos - y * sin;
                *high = y * cos + x * sin;
            }
        }
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
