//! Sums of products and of columns on the CPU.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};

use super::{Finish, Form, Product};
use crate::element::{Element, Values, tensor, with_slices};
use crate::gemm::{Epilogue, Matrix, Out, Term, Threads, product};
use crate::math::vectorized;
use crate::shared::filled;

pub fn finished<E: Element>(
    terms: &[Product<'_>],
    finish: &Finish<'_>,
    [m, n]: [usize; 2],
) -> Result<Tensor>
where
    for<'a> Out<'a>: From<&'a mut [MaybeUninit<E>]>,
{
    // Each operand's storage is locked for reading as long as its values are in use.
    let stored: Vec<_> = terms
        .iter()
        .map(|term| (term.a.storage_and_layout().0, term.b.storage_and_layout().0))
        .collect();
    let mut summands = Vec::with_capacity(terms.len());
    for (term, (a, b)) in terms.iter().zip(&stored) {
        let (a, b) = (Values::of(a, term.a)?, Values::of(b, term.b)?);
        let (a_columns, b_columns) = (term.a.dim(1)?, term.b.dim(1)?);
        let (a, b) = (Matrix::rows(a, a_columns), Matrix::rows(b, b_columns));
        let (a, b) = match term.form {
            Form::Nt => (a, b.t()),
            Form::Nn => (a, b),
            Form::Tn => (a.t(), b),
        };
        summands.push(Term {
            a,
            b,
            depth: term.sizes()?[2],
            arithmetic: term.arithmetic,
        });
    }
    let rows = |row: Option<&Tensor>| row.map(|row| row.to_vec1::<f32>()).transpose();
    let (column_scale, bias) = (rows(finish.column_scale)?, rows(finish.bias)?);
    let add = finish.add.map(|add| (add, add.storage_and_layout().0));
    let add = match &add {
        Some((add, storage)) => Some(Matrix::rows(Values::of(storage, add)?, n)),
        None => None,
    };
    let epilogue = Epilogue {
        scale: finish.scale,
        column_scale: column_scale.as_deref(),
        bias: bias.as_deref(),
        add,
        accumulate: false,
    };
    // SAFETY: rows that lie n apart leave no gap.
    let out = unsafe {
        filled(m * n, |out: &mut [MaybeUninit<E>]| {
            product(Threads::All, [m, n], out.into(), n, &summands, epilogue);
        })
    };
    tensor(out, (m, n))
}

pub fn column_sums<E: Element>(x: &Tensor, y: Option<&Tensor>, width: usize) -> Result<Vec<f32>> {
    let mut sums = vec![0f64; width];
    match y {
        Some(y) => with_slices([x, y], |[x, y]: [&[E]; 2]| {
            add_columns(&mut sums, x, Some(y));
            Ok(())
        }),
        None => with_slices([x], |[x]: [&[E]; 1]| {
            add_columns(&mut sums, x, None);
            Ok(())
        }),
    }?;
    Ok(sums.into_iter().map(|sum| sum as f32).collect())
}

vectorized! {
    fn add_columns<E: Element>(sums: &mut [f64], x: &[E], y: Option<&[E]>) {
        let width = sums.len().max(1);
        for (row, x) in x.chunks_exact(width).enumerate() {
            match y {
                Some(y) => {
                    let pairs = x.iter().zip(&y[row * width..]);
                    let values = pairs.map(|(x, y)| f64::from(x.widen() * y.widen()));
                    sums.iter_mut().zip(values).for_each(|(s, v)| *s += v);
                }
                None => sums
                    .iter_mut()
                    .zip(x)
                    .for_each(|(s, x)| *s += f64::from(x.widen())),
            }
        }
    }
}
