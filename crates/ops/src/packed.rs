//! Products over weights packed once, whose output rows do not depend on each other.
//!
//! Every output is one chain of fused multiply-adds over k in ascending order, whatever the
//! number of rows, the tile it falls into or the thread that computes it. A token's logits
//! therefore have the same bits alone and in any batch, which is what makes a sampled trace
//! independent of its company.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu;

/// Vectors of output columns in one panel. With two, the sums of six rows fit 16 registers, those of twelve 32.
const VECTORS: usize = 2;

/// Rows of one task: a multiple of every tile height, small enough to share among threads.
const TASK_ROWS: usize = 48;

/// Below this many multiply-adds starting threads costs more than it saves.
const PARALLEL_FROM: usize = 1 << 17;

/// A weight [N, K] in panels of W output columns, two vectors of this CPU, each panel k-major: [N/W, K, W].
pub struct PackedMatrix {
    n: usize,
    k: usize,
    width: usize,
    panels: Vec<f32>,
}

impl PackedMatrix {
    /// Packs a row-major weight [n, k].
    pub fn pack(weight: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(weight.len(), n * k, "weight of {n} x {k}");
        let width = Arch::new().dispatch(Width);
        let mut panels = vec![0.0; n.div_ceil(width) * k * width];
        if k > 0 {
            panels
                .par_chunks_mut(k * width)
                .enumerate()
                .for_each(|(index, panel)| {
                    let rows = weight.chunks_exact(k).skip(index * width).take(width);
                    for (lane, row) in rows.enumerate() {
                        for (slot, &value) in panel.chunks_exact_mut(width).zip(row) {
                            slot[lane] = value;
                        }
                    }
                });
        }
        Self {
            n,
            k,
            width,
            panels,
        }
    }

    /// Output columns N.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input columns K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Rows of the weight as they were packed, one for each id below N → [ids, K].
    pub fn gather(&self, ids: &[u32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(ids.len() * self.k);
        for id in ids {
            let (panel, lane) = (*id as usize / self.width, *id as usize % self.width);
            let panel = &self.panels[panel * self.k * self.width..][..self.k * self.width];
            out.extend(panel.iter().skip(lane).step_by(self.width));
        }
        out
    }

    /// x[M, K] · weightᵀ → [M, N].
    pub fn apply(&self, x: &[f32], m: usize) -> Vec<f32> {
        assert_eq!(x.len(), m * self.k, "input of {m} x {}", self.k);
        let mut out = vec![0.0; m * self.n];
        let target = Target(out.as_mut_ptr());
        let n_blocks = m.div_ceil(TASK_ROWS);
        let n_tasks = n_blocks * self.n.div_ceil(self.width);
        let task = |index: usize| {
            let (panel, block) = (index / n_blocks, index % n_blocks);
            let rows = block * TASK_ROWS..m.min((block + 1) * TASK_ROWS);
            Arch::new().dispatch(PanelTask {
                matrix: self,
                x,
                panel,
                rows,
                target: &target,
            });
        };
        if m * self.n * self.k < PARALLEL_FROM {
            (0..n_tasks).for_each(task);
        } else {
            (0..n_tasks).into_par_iter().for_each(task);
        }
        out
    }
}

/// The output, shared by tasks that each write rows and columns of their own.
struct Target(*mut f32);

// SAFETY: tasks write disjoint (row range, panel) rectangles; see `PanelTask`.
unsafe impl Sync for Target {}

struct PanelTask<'a> {
    matrix: &'a PackedMatrix,
    x: &'a [f32],
    panel: usize,
    rows: std::ops::Range<usize>,
    target: &'a Target,
}

struct Width;

impl WithSimd for Width {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        VECTORS * S::F32_LANES
    }
}

impl WithSimd for PanelTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut row = self.rows.start;
        while row < self.rows.end {
            row += match (self.rows.end - row, S::F32_LANES) {
                (12.., 16..) => self.tile::<S, 12>(simd, row),
                (6.., _) => self.tile::<S, 6>(simd, row),
                (5, _) => self.tile::<S, 5>(simd, row),
                (4, _) => self.tile::<S, 4>(simd, row),
                (3, _) => self.tile::<S, 3>(simd, row),
                (2, _) => self.tile::<S, 2>(simd, row),
                _ => self.tile::<S, 1>(simd, row),
            };
        }
    }
}

