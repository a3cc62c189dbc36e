//! Matrix products for training: f32 and bf16 operands, sums in f32.
//!
//! Of the two operands the one that is cheaper to pack is packed into panels, shared by all threads; the other is
//! read where it lies. Threads share output tiles, never a sum, so a product has the same bits whatever their number.

mod kernel;
mod panels;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use crate::cpu;
use crate::element::{Element, Values};
use crate::math::vectorized;
pub(crate) use kernel::PANEL;
use kernel::{Block, MAX_ROWS, Operand, Tile, transpose_16};
pub(crate) use panels::{Panels, Rows};

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

    /// Without its first rows.
    pub fn skip_rows(self, n: usize) -> Self {
        Self {
            values: self.values.tail(n * self.row_stride),
            ..self
        }
    }

    /// Without its first columns.
    pub fn skip_columns(self, n: usize) -> Self {
        self.t().skip_rows(n).t()
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

impl Arithmetic {
    pub(crate) fn of_this_cpu(self) -> Self {
        if cpu::has_bf16() {
            self
        } else {
            Arithmetic::F32
        }
    }
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

/// Where a product goes: f32 or bf16, with or without values before.
pub struct Out<'a> {
    data: *mut u8,
    len: usize,
    is_bf16: bool,
    is_initialised: bool,
    values: PhantomData<&'a mut [u8]>,
}

macro_rules! out_from {
    ($($kind:ty, $is_bf16:literal, $is_initialised:literal;)*) => {$(
        impl<'a> From<&'a mut [$kind]> for Out<'a> {
            fn from(values: &'a mut [$kind]) -> Self {
                Self {
                    data: values.as_mut_ptr().cast(),
                    len: values.len(),
                    is_bf16: $is_bf16,
                    is_initialised: $is_initialised,
                    values: PhantomData,
                }
            }
        }
    )*};
}

out_from! {
    f32, false, true;
    bf16, true, true;
    MaybeUninit<f32>, false, false;
    MaybeUninit<bf16>, true, false;
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

/// Rows of one task: a multiple of [`MAX_ROWS`] and of 16.
const TASK_ROWS: usize = 48;
/// Steps that a kernel runs over before it moves to other rows: a panel of them stays in the second-level cache.
const STEPS: usize = 512;
/// Bytes of packed panels at a time.
const PACKED_BYTES: usize = 4 << 20;
/// Below this many multiply-adds starting threads costs more than it saves.
const PARALLEL_FROM: usize = 1 << 18;
/// Tasks per thread, so that none waits long for the last.
const TASKS: usize = 24;

/// out [m, n] = the epilogue of Σ over `terms` of a · b, rows `out_stride` apart.
///
/// Every element between is written: of an output of `m · n` elements with that stride, all.
///
/// # Panics
/// When an operand or the output does not hold what the sizes and strides reach, or the epilogue adds to an output
/// without values.
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
    assert!((m - 1) * out_stride + n <= out.len);
    assert!(out.is_initialised || !epilogue.accumulate);
    for term in terms {
        assert!(term.a.holds(m, term.depth) && term.b.holds(term.depth, n));
    }
    let depth: usize = terms.iter().map(|term| term.depth).sum();
    let parallel = threads == Threads::All && m * n * depth.max(1) >= PARALLEL_FROM;
    let target = Target {
        data: out.data,
        is_bf16: out.is_bf16,
        stride: out_stride,
        epilogue,
        // The output is computed transposed where its rows are fewer than its columns, and both operands have
        // their k side by side: it is the smaller one that is packed.
        is_turned: m < n
            && terms
                .iter()
                .all(|term| term.a.column_stride == 1 && term.b.row_stride == 1),
    };
    let workers = if parallel {
        rayon::current_num_threads()
    } else {
        1
    };
    match terms {
        [term] if few_rows([m, n], term) => product_of_few_rows([m, n], term, &target, workers),
        _ => product_in_panels([m, n], terms, &target, workers),
    }
}

/// The output, shared by tasks, and what happens on the way into it.
#[derive(Clone, Copy)]
struct Target<'a> {
    data: *mut u8,
    is_bf16: bool,
    stride: usize,
    epilogue: Epilogue<'a>,
    /// Whether tiles are of the transposed output.
    is_turned: bool,
}
// SAFETY: tasks write disjoint rectangles, and nobody reads before all are done.
unsafe impl Send for Target<'_> {}
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

