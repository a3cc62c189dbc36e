//! Matrix products for training: f32 and bf16 operands, sums in f32.
//!
//! The right operand is packed into panels as it is needed, shared by all threads; the left one is read where it
//! lies. Threads share output tiles, never a sum, so a product has the same bits whatever their number.

use half::bf16;
use rayon::prelude::*;

use crate::element::{Element, Values};
use crate::kernel::{self, Bf16Tile, F32Tile, MAX_ROWS, PANEL};
use crate::math::vectorized;

/// A view in which element (r, c) stands at `r · row_stride + c · column_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: Values<'a>,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn rows(values: Values<'a>, stride: usize) -> Self {
        Self {
            values,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self {
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// How the numbers of one term are multiplied; sums are f32 in both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arithmetic {
    F32,
    /// bf16 operands where the CPU multiplies them, else f32.
    Bf16,
}

/// a [m, depth] · b [depth, n].
#[derive(Clone, Copy)]
pub struct Term<'a> {
    pub a: Matrix<'a>,
    pub b: Matrix<'a>,
    pub depth: usize,
    pub arithmetic: Arithmetic,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    All,
    One,
}

pub enum Out<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl<'a> From<&'a mut [f32]> for Out<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Out::F32(values)
    }
}

impl<'a> From<&'a mut [bf16]> for Out<'a> {
    fn from(values: &'a mut [bf16]) -> Self {
        Out::Bf16(values)
    }
}

/// What becomes of a sum of terms: `scale · column_scale[c] · sum + bias[c] + add(r, c)`.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    pub scale: f32,
    /// [n]
    pub column_scale: Option<&'a [f32]>,
    /// [n]
    pub bias: Option<&'a [f32]>,
    /// Another matrix of the output's shape.
    pub add: Option<Matrix<'a>>,
    /// Adds to what the output holds.
    pub accumulate: bool,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Self {
            scale: 1.0,
            column_scale: None,
            bias: None,
            add: None,
            accumulate: false,
        }
    }
}

/// Rows of one task.
const TASK_ROWS: usize = 4 * MAX_ROWS;
/// k that a kernel runs over before it moves to other rows: a panel of it stays in the second-level cache.
const DEPTH: usize = 512;
/// Bytes of packed panels at a time.
const PACKED_BYTES: usize = 2 << 20;
/// Below this many multiply-adds starting threads costs more than it saves.
const PARALLEL_FROM: usize = 1 << 18;