impl PanelTask<'_> {
    /// Computes `M` rows of the panel; returns `M`.
    #[inline(always)]
    fn tile<S: Simd, const M: usize>(&self, simd: S, row: usize) -> usize {
        let PackedMatrix { k, width, .. } = *self.matrix;
        let panel = &self.matrix.panels[self.panel * k * width..][..k * width];
        let (vectors, _) = S::as_simd_f32s(panel);
        let x: [&[f32]; M] = std::array::from_fn(|r| &self.x[(row + r) * k..][..k]);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; M];
        // All tiles of the task together fetch the panel that follows, so that memory works while they compute.
        let share = size_of_val(panel) * M / self.rows.len();
        let done = size_of_val(panel) * (row - self.rows.start) / self.rows.len();
        let next = panel.as_ptr_range().end.wrapping_byte_add(done);
        let per_step = share / k.max(1);
        for (step, weights) in vectors.as_chunks::<VECTORS>().0[..k].iter().enumerate() {
            cpu::fetch(next.wrapping_byte_add(step * per_step));
            for r in 0..M {
                let value = simd.splat_f32s(x[r][step]);
                for v in 0..VECTORS {
                    sums[r][v] = simd.mul_add_e_f32s(value, weights[v], sums[r][v]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            self.store(simd, row + r, sums);
        }
        M
    }

    #[inline(always)]
    fn store<S: Simd>(&self, simd: S, row: usize, sums: &[S::f32s]) {
        let column = self.panel * self.matrix.width;
        let valid = self.matrix.width.min(self.matrix.n - column);
        // SAFETY: row < m and column + valid <= n, so the range lies within the output; this
        // task alone writes these rows of this panel, and nobody reads until all are done.
        let out = unsafe {
            std::slice::from_raw_parts_mut(self.target.0.add(row * self.matrix.n + column), valid)
        };
        for (part, &value) in out.chunks_mut(S::F32_LANES).zip(sums) {
            simd.partial_store_f32s(part, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(len: usize, seed: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.71 + seed).sin()).collect()
    }

    #[test]
    fn products_equal_the_definition_at_odd_sizes() {
        for (m, n, k) in [
            (1, 1, 1),
            (13, 33, 17),
            (64, 100, 40),
            (50, 31, 5),
            (3, 384, 160),
        ] {
            let (x, w) = (fill(m * k, 0.1), fill(n * k, 0.5));
            let out = PackedMatrix::pack(&w, n, k).apply(&x, m);
            for (i, &got) in out.iter().enumerate() {
                let (r, c) = (i / n, i % n);
                let want: f64 = (0..k)
                    .map(|j| f64::from(x[r * k + j]) * f64::from(w[c * k + j]))
                    .sum();
                let error = (f64::from(got) - want).abs();
                assert!(
                    error < 2e-6 * (1.0 + want.abs()),
                    "{m} {n} {k} at {i}: {error}"
                );
            }
        }
    }

    #[test]
    fn rows_come_out_as_they_went_in() {
        let (n, k) = (77, 130);
        let weight = fill(n * k, 0.3);
        let rows = PackedMatrix::pack(&weight, n, k).gather(&[76, 0, 33]);
        let wanted = [76, 0, 33].map(|row: usize| &weight[row * k..(row + 1) * k]);
        assert_eq!(rows, wanted.concat());
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_in_any_batch() {
        let (n, k) = (77, 130);
        let packed = PackedMatrix::pack(&fill(n * k, 0.3), n, k);
        let x = fill(101 * k, 0.9);
        let all = packed.apply(&x, 101);
        for row in [0, 1, 11, 12, 47, 48, 96, 100] {
            let alone = packed.apply(&x[row * k..(row + 1) * k], 1);
            assert_eq!(alone, all[row * n..(row + 1) * n]);
        }
    }
}
