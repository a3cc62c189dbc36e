#![allow(clippy::unwrap_used)]
use half::bf16;

use super::*;

fn wave(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
}

fn rounded(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&x| bf16::from_f32(x)).collect()
}

/// A matrix in memory, as rows or as columns, in either type.
struct Stored {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    is_bf16: bool,
    row_stride: usize,
    column_stride: usize,
}

impl Stored {
    fn new([rows, columns]: [usize; 2], seed: f32, by_rows: bool, is_bf16: bool) -> Self {
        // Rows lie a little apart: strides are not sizes.
        let (row_stride, column_stride) = if by_rows {
            (columns + 3, 1)
        } else {
            (1, rows + 1)
        };
        let values = wave(rows * row_stride.max(1) + columns * column_stride, seed);
        Self {
            bf16: rounded(&values),
            f32: values,
            is_bf16,
            row_stride,
            column_stride,
        }
    }

    fn view(&self) -> Matrix<'_> {
        Matrix {
            values: if self.is_bf16 {
                Values::Bf16(&self.bf16)
            } else {
                Values::F32(&self.f32)
            },
            row_stride: self.row_stride,
            column_stride: self.column_stride,
        }
    }

    fn at(&self, r: usize, c: usize) -> f64 {
        let at = r * self.row_stride + c * self.column_stride;
        f64::from(if self.is_bf16 {
            self.bf16[at].to_f32()
        } else {
            self.f32[at]
        })
    }
}

#[test]
fn products_equal_their_definition() {
    let sizes = [
        [1, 1, 1],
        [5, 40, 33],
        [13, 31, 70],
        [16, 130, 300],
        [48, 65, 129],
        [50, 20, 7],
        [100, 300, 530],
        [300, 100, 1030],
        [7, 9, 0],
    ];
    for [m, n, depth] in sizes {
        for case in 0..32 {
            let [a_rows, b_rows, a_bf16, b_bf16, wide] =
                [1, 2, 4, 8, 16].map(|bit| case & bit == 0);
            let arithmetic = if wide {
                Arithmetic::F32
            } else {
                Arithmetic::Bf16
            };
            let a = Stored::new([m, depth], 0.1, a_rows, a_bf16);
            let b = Stored::new([depth, n], 0.7, b_rows, b_bf16);
            let (low_a, low_b) = (wave(m * 4, 0.3), wave(4 * n, 0.9));
            let low = Term {
                a: Matrix::rows(Values::F32(&low_a), 4),
                b: Matrix::rows(Values::F32(&low_b), n),
                depth: 4,
                arithmetic: Arithmetic::F32,
            };
            let term = Term {
                a: a.view(),
                b: b.view(),
                depth,
                arithmetic,
            };
            let sum = |r: usize, c: usize, of: fn(f64) -> f64| -> f64 {
                (0..depth).map(|k| of(a.at(r, k) * b.at(k, c))).sum()
            };
            let expected = |r, c| sum(r, c, |x| x);
            // Of the sum of the terms' sizes: what rounding costs, whatever cancels.
            let tolerance = match arithmetic {
                Arithmetic::F32 => 4e-6,
                Arithmetic::Bf16 => 8e-3,
            };
            let bound = |r, c| tolerance * sum(r, c, f64::abs) + 1e-5;
            let what = format!("{m} x {n} x {depth}, case {case}");

            let mut out = vec![f32::NAN; m * n];
            product(
                Threads::All,
                [m, n],
                out.as_mut_slice().into(),
                n,
                &[term],
                Epilogue::default(),
            );
            for (i, &found) in out.iter().enumerate() {
                let error = (f64::from(found) - expected(i / n, i % n)).abs();
                assert!(error <= bound(i / n, i % n), "{what}: {error} at {i}");
            }
            let alone = rayon::ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .unwrap();
            let mut again = vec![0f32; m * n];
            alone.install(|| {
                product(
                    Threads::All,
                    [m, n],
                    again.as_mut_slice().into(),
                    n,
                    &[term],
                    Epilogue::default(),
                );
            });
            assert_eq!(out, again, "{what}: other bits with one thread");

            let (scales, bias, add) = (wave(n, 1.3), wave(n, 1.7), wave(m * n, 2.1));
            let epilogue = Epilogue {
                scale: 0.5,
                column_scale: Some(&scales),
                bias: Some(&bias),
                add: Some(Matrix::rows(Values::F32(&add), n)),
                accumulate: true,
            };
            let mut narrow = vec![bf16::from_f32(2.0); m * n];
            let mut wide = vec![2f32; m * n];
            product(
                Threads::One,
                [m, n],
                wide.as_mut_slice().into(),
                n,
                &[term, low],
                epilogue,
            );
            product(
                Threads::One,
                [m, n],
                narrow.as_mut_slice().into(),
                n,
                &[term, low],
                epilogue,
            );
            for (i, &found) in wide.iter().enumerate() {
                let (r, c) = (i / n, i % n);
                let low: f64 = (0..4)
                    .map(|k| f64::from(low_a[r * 4 + k]) * f64::from(low_b[k * n + c]))
                    .sum();
                let sum = 0.5 * f64::from(scales[c]) * (expected(r, c) + low);
                let whole = sum + f64::from(bias[c]) + f64::from(add[i]) + 2.0;
                let error = (f64::from(found) - whole).abs();
                assert!(error <= bound(r, c), "{what}: {error} at {i}, finished");
                assert_eq!(narrow[i], bf16::from_f32(found), "{what}: rounded once");
            }
        }
    }
}

#[test]
fn rows_may_lie_apart_in_the_output() {
    let (a, b) = (wave(30, 0.0), wave(60, 1.0));
    let term = Term {
        a: Matrix::rows(Values::F32(&a), 10),
        b: Matrix::rows(Values::F32(&b), 6),
        depth: 10,
        arithmetic: Arithmetic::F32,
    };
    let mut apart = vec![7f32; 3 * 9];
    product(
        Threads::All,
        [3, 6],
        apart.as_mut_slice().into(),
        9,
        &[term],
        Epilogue::default(),
    );
    let mut close = vec![0f32; 18];
    product(
        Threads::All,
        [3, 6],
        close.as_mut_slice().into(),
        6,
        &[term],
        Epilogue::default(),
    );
    for (apart, close) in apart.chunks(9).zip(close.chunks(6)) {
        assert_eq!(&apart[..6], close);
        assert_eq!(apart[6..], [7.0; 3]);
    }
}