/// Runs `task` for 0..n, on all threads where there are several workers. Each can be stolen by itself: rayon would
/// otherwise leave a thread with a quarter of them while another waits.
fn each(n: usize, workers: usize, task: impl Fn(usize) + Sync + Send) {
    if workers > 1 {
        (0..n).into_par_iter().with_max_len(1).for_each(task);
    } else {
        (0..n).for_each(task);
    }
}

/// A term as it is computed: transposed where the output is.
struct Factor<'a> {
    left: Matrix<'a>,
    right: Matrix<'a>,
    depth: usize,
    arithmetic: Arithmetic,
    panels: Panels,
}

fn product_in_panels([m, n]: [usize; 2], terms: &[Term<'_>], target: &Target<'_>, workers: usize) {
    let [rows, columns] = if target.is_turned { [n, m] } else { [m, n] };
    let n_panels = columns.div_ceil(PANEL);
    let arithmetic = |term: &Term<'_>| term.arithmetic.of_this_cpu();
    let words: usize = terms
        .iter()
        .map(|term| arithmetic(term).steps(term.depth) * PANEL)
        .sum();
    let group = (PACKED_BYTES / (4 * words).max(1)).clamp(1, n_panels);
    // Of one size: a last group of a few panels would have all rows read for little.
    let group = n_panels.div_ceil(n_panels.div_ceil(group));
    let mut factors: Vec<Factor<'_>> = terms
        .iter()
        .map(|term| Factor {
            left: if target.is_turned { term.b.t() } else { term.a },
            right: if target.is_turned { term.a.t() } else { term.b },
            depth: term.depth,
            arithmetic: arithmetic(term),
            panels: Panels::room(group, term.depth, arithmetic(term)),
        })
        .collect();
    let blocks = rows.div_ceil(TASK_ROWS);
    for first in (0..n_panels).step_by(group) {
        let panels = group.min(n_panels - first);
        let range = first * PANEL..columns.min((first + panels) * PANEL);
        for factor in &mut factors {
            factor.panels.fill(factor.right, range.clone(), workers);
        }
        let splits = (TASKS * workers).div_ceil(blocks).min(panels);
        let per_split = panels.div_ceil(splits);
        each(blocks * splits, workers, |index| {
            let (block, split) = (index / splits, index % splits);
            let rows = block * TASK_ROWS..rows.min((block + 1) * TASK_ROWS);
            let panels = split * per_split..panels.min((split + 1) * per_split);
            compute(rows, panels, range.clone(), &factors, target);
        });
    }
}

/// The tiles of some rows in some of the packed panels, which hold `columns`.
fn compute(
    rows: Range<usize>,
    panels: Range<usize>,
    columns: Range<usize>,
    factors: &[Factor<'_>],
    target: &Target<'_>,
) {
    let operands: Vec<(Rows<'_>, &Factor<'_>)> = factors
        .iter()
        .map(|factor| {
            let rows = Rows::of(factor.left, rows.clone(), factor.depth, factor.arithmetic);
            (rows, factor)
        })
        .collect();
    let mut tile = [0f32; TASK_ROWS * PANEL];
    let height = rows.len();
    for panel in panels {
        let column = columns.start + panel * PANEL;
        let width = PANEL.min(columns.end - column);
        let mut accumulate = false;
        for (operand, factor) in &operands {
            let steps = factor.arithmetic.steps(factor.depth);
            for step in (0..steps).step_by(STEPS) {
                let block = Block {
                    columns: width,
                    steps: STEPS.min(steps - step),
                    b: factor.panels.at(panel, step),
                    b_stride: PANEL,
                    out: tile.as_mut_ptr(),
                    out_stride: PANEL,
                    accumulate,
                };
                // SAFETY: `product` checked the operands' extents, the panel holds all steps, and the tile has
                // room for `height` rows.
                unsafe { operand.multiply(height, step, block) };
                accumulate = true;
            }
        }
        if !accumulate {
            tile.fill(0.0);
        }
        target.store(&tile, rows.clone(), column..column + width);
    }
}

impl Rows<'_> {
    /// The products of the first `n` rows with `block`, whose first step is these rows' `step`.
    ///
    /// # Panics
    /// When the rows do not hold what is read.
    ///
    /// # Safety
    /// As [`Operand::multiply`], of the right operand and the output.
    unsafe fn multiply(&self, n: usize, step: usize, block: Block) {
        if n == 0 || block.steps == 0 {
            return;
        }
        for first in (0..n).step_by(MAX_ROWS) {
            let rows = MAX_ROWS.min(n - first);
            // SAFETY: the asserts are for the rows, `first` stays below `n`, and only CPUs with the instructions have
            // bf16 rows.
            unsafe {
                let block = Block {
                    out: block.out.add(first * block.out_stride),
                    ..block
                };
                match *self {
                    Rows::F32 {
                        ref values,
                        row_stride,
                        step_stride,
                    } => {
                        let at = first * row_stride + step * step_stride;
                        let end = at + (rows - 1) * row_stride + (block.steps - 1) * step_stride;
                        assert!(end < values.len());
                        f32::multiply(Tile {
                            rows,
                            a: values.as_ptr().add(at),
                            row_stride,
                            step_stride,
                            block,
                        });
                    }
                    Rows::Bf16 {
                        ref values,
                        row_stride,
                    } => {
                        let at = first * row_stride + 2 * step;
                        let end = at + (rows - 1) * row_stride + 2 * block.steps - 1;
                        assert!(end < values.len());
                        bf16::multiply(Tile {
                            rows,
                            a: values.as_ptr().add(at),
                            row_stride,
                            step_stride: 2,
                            block,
                        });
                    }
                }
            }
        }
    }
}

/// A right operand in scratch memory, for [`Rows::times`].
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    Panels(&'a Panels),
    /// f32 rows, `stride` apart.
    Rows {
        values: &'a [f32],
        stride: usize,
    },
}

impl Rows<'_> {
    /// out [n, columns] = the first `n` rows · `columns` of `right`, over the right operand's `depth`; or added to
    /// it. `columns` begins at a multiple of [`PANEL`]; what is written is rounded up to one, and so is what is read.
    ///
    /// # Panics
    /// When the operands or the output do not hold what is read or written.
    pub(crate) fn times(
        &self,
        n: usize,
        right: Right<'_>,
        columns: Range<usize>,
        depth: Range<usize>,
        out: (&mut [f32], usize),
        accumulate: bool,
    ) {
        let (out, out_stride) = out;
        assert!(columns.start.is_multiple_of(PANEL));
        for column in columns.clone().step_by(PANEL) {
            let at = column - columns.start;
            assert!(n == 0 || (n - 1) * out_stride + at + PANEL <= out.len());
            let (b, b_stride, steps) = match right {
                Right::Panels(panels) => panels.steps(column / PANEL, depth.clone()),
                Right::Rows { values, stride } => {
                    let first = depth.start * stride + column;
                    assert!(
                        depth.is_empty()
                            || (depth.end - 1) * stride + column + PANEL <= values.len()
                    );
                    (values[first..].as_ptr().cast(), stride, depth.len())
                }
            };
            let block = Block {
                columns: PANEL,
                steps,
                b,
                b_stride,
                out: out[at..].as_mut_ptr(),
                out_stride,
                accumulate,
            };
            // SAFETY: the asserts above.
            unsafe { self.multiply(n, 0, block) };
        }
    }
}

