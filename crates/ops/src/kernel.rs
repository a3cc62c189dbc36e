//! The innermost loops of a matrix product: a few rows of `a` against one packed panel of `b`.

use half::bf16;
use pulp::{Arch, Simd, WithSimd};

/// Columns of a packed panel.
pub const PANEL: usize = 32;

/// Most rows a kernel takes at once.
pub const MAX_ROWS: usize = 12;

/// `tile[r][c] += Σ_k a(r, k) · b(k, c)` in f32, for `rows` ≤ [`MAX_ROWS`] rows and the panel's columns.
///
/// a(r, k) stands at `a + r·row_stride + k·k_stride`, b(k, c) at `b + k·b_stride + c`, and the tile's rows are
/// [`PANEL`] apart.
///
/// # Safety
/// All of these elements can be read, and the tile written, for k below `depth` and c below [`PANEL`].
#[derive(Clone, Copy)]
pub struct F32Tile {
    pub rows: usize,
    /// Columns that are wanted; those beyond the next multiple of 16 are left out.
    pub columns: usize,
    pub depth: usize,
    pub a: *const f32,
    pub row_stride: usize,
    pub k_stride: usize,
    pub b: *const f32,
    pub b_stride: usize,
    pub tile: *mut f32,
}

impl F32Tile {
    /// # Safety
    /// See the fields.
    pub unsafe fn run(self) {
        Arch::new().dispatch(self);
    }
}

impl WithSimd for F32Tile {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut done = 0;
        while done < self.rows {
            let left = self.rows - done;
            // SAFETY: `run`'s caller vouches for the elements; `done` stays below `rows`.
            unsafe {
                done += match (left, S::F32_LANES, self.columns > 16) {
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

impl F32Tile {
    /// `M` rows from `first` on, `N` vectors of columns at a time; returns `M`.
    ///
    /// # Safety
    /// As `run`.
    #[inline(always)]
    unsafe fn block<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        first: usize,
    ) -> usize {
        let lanes = S::F32_LANES;
        let mut column = 0;
        while column < self.columns {
            // SAFETY: the elements are the ones the caller vouches for.
            unsafe {
                let rows: [*const f32; M] =
                    std::array::from_fn(|r| self.a.add((first + r) * self.row_stride));
                let load = |at: *const f32| -> S::f32s { at.cast::<S::f32s>().read_unaligned() };
                let mut sums = [[simd.splat_f32s(0.0); N]; M];
                let mut b = self.b.add(column);
                let mut at = 0;
                for _ in 0..self.depth {
                    let columns: [S::f32s; N] = std::array::from_fn(|v| load(b.add(v * lanes)));
                    for r in 0..M {
                        let a = simd.splat_f32s(*rows[r].add(at));
                        for v in 0..N {
                            sums[r][v] = simd.mul_add_e_f32s(a, columns[v], sums[r][v]);
                        }
                    }
                    b = b.add(self.b_stride);
                    at += self.k_stride;
                }
                for (r, sums) in sums.iter().enumerate() {
                    let out = self.tile.add((first + r) * PANEL + column);
                    for (v, &sum) in sums.iter().enumerate() {
                        let out = out.add(v * lanes);
                        let value = simd.add_f32s(load(out), sum);
                        out.cast::<S::f32s>().write_unaligned(value);
                    }
                }
            }
            column += N * lanes;
        }
        M
    }
}

/// The same with bf16 operands, whose k runs in pairs: a's rows hold `2·pairs` values in a row, b is
/// [pairs, [`PANEL`], 2].
#[derive(Clone, Copy)]
pub struct Bf16Tile {
    pub rows: usize,
    pub columns: usize,
    pub pairs: usize,
    pub a: *const bf16,
    pub row_stride: usize,
    pub b: *const bf16,
    pub tile: *mut f32,
}

/// Whether this CPU multiplies bf16 pairs.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[cfg(target_arch = "x86_64")]
impl Bf16Tile {
    /// # Safety
    /// [`has_bf16`], and the fields' elements can be read and the tile written.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn run(self) {
        let mut done = 0;
        while done < self.rows {
            // SAFETY: as the caller's; `done` stays below `rows`.
            unsafe {
                done += match (self.rows - done, self.columns > 16) {
                    (12.., true) => self.block::<12, 2>(done),
                    (12.., false) => self.block::<12, 1>(done),
                    (4.., true) => self.block::<4, 2>(done),
                    (4.., false) => self.block::<4, 1>(done),
                    (_, true) => self.block::<1, 2>(done),
                    (_, false) => self.block::<1, 1>(done),
                };
            }
        }
    }

    /// # Safety
    /// As `run`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn block<const M: usize, const N: usize>(&self, first: usize) -> usize {
        use std::arch::x86_64::{
            __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
            _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
        };
        // SAFETY: the elements are the ones the caller vouches for.
        unsafe {
            let rows: [*const i32; M] =
                std::array::from_fn(|r| self.a.add((first + r) * self.row_stride).cast());
            let load = |at: *const bf16| -> __m512bh {
                std::mem::transmute(_mm512_loadu_si512(at.cast()))
            };
            let mut sums = [[_mm512_setzero_ps(); N]; M];
            let mut b = self.b;
            for pair in 0..self.pairs {
                let columns: [__m512bh; N] = std::array::from_fn(|v| load(b.add(v * PANEL)));
                for r in 0..M {
                    let a: __m512bh =
                        std::mem::transmute(_mm512_set1_epi32(rows[r].add(pair).read_unaligned()));
                    for v in 0..N {
                        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], a, columns[v]);
                    }
                }
                b = b.add(2 * PANEL);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let out = self.tile.add((first + r) * PANEL + v * 16);
                    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), sum));
                }
            }
        }
        M
    }
}

/// Writes the transpose of 16 rows of 16 32-bit units: `out[c * out_stride + r] = rows[r][c]`.
///
/// # Safety
/// The CPU has AVX-512F; 16 units can be read from each row and written to each of the 16 output rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub unsafe fn transpose_16(rows: [*const u32; 16], out: *mut u32, out_stride: usize) {
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

pub fn has_avx512() -> bool {
    vectors() == Vectors::Avx512
}

/// The vector instructions that `vectorized!` chooses among.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vectors {
    Avx512,
    Avx2,
    Plain,
}

/// What this CPU has; the standard library remembers it.
pub fn vectors() -> Vectors {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return Vectors::Avx512;
        }
        if avx2 {
            return Vectors::Avx2;
        }
    }
    Vectors::Plain
}
