//! Equality of two numbers or formulas.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use crate::budget::Budget;
use crate::exact::Exact;
use crate::expr::{Constant, Expr};
use crate::numeric::{Evaluator, Value};

/// Points at which formulas are evaluated; of these so many must have a value.
const POINTS: u64 = 4;
const DEFINED: u32 = 2;

/// Significant digits from which a decimal may stand for the exact value that it is rounded from,
/// and those from which its last digit may be one off, as it is where a machine cut it.
const SIGNIFICANT: usize = 4;
const LONG: usize = 10;
const DOUBLE: usize = 16;

/// Decimal places from which a gold decimal is taken for rounded.
const ROUNDED: u32 = 2;

/// Whether two formulas have the same value: exactly where they are quotients of polynomials in
/// their variables, π, e, i and roots, else at [`POINTS`] points with positive coordinates.
pub fn equal(a: &Expr, b: &Expr, budget: &mut Budget) -> bool {
    if a == b {
        return true;
    }
    if let (Expr::Constant(Constant::Infinity), _) | (_, Expr::Constant(Constant::Infinity)) =
        (a, b)
    {
        return false;
    }
    if let (Some(x), Some(y)) = (Exact::of(a, budget), Exact::of(b, budget))
        && let Some(equal) = x.equals(&y, budget)
    {
        return equal;
    }
    at_points(a, b, budget, |evaluator, x, y, _| evaluator.same(x, y)) == Some(true)
}

/// Whether one formula is a constant, not zero, times the other.
pub fn proportional(a: &Expr, b: &Expr, budget: &mut Budget) -> bool {
    if let (Some(x), Some(y)) = (Exact::of(a, budget), Exact::of(b, budget))
        && let Some(multiple) = x.is_multiple(&y, budget)
    {
        return multiple;
    }
    // a(p)·b(first) = b(p)·a(first)
    at_points(a, b, budget, |evaluator, x, y, first| {
        let Some((a, b)) = first else {
            return Some(true);
        };
        let (left, right) = (evaluator.product(x, b)?, evaluator.product(y, a)?);
        evaluator.same(&left, &right)
    }) == Some(true)
}

/// Whether one formula is a positive constant times the other.
pub fn same_direction(a: &Expr, b: &Expr, budget: &mut Budget) -> bool {
    if !proportional(a, b, budget) {
        return false;
    }
    let Some(mut evaluator) = Evaluator::new(budget, 0) else {
        return false;
    };
    let mut sign = |expr: &Expr| evaluator.order(expr, &Expr::integer(0));
    matches!((sign(a), sign(b)), (Some(a), Some(b)) if a == b && a != 0)
}

/// Compares at every point where both have a value; `None` where they have too rarely, or where
/// only one of them has.
fn at_points(
    a: &Expr,
    b: &Expr,
    budget: &mut Budget,
    same: impl Fn(&mut Evaluator<'_>, &Value, &Value, Option<&(Value, Value)>) -> Option<bool>,
) -> Option<bool> {
    let (mut defined, mut first) = (0, None);
    let is_constant = !has_variable(a) && !has_variable(b);
    for point in 0..POINTS {
        let mut evaluator = Evaluator::new(budget, point)?;
        match (evaluator.evaluate(a), evaluator.evaluate(b)) {
            (Some(x), Some(y)) => {
                if !same(&mut evaluator, &x, &y, first.as_ref())? {
                    return Some(false);
                }
                defined += 1;
                if is_constant {
                    return Some(true);
                }
                first.get_or_insert((x, y));
            }
            (None, None) => {}
            _ => return None,
        }
    }
    (defined >= DEFINED).then_some(true)
}

fn has_variable(expr: &Expr) -> bool {
    expr.has(|part| matches!(part, Expr::Symbol(_)))
}

/// Whether `value`, written without a point, rounds to a gold decimal of at least two places:
/// gold 3.14 accepts π and 22/7, but no decimal other than 3.14, and gold 0.12 does not accept
/// 1/8, which could have been written out.
pub fn rounds_to(gold: &Expr, value: &Expr, budget: &mut Budget) -> bool {
    let (digits, places) = match gold {
        Expr::Decimal { value, places } => (value.clone(), *places),
        Expr::Negative(inner) => match inner.as_ref() {
            Expr::Decimal { value, places } => (-value, *places),
            _ => return false,
        },
        _ => return false,
    };
    if places < ROUNDED || value.has(|part| matches!(part, Expr::Decimal { .. })) {
        return false;
    }
    let half = BigRational::new(
        BigInt::from(1),
        BigInt::from(2) * BigInt::from(10).pow(places.min(64)),
    );
    if let Some(exact) = Exact::of(value, budget).and_then(|exact| exact.as_rational()) {
        return !is_terminating(&exact) && (exact - digits).abs() <= half;
    }
    let difference = Expr::Sum(vec![
        value.clone(),
        Expr::Negative(Box::new(Expr::Number(digits))),
    ]);
    let Some(mut evaluator) = Evaluator::new(budget, 0) else {
        return false;
    };
    !has_variable(value) && evaluator.is_within(&difference, &half) == Some(true)
}

/// Whether `decimal` is `exact` rounded at its last place, with four significant digits or more:
/// 0.3333 is a third, 0.333 is not, and neither is 0.3334. What a decimal can say exactly has to
/// be said exactly.
pub fn is_rounded(exact: &Expr, decimal: &Expr, budget: &mut Budget) -> bool {
    let (digits, places) = match decimal {
        Expr::Decimal { value, places } => (value.clone(), *places),
        Expr::Negative(inner) => match inner.as_ref() {
            Expr::Decimal { value, places } => (-value, *places),
            _ => return false,
        },
        _ => return false,
    };
    if exact.has(|part| matches!(part, Expr::Decimal { .. })) || has_variable(exact) {
        return false;
    }
    let unit = BigRational::new(BigInt::one(), BigInt::from(10).pow(places.min(1024)));
    let significant = (&digits / &unit).to_integer().abs().to_string().len();
    if significant < SIGNIFICANT || digits.is_zero() {
        return false;
    }
    let bound = match significant {
        // The last digits of a machine's numbers are noise.
        DOUBLE.. => unit * BigInt::from(5),
        LONG.. => unit,
        _ => unit / BigInt::from(2),
    };
    if let Some(value) = Exact::of(exact, budget).and_then(|exact| exact.as_rational()) {
        return !is_terminating(&value) && (value - digits).abs() <= bound;
    }
    let difference = Expr::Sum(vec![
        exact.clone(),
        Expr::Negative(Box::new(Expr::Number(digits))),
    ]);
    Evaluator::new(budget, 0)
        .is_some_and(|mut evaluator| evaluator.is_within(&difference, &bound) == Some(true))
}

/// Whether a decimal can say the number exactly.
fn is_terminating(value: &BigRational) -> bool {
    let mut left = value.denom().clone();
    for prime in [2, 5] {
        let prime = BigInt::from(prime);
        // Each division takes a bit at least.
        while (&left % &prime).is_zero() {
            left /= &prime;
        }
    }
    left.is_one()
}