/// Whether `term` has too few rows to pay for packing a right operand whose rows lie in memory: a low-rank
/// gradient.
fn few_rows([m, n]: [usize; 2], term: &Term<'_>) -> bool {
    m <= TASK_ROWS
        && n >= PANEL
        && term.arithmetic == Arithmetic::F32
        && term.b.column_stride == 1
        && term.depth > STREAM
}

/// Steps of the right operand that are read by all panels before the next: rows that stay in the first-level cache.
const STREAM: usize = 64;
/// Most panels of one task.
const STREAM_PANELS: usize = 8;

/// The right operand is read once, from memory, in the order it lies in.
fn product_of_few_rows([m, n]: [usize; 2], term: &Term<'_>, target: &Target<'_>, workers: usize) {
    let n_panels = n.div_ceil(PANEL);
    let per_task = n_panels.div_ceil(2 * workers).min(STREAM_PANELS);
    each(n_panels.div_ceil(per_task), workers, |task| {
        let rows = Rows::of(term.a, 0..m, term.depth, Arithmetic::F32);
        let columns = task * per_task * PANEL..n.min((task + 1) * per_task * PANEL);
        let mut tiles = [[0f32; TASK_ROWS * PANEL]; STREAM_PANELS];
        for k in (0..term.depth).step_by(STREAM) {
            let steps = STREAM.min(term.depth - k);
            for (tile, column) in tiles.iter_mut().zip(columns.clone().step_by(PANEL)) {
                let width = PANEL.min(columns.end - column);
                let values = term.b.values.tail(k * term.b.row_stride);
                let mut panel;
                let (b, b_stride) = match values {
                    Values::F32(values) if width == PANEL => {
                        (values[column..].as_ptr().cast(), term.b.row_stride)
                    }
                    _ => {
                        panel = Panels::room(1, steps, Arithmetic::F32);
                        let right = Matrix::rows(values, term.b.row_stride);
                        panel.fill(right, column..column + width, 1);
                        (panel.at(0, 0), PANEL)
                    }
                };
                let block = Block {
                    columns: width,
                    steps,
                    b,
                    b_stride,
                    out: tile.as_mut_ptr(),
                    out_stride: PANEL,
                    accumulate: k > 0,
                };
                // SAFETY: `product` checked the operands' extents, and the tile has room for all rows.
                unsafe { rows.multiply(m, k, block) };
            }
        }
        for (tile, column) in tiles.iter().zip(columns.clone().step_by(PANEL)) {
            target.store(tile, 0..m, column..columns.end.min(column + PANEL));
        }
    });
}

