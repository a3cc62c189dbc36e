//! The innermost loops of a matrix product: a few rows against one panel of columns.

use half::bf16;
use pulp::{Arch, Simd, WithSimd};

use crate::cpu;

/// Columns of a panel.
pub const PANEL: usize = 32;

/// Most rows a kernel takes at once.
pub const MAX_ROWS: usize = 12;

/// `out[r][c] (+)= Σ a(r, k) · b(k, c)` in f32.
///
/// k runs in steps: single f32 numbers, or pairs of bf16 that are multiplied at once. a(r, step) stands at
/// `a + r·row_stride + step·step_stride`.
#[derive(Clone, Copy)]
pub struct Tile<T> {
    pub rows: usize,
    pub a: *const T,
    pub row_stride: usize,
    pub step_stride: usize,
    pub block: Block,
}

/// What rows are multiplied with, and where that goes: words of 32 bits (one f32, or a column's pair) at
/// `b + step·b_stride + c`, the output at `out + r·out_stride + c`.
#[derive(Clone, Copy)]
pub struct Block {
    /// At most [`PANEL`].
    pub columns: usize,
    pub steps: usize,
    pub b: *const u32,
    pub b_stride: usize,
    pub out: *mut f32,
    pub out_stride: usize,
    /// Whether the sums are added to what the output holds.
    pub accumulate: bool,
}

/// A number type of left operands.
pub trait Operand: Sized {
    /// # Safety
    /// a and b can be read, and the output written, for all rows, all steps and `columns` rounded up to a multiple
    /// of 16. bf16 also asks for [`cpu::has_bf16`].
    unsafe fn multiply(tile: Tile<Self>);
}

impl Operand for f32 {
    unsafe fn multiply(tile: Tile<f32>) {
        Arch::new().dispatch(tile);
    }
}

impl WithSimd for Tile<f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut done = 0;
        while done < self.rows {
            let left = self.rows - done;
            // SAFETY: `multiply`'s caller vouches for the elements; `done` stays below `rows`.
            unsafe {
                done += match (left, S::F32_LANES, self.block.columns > 16) {
                    (12.., 16.., true) => self.block::<S, 12, 2>(simd, done),
                    (12.., 16.., false) => self.block::<S, 12, 1>(simd, done),
                    (6.., 8, _) => self.block::<S, 6, 2>(simd, done),
                    (4.., 16.., false) => self.block::<S, 4, 1>(simd, done),
                    (4.., _, _) => self.block::<S, 4, 2>(simd, done),
                    (1.., 16.., false) => self.block::<S, 1, 1>(simd, done),
                    _ => self.block::<S, 1, 2>(simd, done),
                };
            }
        }
    }
}

impl Tile<f32> {
    /// `M` rows from `first` on, `N` vectors of columns at a time; returns `M`.
    ///
    /// # Safety
    /// As [`Operand::multiply`].
    #[inline(always)]
    unsafe fn block<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        first: usize,
    ) -> usize {
        let lanes = S::F32_LANES;
        let mut column = 0;
        while column < self.block.columns {
            // SAFETY: the elements are the ones the caller vouches for.
            unsafe {
                let rows: [*const f32; M] =
                    std::array::from_fn(|r| self.a.add((first + r) * self.row_stride));
                let load = |at: *const f32| -> S::f32s { at.cast::<S::f32s>().read_unaligned() };
                let mut sums = [[simd.splat_f32s(0.0); N]; M];
                let mut b = self.block.b.cast::<f32>().add(column);
                let mut at = 0;
                for _ in 0..self.block.steps {
                    let columns: [S::f32s; N] = std::array::from_fn(|v| load(b.add(v * lanes)));
                    for r in 0..M {
                        let a = simd.splat_f32s(*rows[r].add(at));
                        for v in 0..N {
                            sums[r][v] = simd.mul_add_e_f32s(a, columns[v], sums[r][v]);
                        }
                    }
                    b = b.add(self.block.b_stride);
                    at += self.step_stride;
                }
                for (r, sums) in sums.iter().enumerate() {
                    let out = self
                        .block
                        .out
                        .add((first + r) * self.block.out_stride + column);
                    for (v, &sum) in sums.iter().enumerate() {
                        let out = out.add(v * lanes);
                        let value = if self.block.accumulate {
                            simd.add_f32s(load(out), sum)
                        } else {
                            sum
                        };
                        out.cast::<S::f32s>().write_unaligned(value);
                    }
                }
            }
            column += N * lanes;
        }
        M
    }
}

impl Operand for bf16 {
    #[cfg(target_arch = "x86_64")]
    unsafe fn multiply(tile: Tile<bf16>) {
        // SAFETY: the caller's.
        unsafe { tile.run() }
    }

    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn multiply(_: Tile<bf16>) {
        debug_assert!(cpu::has_bf16());
    }
}

