//! Right operands, laid out as the kernels read them.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::kernel::{PANEL, transpose_16};
use super::{Arithmetic, Matrix, each};
use crate::element::{Element, Values};
use crate::math::vectorized;
use crate::shared::Shared;

/// Steps, and panels, of one packing task.
const TASK_STEPS: usize = 128;
const TASK_PANELS: usize = 8;

/// Below this many words waking a thread costs more than it saves.
const PARALLEL_FROM: usize = 1 << 15;

/// Columns of a matrix [depth, n] in panels of [`PANEL`]: [panel, step, column] words of 32 bits, a word being one
/// f32, or the bf16 values of two steps of k. What is beyond the matrix is 0.
pub struct Panels {
    words: Box<[MaybeUninit<u32>]>,
    depth: usize,
    arithmetic: Arithmetic,
}

impl Panels {
    /// Room for `panels`, with nothing in it.
    pub fn room(panels: usize, depth: usize, arithmetic: Arithmetic) -> Self {
        let words = panels * arithmetic.steps(depth) * PANEL;
        Self {
            words: Box::new_uninit_slice(words),
            depth,
            arithmetic,
        }
    }

    /// Fills the first panels with `columns` of `right` [depth, n].
    pub fn fill(&mut self, right: Matrix<'_>, columns: Range<usize>, workers: usize) {
        let steps = self.arithmetic.steps(self.depth);
        let panels = columns.len().div_ceil(PANEL);
        let out = Shared::new(&mut self.words[..panels * steps * PANEL]);
        let (rows, per_row) = (panels.div_ceil(TASK_PANELS), steps.div_ceil(TASK_STEPS));
        let task = |index: usize| {
            let panel = index / per_row * TASK_PANELS;
            let from = index % per_row * TASK_STEPS;
            let first = columns.start + panel * PANEL;
            let block = Block {
                out: &out,
                at: panel * steps * PANEL,
                per_panel: steps * PANEL,
                steps: from..steps.min(from + TASK_STEPS),
                columns: first..columns.end.min(first + TASK_PANELS * PANEL),
                depth: self.depth,
            };
            match (self.arithmetic, right.values) {
                (Arithmetic::F32, Values::F32(values)) => block.fill::<Single, _>(values, right),
                (Arithmetic::F32, Values::Bf16(values)) => block.fill::<Single, _>(values, right),
                (Arithmetic::Bf16, Values::F32(values)) => block.fill::<Pair, _>(values, right),
                (Arithmetic::Bf16, Values::Bf16(values)) => block.fill::<Pair, _>(values, right),
            }
        };
        let workers = if panels * steps * PANEL < PARALLEL_FROM {
            1
        } else {
            workers
        };
        each(rows * per_row, workers, task);
    }

    /// The panels of `right` [depth, n].
    pub fn of(right: Matrix<'_>, depth: usize, n: usize, arithmetic: Arithmetic) -> Self {
        let mut panels = Self::room(n.div_ceil(PANEL), depth, arithmetic);
        panels.fill(right, 0..n, 1);
        panels
    }

    /// A panel's words of some values of k, their stride, and in how many steps; a range begins with a step's first.
    pub fn steps(&self, panel: usize, k: Range<usize>) -> (*const u32, usize, usize) {
        assert!(k.end <= self.depth);
        let (first, end) = (k.start / self.size(), k.end.div_ceil(self.size()));
        (self.at(panel, first), PANEL, end - first)
    }

    fn size(&self) -> usize {
        match self.arithmetic {
            Arithmetic::F32 => 1,
            Arithmetic::Bf16 => 2,
        }
    }

    /// Where a panel's steps from `step` on stand; it has been filled.
    pub fn at(&self, panel: usize, step: usize) -> *const u32 {
        let steps = self.arithmetic.steps(self.depth);
        self.words[(panel * steps + step) * PANEL..].as_ptr().cast()
    }
}

impl Arithmetic {
    /// Steps in which a kernel goes over `depth`.
    pub fn steps(self, depth: usize) -> usize {
        match self {
            Arithmetic::F32 => depth,
            Arithmetic::Bf16 => depth.div_ceil(2),
        }
    }
}

/// What a word is made of.
trait Word {
    /// Values of k.
    const SIZE: usize;

    fn word<S: Element>(values: [S; 2]) -> u32;

    /// Whether values that lie side by side already are words.
    fn is<S: Element>() -> bool;
}

/// One f32.
struct Single;

/// Two bf16, the first in the low half.
struct Pair;

impl Word for Single {
    const SIZE: usize = 1;