impl Target<'_> {
    /// Finishes the tile that holds `rows` and `columns` of what is computed.
    fn store(&self, tile: &[f32; TASK_ROWS * PANEL], rows: Range<usize>, columns: Range<usize>) {
        if !self.is_turned {
            return self.finish(tile, PANEL, rows, columns);
        }
        let mut turned = [0f32; TASK_ROWS * PANEL];
        for row in (0..rows.len()).step_by(16) {
            for column in (0..columns.len()).step_by(16) {
                let from = std::array::from_fn(|r| tile[(row + r) * PANEL + column..].as_ptr());
                let to = turned[column * TASK_ROWS + row..].as_mut_ptr();
                // SAFETY: the tile has a multiple of 16 rows and columns.
                unsafe { transpose_16(from.map(<*const f32>::cast), to.cast(), TASK_ROWS) };
            }
        }
        self.finish(&turned, TASK_ROWS, columns, rows);
    }

    /// `rows` and `columns` are the output's.
    fn finish(&self, tile: &[f32], stride: usize, rows: Range<usize>, columns: Range<usize>) {
        if self.is_bf16 {
            finish::<bf16>(self, tile, stride, rows, columns);
        } else {
            finish::<f32>(self, tile, stride, rows, columns);
        }
    }
}

vectorized! {
    fn finish<E: Element>(
        target: &Target<'_>,
        tile: &[f32],
        stride: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let epilogue = &target.epilogue;
        let width = columns.len();
        let mut values = [0f32; TASK_ROWS];
        let values = &mut values[..width];
        for (row, tile) in rows.zip(tile.chunks_exact(stride)) {
            // SAFETY: rows and columns lie within the output; no other task has them.
            let out = unsafe {
                let at = row * target.stride + columns.start;
                std::slice::from_raw_parts_mut(target.data.cast::<MaybeUninit<E>>().add(at), width)
            };
            values.iter_mut().zip(tile).for_each(|(v, t)| *v = t * epilogue.scale);
            if let Some(scales) = epilogue.column_scale {
                values.iter_mut().zip(&scales[columns.start..]).for_each(|(v, s)| *v *= s);
            }
            if let Some(bias) = epilogue.bias {
                values.iter_mut().zip(&bias[columns.start..]).for_each(|(v, b)| *v += b);
            }
            if epilogue.accumulate {
                // SAFETY: `product` asked for an output that has values.
                values.iter_mut().zip(out.iter()).for_each(|(v, x)| *v += unsafe { x.assume_init() }.widen());
            }
            // Without an addend zeros are added: the copy that a loop without arithmetic becomes costs a call.
            let add = epilogue.add.map_or(Values::F32(&[0.0; TASK_ROWS]), |add| {
                add.values.tail(row * add.row_stride + columns.start)
            });
            match add {
                Values::F32(add) => written(out, values, add),
                Values::Bf16(add) => written(out, values, add),
            }
        }
    }
}

#[inline(always)]
fn written<E: Element, A: Element>(out: &mut [MaybeUninit<E>], values: &[f32], add: &[A]) {
    for ((out, value), add) in out.iter_mut().zip(values).zip(add) {
        out.write(E::narrow(value + add.widen()));
    }
}