#[cfg(target_arch = "x86_64")]
impl Tile<bf16> {
    /// # Safety
    /// As [`Operand::multiply`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn run(self) {
        let mut done = 0;
        while done < self.rows {
            // SAFETY: as the caller's; `done` stays below `rows`.
            unsafe {
                done += match (self.rows - done, self.block.columns > 16) {
                    (12.., true) => self.pairs::<12, 2>(done),
                    (12.., false) => self.pairs::<12, 1>(done),
                    (4.., true) => self.pairs::<4, 2>(done),
                    (4.., false) => self.pairs::<4, 1>(done),
                    (_, true) => self.pairs::<1, 2>(done),
                    (_, false) => self.pairs::<1, 1>(done),
                };
            }
        }
    }

    /// # Safety
    /// As `run`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pairs<const M: usize, const N: usize>(&self, first: usize) -> usize {
        use std::arch::x86_64::{
            __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
            _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
        };
        // SAFETY: the elements are the ones the caller vouches for.
        unsafe {
            let rows: [*const bf16; M] =
                std::array::from_fn(|r| self.a.add((first + r) * self.row_stride));
            let load =
                |at: *const u32| -> __m512bh { std::mem::transmute(_mm512_loadu_si512(at.cast())) };
            let mut sums = [[_mm512_setzero_ps(); N]; M];
            let mut b = self.block.b;
            let mut at = 0;
            for _ in 0..self.block.steps {
                let columns: [__m512bh; N] = std::array::from_fn(|v| load(b.add(v * 16)));
                for r in 0..M {
                    let pair = rows[r].add(at).cast::<i32>().read_unaligned();
                    let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair));
                    for v in 0..N {
                        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], a, columns[v]);
                    }
                }
                b = b.add(self.block.b_stride);
                at += self.step_stride;
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let out = self
                        .block
                        .out
                        .add((first + r) * self.block.out_stride + v * 16);
                    let value = if self.block.accumulate {
                        _mm512_add_ps(_mm512_loadu_ps(out), sum)
                    } else {
                        sum
                    };
                    _mm512_storeu_ps(out, value);
                }
            }
        }
        M
    }
}

/// Writes the transpose of 16 rows of 16 32-bit words: `out[c * out_stride + r] = rows[r][c]`.
///
/// # Safety
/// 16 words can be read from each row and written to each of the 16 output rows.
pub unsafe fn transpose_16(rows: [*const u32; 16], out: *mut u32, out_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if cpu::has_avx512() {
        // SAFETY: the instructions are there; the words are the caller's.
        return unsafe { transpose_avx512(rows, out, out_stride) };
    }
    for (r, row) in rows.into_iter().enumerate() {
        for c in 0..16 {
            // SAFETY: the caller's.
            unsafe { *out.add(c * out_stride + r) = row.add(c).read_unaligned() };
        }
    }
}

/// # Safety
/// As [`transpose_16`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(rows: [*const u32; 16], out: *mut u32, out_stride: usize) {
    use std::arch::x86_64::{
        __m512i, _mm512_loadu_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512,
        _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };
    // SAFETY: the caller vouches for all 256 units on both sides.
    unsafe {
        let r: [__m512i; 16] = std::array::from_fn(|i| _mm512_loadu_si512(rows[i].cast()));
        // 4x4 transposes within each 128-bit lane, for four rows at a time ...
        let mut q = [r[0]; 16];
        for g in 0..4 {
            let [a, b, c, d] = [r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]];
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            q[4 * g] = _mm512_unpacklo_epi64(ab_low, cd_low);
            q[4 * g + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
            q[4 * g + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
            q[4 * g + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
        }
        // ... then the lanes themselves: lane l of q[4g + j] holds column 4l + j of rows 4g..4g+4.
        for j in 0..4 {
            let [a, b, c, d] = [q[j], q[4 + j], q[8 + j], q[12 + j]];
            let (ab_02, ab_13) = (
                _mm512_shuffle_i32x4::<0x88>(a, b),
                _mm512_shuffle_i32x4::<0xdd>(a, b),
            );
            let (cd_02, cd_13) = (
                _mm512_shuffle_i32x4::<0x88>(c, d),
                _mm512_shuffle_i32x4::<0xdd>(c, d),
            );
            let columns = [
                _mm512_shuffle_i32x4::<0x88>(ab_02, cd_02),
                _mm512_shuffle_i32x4::<0x88>(ab_13, cd_13),
                _mm512_shuffle_i32x4::<0xdd>(ab_02, cd_02),
                _mm512_shuffle_i32x4::<0xdd>(ab_13, cd_13),
            ];
            for (l, column) in columns.into_iter().enumerate() {
                _mm512_storeu_si512(out.add((4 * l + j) * out_stride).cast(), column);
            }
        }
    }
}
