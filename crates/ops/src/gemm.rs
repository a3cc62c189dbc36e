//! Strided f32 matrix products for training, over the `gemm` crate.
//!
//! The threads share output tiles, never a reduction, so that a product has the same bits
//! at every run with the same shapes and thread count.

use gemm::Parallelism;

/// A row-major matrix view with a row stride: `data[r * stride + c]`.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

impl<'a> Rows<'a> {
    pub fn new(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride }
    }
}

/// Whether a product may use all threads, or runs inside a task that is one of many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    All,
    One,
}

impl Threads {
    fn parallelism(self) -> Parallelism {
        match self {
            Threads::All => Parallelism::Rayon(0),
            Threads::One => Parallelism::None,
        }
    }
}

/// out[m, n] = a[m, k] · b[n, k]ᵀ: a linear layer's forward.
pub fn nt(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    product(
        Threads::All,
        [m, n, k],
        &mut out,
        n,
        0.0,
        1.0,
        (Rows::new(a, k), false),
        (Rows::new(b, k), true),
    );
    out
}

/// out[m, n] = a[m, k] · b[k, n]: the gradient of a linear layer's input.
pub fn nn(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    product(
        Threads::All,
        [m, n, k],
        &mut out,
        n,
        0.0,
        1.0,
        (Rows::new(a, k), false),
        (Rows::new(b, n), false),
    );
    out
}

/// out[m, n] += a[k, m]ᵀ · b[k, n]: the gradient of a linear layer's weight.
pub fn tn_add(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
    product(
        Threads::All,
        [m, n, k],
        out,
        n,
        1.0,
        1.0,
        (Rows::new(a, m), true),
        (Rows::new(b, n), false),
    );
}

/// out = keep · out + scale · op(a) · op(b), each operand with a flag that says whether it is
/// read transposed. `[m, n, k]` are the sizes after transposition.
#[allow(clippy::too_many_arguments)]
pub fn product(
    threads: Threads,
    [m, n, k]: [usize; 3],
    out: &mut [f32],
    out_stride: usize,
    keep: f32,
    scale: f32,
    (a, a_transposed): (Rows<'_>, bool),
    (b, b_transposed): (Rows<'_>, bool),
) {
    if m == 0 || n == 0 {
        return;
    }
    let extent = |rows: usize, columns: usize, stride: usize| (rows - 1) * stride + columns;
    assert!(extent(m, n, out_stride) <= out.len());
    if k > 0 {
        let (rows, columns) = if a_transposed { (k, m) } else { (m, k) };
        assert!(extent(rows, columns, a.stride) <= a.data.len());
        let (rows, columns) = if b_transposed { (n, k) } else { (k, n) };
        assert!(extent(rows, columns, b.stride) <= b.data.len());
    }
    let strides = |stride: usize, transposed: bool| {
        let stride = stride as isize;
        if transposed { (stride, 1) } else { (1, stride) }
    };
    let (a_cs, a_rs) = strides(a.stride, a_transposed);
    let (b_cs, b_rs) = strides(b.stride, b_transposed);
    // SAFETY: the assertions above bound every element the sizes and strides reach, and
    // `out` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            keep != 0.0,
            a.data.as_ptr(),
            a_cs,
            a_rs,
            b.data.as_ptr(),
            b_cs,
            b_rs,
            keep,
            scale,
            false,
            false,
            false,
            threads.parallelism(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_agree_with_the_definition() {
        let (m, n, k) = (5, 7, 3);
        let fill = |len: usize| {
            (0..len)
                .map(|i| (i as f32 * 0.37).sin())
                .collect::<Vec<_>>()
        };
        let (a, b) = (fill(m * k), fill(n * k));
        let expected =
            |i: usize, j: usize| (0..k).map(|x| a[i * k + x] * b[j * k + x]).sum::<f32>();
        let transpose = |x: &[f32], rows: usize, columns: usize| {
            (0..rows * columns)
                .map(|i| x[(i % rows) * columns + i / rows])
                .collect::<Vec<_>>()
        };
        let mut tn = vec![1.0; m * n];
        tn_add(m, n, k, &transpose(&a, m, k), &transpose(&b, n, k), &mut tn);
        let nt = nt(m, n, k, &a, &b);
        let nn = nn(m, n, k, &a, &transpose(&b, n, k));
        for i in 0..m * n {
            let want = expected(i / n, i % n);
            assert!((nt[i] - want).abs() < 1e-6 && (nn[i] - want).abs() < 1e-6);
            assert!((tn[i] - 1.0 - want).abs() < 1e-6);
        }
    }
}