/// Elements of scratch: f32, or bf16 pairs in the same bytes.
enum Packed {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

/// The output, shared by tasks.
#[derive(Clone, Copy)]
struct Target {
    data: *mut u8,
    is_bf16: bool,
    stride: usize,
}
// SAFETY: tasks write disjoint rectangles of rows and panels, and nobody reads before all are done.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// out [m, n] = the epilogue of Σ over `terms` of a · b, rows `out_stride` apart.
///
/// # Panics
/// When an operand or the output does not hold what the sizes and strides reach.
pub fn product(
    threads: Threads,
    [m, n]: [usize; 2],
    out: Out<'_>,
    out_stride: usize,
    terms: &[Term<'_>],
    epilogue: Epilogue<'_>,
) {
    if m == 0 || n == 0 {
        return;
    }
    let (len, target) = match out {
        Out::F32(out) => (
            out.len(),
            Target {
                data: out.as_mut_ptr().cast(),
                is_bf16: false,
                stride: out_stride,
            },
        ),
        Out::Bf16(out) => (
            out.len(),
            Target {
                data: out.as_mut_ptr().cast(),
                is_bf16: true,
                stride: out_stride,
            },
        ),
    };
    assert!((m - 1) * out_stride + n <= len);
    for term in terms {
        assert!(term.a.holds(m, term.depth) && term.b.holds(term.depth, n));
    }
    let depth: usize = terms.iter().map(|term| term.depth).sum();
    let parallel = threads == Threads::All && m * n * depth.max(1) >= PARALLEL_FROM;
    let arithmetic: Vec<Arithmetic> = terms
        .iter()
        .map(|term| {
            if kernel::has_bf16() {
                term.arithmetic
            } else {
                Arithmetic::F32
            }
        })
        .collect();
    let n_panels = n.div_ceil(PANEL);
    let panel_bytes: usize = terms
        .iter()
        .zip(&arithmetic)
        .map(|(term, arithmetic)| {
            panel_len(term.depth, *arithmetic) * if *arithmetic == Arithmetic::F32 { 4 } else { 2 }
        })
        .sum();
    let group = (PACKED_BYTES / panel_bytes.max(1)).clamp(1, n_panels);
    let row_blocks = m.div_ceil(TASK_ROWS);
    // Few rows leave threads without work unless the columns are shared out too.
    let workers = if parallel {
        rayon::current_num_threads()
    } else {
        1
    };
    let column_tasks = |panels: usize| {
        if row_blocks >= 4 * workers {
            1
        } else {
            (4 * workers).div_ceil(row_blocks).min(panels)
        }
    };
    let mut packed: Vec<Packed> = terms
        .iter()
        .zip(&arithmetic)
        .map(|(term, arithmetic)| match arithmetic {
            Arithmetic::F32 => Packed::F32(vec![0.0; group * panel_len(term.depth, *arithmetic)]),
            Arithmetic::Bf16 => {
                Packed::Bf16(vec![bf16::ZERO; group * panel_len(term.depth, *arithmetic)])
            }
        })
        .collect();
    for first in (0..n_panels).step_by(group) {
        let panels = group.min(n_panels - first);
        for (term, packed) in terms.iter().zip(&mut packed) {
            match packed {
                Packed::F32(packed) => {
                    let len = panel_len(term.depth, Arithmetic::F32);
                    each_panel(&mut packed[..panels * len], len, parallel, |p, panel| {
                        pack_f32(panel, term, (first + p) * PANEL, n);
                    });
                }
                Packed::Bf16(packed) => {
                    let len = panel_len(term.depth, Arithmetic::Bf16);
                    each_panel(&mut packed[..panels * len], len, parallel, |p, panel| {
                        pack_bf16(panel, term, (first + p) * PANEL, n);
                    });
                }
            }
        }
        let splits = column_tasks(panels);
        let per_split = panels.div_ceil(splits);
        let task = |index: usize| {
            let (block, split) = (index / splits, index % splits);
            let rows = block * TASK_ROWS..m.min((block + 1) * TASK_ROWS);
            let range = split * per_split..panels.min((split + 1) * per_split);
            compute(rows, range, first, n, terms, &packed, &epilogue, target);
        };
        if parallel {
            (0..row_blocks * splits).into_par_iter().for_each(task);
        } else {
            (0..row_blocks * splits).for_each(task);
        }
    }
}

/// Fills panels of `len` elements, each with its number.
fn each_panel<T: Send>(
    panels: &mut [T],
    len: usize,
    parallel: bool,
    fill: impl Fn(usize, &mut [T]) + Sync,
) {
    // A term without depth has panels without elements.
    let len = len.max(1);
    if parallel {
        let panels = panels.par_chunks_exact_mut(len).enumerate();
        panels.for_each(|(p, panel)| fill(p, panel));
    } else {
        let panels = panels.chunks_exact_mut(len).enumerate();
        panels.for_each(|(p, panel)| fill(p, panel));
    }
}

fn panel_len(depth: usize, arithmetic: Arithmetic) -> usize {
    match arithmetic {
        Arithmetic::F32 => depth * PANEL,
        Arithmetic::Bf16 => depth.div_ceil(2) * 2 * PANEL,
    }
}

/// Where the kernels read a term's rows.
enum Left {
    F32 {
        data: *const f32,
        row_stride: usize,
        k_stride: usize,
        _copy: Vec<f32>,
    },
    Bf16 {
        data: *const bf16,
        row_stride: usize,
        _copy: Vec<bf16>,
    },
}

fn left(term: &Term<'_>, packed: &Packed, rows: &std::ops::Range<usize>) -> Left {
    let a = term.a;
    let start = rows.start * a.row_stride;
    match (packed, a.values) {
        (Packed::F32(_), Values::F32(values)) => Left::F32 {
            data: values[start..].as_ptr(),
            row_stride: a.row_stride,
            k_stride: a.column_stride,
            _copy: Vec::new(),
        },
        (Packed::Bf16(_), Values::Bf16(values))
            if a.column_stride == 1 && term.depth.is_multiple_of(2) =>
        {
            Left::Bf16 {
                data: values[start..].as_ptr(),
                row_stride: a.row_stride,
                _copy: Vec::new(),
            }
        }
        (Packed::F32(_), Values::Bf16(values)) => {
            let mut copy = vec![0f32; rows.len() * term.depth];
            copy_rows(&values[start..], a, &mut copy, term.depth, term.depth);
            Left::F32 {
                data: copy.as_ptr(),
                row_stride: term.depth,
                k_stride: 1,
                _copy: copy,
            }
        }
        (Packed::Bf16(_), values) => {
            let stride = term.depth.div_ceil(2) * 2;
            let mut copy = vec![bf16::ZERO; rows.len() * stride];
            match values {
                Values::F32(values) => {
                    copy_rows(&values[start..], a, &mut copy, term.depth, stride)
                }
                Values::Bf16(values) => {
                    copy_rows(&values[start..], a, &mut copy, term.depth, stride)
                }
            }
            Left::Bf16 {
                data: copy.as_ptr(),
                row_stride: stride,
                _copy: copy,
            }
        }
    }
}

vectorized! {
    fn convert<S: Element, D: Element>(out: &mut [D], source: &[S]) {
        out.iter_mut().zip(source).for_each(|(out, x)| *out = D::narrow(x.widen()));
    }
}

vectorized! {
    /// `width` values of each of the source's rows, `stride` apart, and zeros beyond them.
    fn panel_rows<S: Element>(panel: &mut [f32], source: &[S], stride: usize, width: usize) {
        for (k, row) in panel.chunks_exact_mut(PANEL).enumerate() {
            let source = &source[k * stride..][..width];
            row.iter_mut().zip(source).for_each(|(out, x)| *out = x.widen());
            row[width..].fill(0.0);
        }
    }
}

vectorized! {
    /// [`panel_rows`] with two rows side by side; a last row without another has zeros there.
    fn panel_pairs<S: Element>(panel: &mut [bf16], source: &[S], stride: usize, width: usize, depth: usize) {
        for (pair, out) in panel.chunks_exact_mut(2 * PANEL).enumerate() {
            let low = &source[2 * pair * stride..][..width];
            let (out, _) = out.as_chunks_mut::<2>();
            if 2 * pair + 1 < depth {
                let high = &source[(2 * pair + 1) * stride..][..width];
                for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                    *out = [bf16::narrow(low.widen()), bf16::narrow(high.widen())];
                }
            } else {
                for (out, low) in out.iter_mut().zip(low) {
                    *out = [bf16::narrow(low.widen()), bf16::ZERO];
                }
            }
            out[width..].fill([bf16::ZERO; 2]);
        }
    }
}

/// Rows from the source's first on, element for element.
fn copy_rows<S: Element, D: Element>(
    source: &[S],
    a: Matrix<'_>,
    out: &mut [D],
    depth: usize,
    stride: usize,
) {
    for (r, row) in out.chunks_exact_mut(stride).enumerate() {
        let source = &source[r * a.row_stride..];
        if a.column_stride == 1 {
            convert(&mut row[..depth], &source[..depth]);
        } else {
            row[..depth]
                .iter_mut()
                .enumerate()
                .for_each(|(k, out)| *out = D::narrow(source[k * a.column_stride].widen()));
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn compute(
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    first_panel: usize,
    n: usize,
    terms: &[Term<'_>],
    packed: &[Packed],
    epilogue: &Epilogue<'_>,
    target: Target,
) {
    let lefts: Vec<Left> = terms
        .iter()
        .zip(packed)
        .map(|(term, packed)| left(term, packed, &rows))
        .collect();
    let mut tile = [0f32; TASK_ROWS * PANEL];
    let height = rows.len();
    for panel in panels {
        tile[..height * PANEL].fill(0.0);
        let column = (first_panel + panel) * PANEL;
        let width = PANEL.min(n - column);
        for ((term, left), packed) in terms.iter().zip(&lefts).zip(packed) {
            for k in (0..term.depth).step_by(DEPTH) {
                let depth = DEPTH.min(term.depth - k);
                for r in (0..height).step_by(MAX_ROWS) {
                    let n_rows = MAX_ROWS.min(height - r);
                    let tile = tile[r * PANEL..].as_mut_ptr();
                    // SAFETY: `product` checked the operands' extents, the panel holds `panel_len` elements, and
                    // the tile has room for `height` rows.
                    unsafe {
                        match (left, packed) {
                            (
                                Left::F32 {
                                    data,
                                    row_stride,
                                    k_stride,
                                    ..
                                },
                                Packed::F32(packed),
                            ) => {
                                let b = &packed[panel * term.depth * PANEL + k * PANEL..];
                                F32Tile {
                                    rows: n_rows,
                                    columns: width,
                                    depth,
                                    a: data.add(r * row_stride + k * k_stride),
                                    row_stride: *row_stride,
                                    k_stride: *k_stride,
                                    b: b.as_ptr(),
                                    b_stride: PANEL,
                                    tile,
                                }
                                .run();
                            }
                            #[cfg(target_arch = "x86_64")]
                            (
                                Left::Bf16 {
                                    data, row_stride, ..
                                },
                                Packed::Bf16(packed),
                            ) => {
                                let len = panel_len(term.depth, Arithmetic::Bf16);
                                let b = &packed[panel * len + k * PANEL..];
                                Bf16Tile {
                                    rows: n_rows,
                                    columns: width,
                                    pairs: depth.div_ceil(2),
                                    a: data.add(r * row_stride + k),
                                    row_stride: *row_stride,
                                    b: b.as_ptr(),
                                    tile,
                                }
                                .run();
                            }
                            _ => unreachable!(),
                        }
                    }
                }
            }
        }
        for (r, tile) in tile[..height * PANEL].chunks_exact(PANEL).enumerate() {
            let row = rows.start + r;
            let at = row * target.stride + column;
            // SAFETY: rows and columns lie within the output; no other task has them.
            unsafe {
                if target.is_bf16 {
                    let out =
                        std::slice::from_raw_parts_mut(target.data.cast::<bf16>().add(at), width);
                    finish(out, tile, row, column, epilogue);
                } else {
                    let out =
                        std::slice::from_raw_parts_mut(target.data.cast::<f32>().add(at), width);
                    finish(out, tile, row, column, epilogue);
                }
            }
        }
    }
}

vectorized! {
fn finish<E: Element>(
    out: &mut [E],
    tile: &[f32],
    row: usize,
    column: usize,
    epilogue: &Epilogue<'_>,
) {
    let mut values = [0f32; PANEL];
    let values = &mut values[..out.len()];
    values
        .iter_mut()
        .zip(tile)
        .for_each(|(v, t)| *v = t * epilogue.scale);
    if let Some(scales) = epilogue.column_scale {
        values
            .iter_mut()
            .zip(&scales[column..])
            .for_each(|(v, s)| *v *= s);
    }
    if let Some(bias) = epilogue.bias {
        values
            .iter_mut()
            .zip(&bias[column..])
            .for_each(|(v, b)| *v += b);
    }
    if let Some(add) = epilogue.add {
        let at = row * add.row_stride + column;
        match add.values {
            Values::F32(x) => values.iter_mut().zip(&x[at..]).for_each(|(v, x)| *v += x),
            Values::Bf16(x) => values
                .iter_mut()
                .zip(&x[at..])
                .for_each(|(v, &x)| *v += x.widen()),
        }
    }
    if epilogue.accumulate {
        values
            .iter_mut()
            .zip(out.iter())
            .for_each(|(v, &x)| *v += x.widen());
    }
    out.iter_mut()
        .zip(values.iter())
        .for_each(|(out, &v)| *out = E::narrow(v));
}
}

fn pack_f32(panel: &mut [f32], term: &Term<'_>, column: usize, n: usize) {
    let width = PANEL.min(n - column);
    match term.b.values {
        Values::F32(values) => pack_f32_from(panel, values, term, column, width),
        Values::Bf16(values) => pack_f32_from(panel, values, term, column, width),
    }
}

fn pack_f32_from<S: Element>(
    panel: &mut [f32],
    source: &[S],
    term: &Term<'_>,
    column: usize,
    width: usize,
) {
    let b = term.b;
    if b.column_stride == 1 {
        return panel_rows(panel, &source[column..], b.row_stride, width);
    }
    // Columns lie in memory: blocks of 16 steps keep both sides within a few lines.
    for (block, rows) in panel.chunks_mut(16 * PANEL).enumerate() {
        let depth = rows.len() / PANEL;
        let mut lanes = 0..width;
        #[cfg(target_arch = "x86_64")]
        if depth == 16 && size_of::<S>() == 4 && b.row_stride == 1 && kernel::has_avx512() {
            while lanes.len() >= 16 {
                let at: [*const u32; 16] = std::array::from_fn(|lane| {
                    source[(column + lanes.start + lane) * b.column_stride + block * 16..][..16]
                        .as_ptr()
                        .cast()
                });
                // SAFETY: AVX-512F is there; the slices have 16 units each, `rows` 16 rows of a panel.
                unsafe { kernel::transpose_16(at, rows[lanes.start..].as_mut_ptr().cast(), PANEL) };
                lanes.start += 16;
            }
        }
        for lane in lanes {
            let at = (column + lane) * b.column_stride + block * 16 * b.row_stride;
            for k in 0..depth {
                rows[k * PANEL + lane] = source[at + k * b.row_stride].widen();
            }
        }
        if width < PANEL {
            rows.chunks_exact_mut(PANEL)
                .for_each(|row| row[width..].fill(0.0));
        }
    }
}

fn pack_bf16(panel: &mut [bf16], term: &Term<'_>, column: usize, n: usize) {
    let width = PANEL.min(n - column);
    match term.b.values {
        Values::F32(values) => pack_bf16_from(panel, values, term, column, width),
        Values::Bf16(values) => pack_bf16_from(panel, values, term, column, width),
    }
}

fn pack_bf16_from<S: Element>(
    panel: &mut [bf16],
    source: &[S],
    term: &Term<'_>,
    column: usize,
    width: usize,
) {
    let (b, depth) = (term.b, term.depth);
    if b.column_stride == 1 {
        return panel_pairs(panel, &source[column..], b.row_stride, width, depth);
    }
    for (block, rows) in panel.chunks_mut(32 * PANEL).enumerate() {
        let pairs = rows.len() / (2 * PANEL);
        let mut lanes = 0..width;
        #[cfg(target_arch = "x86_64")]
        if pairs == 16
            && 32 * block + 32 <= depth
            && size_of::<S>() == 2
            && b.row_stride == 1
            && kernel::has_avx512()
        {
            while lanes.len() >= 16 {
                let at: [*const u32; 16] = std::array::from_fn(|lane| {
                    source[(column + lanes.start + lane) * b.column_stride + block * 32..][..32]
                        .as_ptr()
                        .cast()
                });
                // SAFETY: AVX-512F is there; the slices have 16 pairs each, `rows` 16 rows of a panel.
                unsafe {
                    kernel::transpose_16(at, rows[2 * lanes.start..].as_mut_ptr().cast(), PANEL)
                };
                lanes.start += 16;
            }
        }
        for lane in lanes {
            let at = (column + lane) * b.column_stride;
            for pair in 0..pairs {
                let k = 32 * block + 2 * pair;
                let out = &mut rows[(pair * PANEL + lane) * 2..][..2];
                out[0] = bf16::narrow(source[at + k * b.row_stride].widen());
                out[1] = if k + 1 < depth {
                    bf16::narrow(source[at + (k + 1) * b.row_stride].widen())
                } else {
                    bf16::ZERO
                };
            }
        }
        if width < PANEL {
            rows.chunks_exact_mut(2 * PANEL)
                .for_each(|row| row[2 * width..].fill(bf16::ZERO));
        }
    }
}
