//! Sums, products, multiples and powers of matrices, worked out entry by entry.

use num_traits::ToPrimitive;

use super::negative;
use crate::budget::Budget;
use crate::expr::Expr;

/// Rows, or columns, of a product that is worked out.
const MOST_ROWS: usize = 16;

/// Powers that are multiplied out.
const LARGEST_POWER: u32 = 8;

type Rows = Vec<Vec<Expr>>;

/// A formula with matrices as one matrix; `None` where its parts do not fit together.
pub(super) fn evaluated(expr: &Expr, budget: &mut Budget) -> Option<Rows> {
    budget.spend(500)?;
    match expr {
        Expr::Matrix(rows) => Some(rows.clone()),
        Expr::Negative(inner) => {
            let rows = evaluated(inner, budget)?;
            Some(mapped(rows, &mut |entry| negative(entry)))
        }
        Expr::Sum(terms) => {
            let mut terms = terms.iter();
            let mut sum = evaluated(terms.next()?, budget)?;
            for term in terms {
                sum = plus(sum, evaluated(term, budget)?, budget)?;
            }
            Some(sum)
        }
        Expr::Quotient(parts) => {
            let rows = evaluated(&parts[0], budget)?;
            budget.spend(100 * entries(&rows))?;
            let divided = &mut |entry| Expr::quotient(entry, parts[1].clone());
            Some(mapped(rows, divided))
        }
        Expr::Product(factors) => product(factors, budget),
        Expr::Power(parts) => power(&parts[0], &parts[1], budget),
        _ => None,
    }
}

fn entries(rows: &Rows) -> u64 {
    rows.iter().map(Vec::len).sum::<usize>() as u64
}

fn mapped(rows: Rows, change: &mut dyn FnMut(Expr) -> Expr) -> Rows {
    rows.into_iter()
        .map(|row| row.into_iter().map(&mut *change).collect())
        .collect()
}

fn plus(a: Rows, b: Rows, budget: &mut Budget) -> Option<Rows> {
    budget.spend(100 * entries(&a))?;
    let same_size = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.len() == b.len());
    same_size.then(|| {
        let row = |(a, b): (Vec<Expr>, Vec<Expr>)| {
            let sum = |(a, b)| Expr::Sum(vec![a, b]);
            a.into_iter().zip(b).map(sum).collect()
        };
        a.into_iter().zip(b).map(row).collect()
    })
}

/// Numbers and formulas multiply every entry; matrices multiply one another in order.
fn product(factors: &[Expr], budget: &mut Budget) -> Option<Rows> {
    let is_matrix = |factor: &&Expr| factor.has(|part| matches!(part, Expr::Matrix(_)));
    let mut matrices = factors.iter().filter(is_matrix);
    let mut rows = evaluated(matrices.next()?, budget)?;
    for factor in matrices {
        let right = evaluated(factor, budget)?;
        rows = times(&rows, &right, budget)?;
    }
    let scalars: Vec<Expr> = factors
        .iter()
        .filter(|factor| !is_matrix(factor))
        .cloned()
        .collect();
    if scalars.is_empty() {
        return Some(rows);
    }
    budget.spend(100 * entries(&rows) * scalars.len() as u64)?;
    let scaled = &mut |entry| {
        let factors = scalars.iter().cloned().chain([entry]);
        Expr::Product(factors.collect())
    };
    Some(mapped(rows, scaled))
}

fn times(a: &Rows, b: &Rows, budget: &mut Budget) -> Option<Rows> {
    let (inner, width) = (b.len(), b.first()?.len());
    if a.len().max(inner).max(width) > MOST_ROWS || a.iter().any(|row| row.len() != inner) {
        return None;
    }
    budget.spend(300 * (a.len() * inner * width) as u64)?;
    let entry = |row: &[Expr], column: usize| {
        let products = row.iter().zip(b).filter_map(|(a, below)| {
            let b = below.get(column)?;
            Some(Expr::Product(vec![a.clone(), b.clone()]))
        });
        Expr::Sum(products.collect())
    };
    let row = |row: &Vec<Expr>| (0..width).map(|column| entry(row, column)).collect();
    Some(a.iter().map(row).collect())
}

/// A whole power, or the transpose that `^T` is.
fn power(base: &Expr, exponent: &Expr, budget: &mut Budget) -> Option<Rows> {
    let rows = evaluated(base, budget)?;
    if matches!(exponent, Expr::Symbol(name) if name == "T" || name == "t") {
        let width = rows.first()?.len();
        let column = |at: usize| rows.iter().filter_map(|row| row.get(at).cloned()).collect();
        return Some((0..width).map(column).collect());
    }
    let exponent = exponent.as_integer()?.to_u32()?;
    if !(1..=LARGEST_POWER).contains(&exponent) || rows.len() > 4 {
        return None;
    }
    // Entries grow with every product.
    budget.spend(20_u64.checked_mul(3_u64.checked_pow(exponent)?)? * entries(&rows))?;
    let mut power = rows.clone();
    for _ in 1..exponent {
        power = times(&power, &rows, budget)?;
    }
    Some(power)
}