    #[inline(always)]
    fn word<S: Element>([value, _]: [S; 2]) -> u32 {
        value.widen().to_bits()
    }

    fn is<S: Element>() -> bool {
        S::DTYPE == candle_core::DType::F32
    }
}

impl Word for Pair {
    const SIZE: usize = 2;

    #[inline(always)]
    fn word<S: Element>([low, high]: [S; 2]) -> u32 {
        u32::from(low.to_bf16().to_bits()) | u32::from(high.to_bf16().to_bits()) << 16
    }

    fn is<S: Element>() -> bool {
        S::DTYPE == candle_core::DType::BF16
    }
}

/// The steps and columns that one task packs.
struct Block<'a> {
    out: &'a Shared<'a, MaybeUninit<u32>>,
    /// Where the block's first panel begins.
    at: usize,
    per_panel: usize,
    steps: Range<usize>,
    columns: Range<usize>,
    depth: usize,
}

impl Block<'_> {
    fn fill<W: Word, S: Element>(&self, values: &[S], right: Matrix<'_>) {
        if right.column_stride == 1 {
            block_of_rows::<W, S>(self, values, right.row_stride);
        } else {
            block_of_columns::<W, S>(self, values, right);
        }
    }

    /// The words of one step in the block's panel `panel`.
    ///
    /// # Safety
    /// The block is the task's own.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn words(&self, panel: usize, step: usize) -> &mut [MaybeUninit<u32>] {
        let at = self.at + panel * self.per_panel + step * PANEL;
        // SAFETY: no other task has this block's steps of its panels.
        unsafe { self.out.slice(at, PANEL) }
    }
}

vectorized! {
    /// Rows of the matrix lie in memory.
    fn block_of_rows<W: Word, S: Element>(block: &Block<'_>, values: &[S], stride: usize) {
        let width = block.columns.len();
        for step in block.steps.clone() {
            let k = step * W::SIZE;
            let low = &values[k * stride + block.columns.start..][..width];
            // A last row without another pairs with zeros.
            let paired = W::SIZE == 2 && k + 1 < block.depth;
            let high = if paired { &values[(k + 1) * stride + block.columns.start..][..width] } else { low };
            let (lows, low_rest) = low.as_chunks::<PANEL>();
            let (highs, high_rest) = high.as_chunks::<PANEL>();
            for (panel, (low, high)) in lows.iter().zip(highs).enumerate() {
                // SAFETY: the block is this task's.
                let out = unsafe { block.words(panel, step) };
                if paired {
                    for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
                        out.write(W::word([low, high]));
                    }
                } else {
                    for (out, &low) in out.iter_mut().zip(low) {
                        out.write(W::word([low, S::default()]));
                    }
                }
            }
            if !low_rest.is_empty() {
                // SAFETY: as above.
                let out = unsafe { block.words(lows.len(), step) };
                out.fill(MaybeUninit::new(0));
                for ((out, &low), &high) in out.iter_mut().zip(low_rest).zip(high_rest) {
                    out.write(W::word([low, if paired { high } else { S::default() }]));
                }
            }
        }
    }
}

vectorized! {
    /// Columns of the matrix lie in memory, or nothing does: 16 x 16 words at a time.
    fn block_of_columns<W: Word, S: Element>(block: &Block<'_>, values: &[S], right: Matrix<'_>) {
        const SIDE: usize = 16;
        for (panel, column) in block.columns.clone().step_by(PANEL).enumerate() {
            for step in block.steps.clone().step_by(SIDE) {
                let steps = SIDE.min(block.steps.end - step);
                let k = step * W::SIZE;
                let n_k = (steps * W::SIZE).min(block.depth - k);
                for half in [0, SIDE] {
                    let columns = SIDE.min(block.columns.end.saturating_sub(column + half));
                    let start = |lane: usize| k * right.row_stride + (column + half + lane) * right.column_stride;
                    let mut words = [[0u32; SIDE]; SIDE];
                    let mut rows = words.each_ref().map(|words| words.as_ptr());
                    if W::is::<S>() && right.row_stride == 1 && columns == SIDE && n_k == SIDE * W::SIZE {
                        rows = std::array::from_fn(|lane| values[start(lane)..][..n_k].as_ptr().cast());
                    } else {
                        for (lane, words) in words.iter_mut().enumerate().take(columns) {
                            let at = |i: usize| values[start(lane) + i * right.row_stride];
                            for (i, word) in words.iter_mut().enumerate().take(steps) {
                                let i = i * W::SIZE;
                                let high = if i + 1 < n_k && W::SIZE == 2 { at(i + 1) } else { S::default() };
                                *word = W::word([at(i), high]);
                            }
                        }
                    }
                    let mut turned = [[0u32; SIDE]; SIDE];
                    // SAFETY: 16 words in each of the rows, and in each of `turned`.
                    unsafe { transpose_16(rows, turned.as_mut_ptr().cast(), SIDE) };
                    for (step, turned) in (step..).zip(&turned[..steps]) {
                        // SAFETY: the block is this task's.
                        let out = unsafe { block.words(panel, step) };
                        for (out, &word) in out[half..half + SIDE].iter_mut().zip(turned) {
                            out.write(word);
                        }
                    }
                }
            }
        }
    }
}

