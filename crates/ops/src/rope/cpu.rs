//! Heads turned on the CPU.

use crate::math::vectorized;

vectorized! {
    pub fn turn(row: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
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