/// A left operand's rows as the kernels read them: where they lie, or in a copy.
pub enum Rows<'a> {
    F32 {
        values: Cow<'a, [f32]>,
        row_stride: usize,
        step_stride: usize,
    },
    /// A row's values side by side, of an even number.
    Bf16 {
        values: Cow<'a, [bf16]>,
        row_stride: usize,
    },
}

impl<'a> Rows<'a> {
    /// `rows` of `left` [m, depth].
    pub fn of(left: Matrix<'a>, rows: Range<usize>, depth: usize, arithmetic: Arithmetic) -> Self {
        let values = left.values.tail(rows.start * left.row_stride);
        match (arithmetic, values) {
            (Arithmetic::F32, Values::F32(values)) if !collide::<f32>(left, rows.len()) => {
                Rows::F32 {
                    values: values.into(),
                    row_stride: left.row_stride,
                    step_stride: left.column_stride,
                }
            }
            (Arithmetic::F32, values) => {
                let stride = apart::<f32>(depth);
                Rows::F32 {
                    values: copied(values, left, rows.len(), depth, stride).into(),
                    row_stride: stride,
                    step_stride: 1,
                }
            }
            (Arithmetic::Bf16, Values::Bf16(values))
                if left.column_stride == 1
                    && depth.is_multiple_of(2)
                    && !collide::<bf16>(left, rows.len()) =>
            {
                Rows::Bf16 {
                    values: values.into(),
                    row_stride: left.row_stride,
                }
            }
            (Arithmetic::Bf16, values) => {
                let stride = apart::<bf16>(depth.next_multiple_of(2));
                Rows::Bf16 {
                    values: copied(values, left, rows.len(), depth, stride).into(),
                    row_stride: stride,
                }
            }
        }
    }
}

/// Bytes after which addresses fall into the same set of a first-level cache.
const SETS: usize = 4096;

/// Whether rows that are read side by side would push each other out of the cache: more of them in one set than it
/// has ways.
fn collide<T>(left: Matrix<'_>, rows: usize) -> bool {
    rows > 8 && left.column_stride == 1 && (left.row_stride * size_of::<T>()).is_multiple_of(SETS)
}

/// The stride of copied rows: `len`, or a little more where they would collide.
fn apart<T>(len: usize) -> usize {
    match (len * size_of::<T>()).is_multiple_of(SETS) {
        true => len + 64 / size_of::<T>(),
        false => len,
    }
}

fn copied<D: Element>(
    values: Values<'_>,
    left: Matrix<'_>,
    rows: usize,
    depth: usize,
    stride: usize,
) -> Vec<D> {
    match values {
        Values::F32(values) => copy_rows(values, left, rows, depth, stride),
        Values::Bf16(values) => copy_rows(values, left, rows, depth, stride),
    }
}

/// Rows from the source's first on, `stride` apart with zeros beyond `depth`.
fn copy_rows<S: Element, D: Element>(
    source: &[S],
    left: Matrix<'_>,
    rows: usize,
    depth: usize,
    stride: usize,
) -> Vec<D> {
    let mut copy = vec![D::default(); rows * stride];
    for (r, row) in copy.chunks_exact_mut(stride.max(1)).enumerate() {
        let source = &source[r * left.row_stride..];
        if left.column_stride == 1 {
            convert(&mut row[..depth], &source[..depth]);
        } else {
            let values = source.iter().step_by(left.column_stride);
            row[..depth]
                .iter_mut()
                .zip(values)
                .for_each(|(out, value)| *out = D::narrow(value.widen()));
        }
    }
    copy
}

vectorized! {
    fn convert<S: Element, D: Element>(out: &mut [D], source: &[S]) {
        out.iter_mut().zip(source).for_each(|(out, x)| *out = D::narrow(x.widen()));
    }
}
