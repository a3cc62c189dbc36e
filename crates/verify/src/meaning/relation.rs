//! Equations, inequalities, chains of them, and what belongs to a set.

use super::region::Span;
use super::{Meaning, difference, negative};
use crate::budget::Budget;
use crate::expr::{Constant, Expr, Function, Relation};
use crate::numeric::Evaluator;
use crate::parse::LABEL;
use crate::scalar;

/// Variables that an inequality is solved for.
const MOST_VARIABLES: usize = 4;

pub(super) fn related(
    sides: &[Expr],
    relations: &[Relation],
    budget: &mut Budget,
) -> Option<Meaning> {
    let first = sides.first()?;
    let is_equal =
        |relation: &Relation| matches!(relation, Relation::Equal | Relation::Approximate);
    if relations.iter().all(is_equal) {
        // Behind ≈ stand the digits of what was said before, unless that was a name only.
        let exact = relations
            .iter()
            .position(|relation| *relation == Relation::Approximate)
            .filter(|at| sides[..=*at].iter().any(|side| !is_name(side)));
        return match exact {
            Some(0) => Meaning::of(first, budget),
            Some(at) => equation(&sides[..=at], budget),
            None => equation(sides, budget),
        };
    }
    match (sides, relations) {
        ([name, set], [Relation::In]) if is_name(name) => Meaning::of(set, budget),
        ([value, set], [relation @ (Relation::In | Relation::NotIn)]) => {
            let belongs = *relation == Relation::In;
            Some(Meaning::Member(value.clone(), set.clone(), belongs))
        }
        ([left, right], [Relation::NotEqual]) => Some(Meaning::Inequality(
            difference(left, right),
            Relation::NotEqual,
        )),
        ([left, right], [relation]) => inequality(left, right, *relation, budget),
        ([low, middle, high], [left, right]) => chain([low, middle, high], [*left, *right], budget),
        _ => None,
    }
}

/// Sides that are all equal: a name and its value, a calculation with its result, or an equation.
fn equation(sides: &[Expr], budget: &mut Budget) -> Option<Meaning> {
    let (first, last) = (sides.first()?, sides.last()?);
    let assigned = |name: &Expr, value: &Expr, budget: &mut Budget| {
        let value = Box::new(Meaning::of(value, budget)?);
        Some(Meaning::Assigned(name.clone(), value))
    };
    let mut values = sides.iter().filter(|side| !is_name(side));
    if is_name(first) {
        return assigned(first, values.next_back().unwrap_or(last), budget);
    }
    if is_name(last) {
        return assigned(last, values.next_back()?, budget);
    }
    let last_meaning = Meaning::of(last, budget)?;
    match (&last_meaning, Meaning::of(first, budget)?) {
        (Meaning::Scalar(_), Meaning::Scalar(_)) => {
            if scalar::equal(first, last, budget) {
                // A calculation with its result: `2 · 3 = 6`.
                return Some(last_meaning);
            }
            Some(Meaning::Equation(difference(first, last)))
        }
        // A sum of matrices with its result.
        (Meaning::Matrix(_), sum @ Meaning::Matrix(_)) => {
            sum.accepts(&last_meaning, budget).then_some(last_meaning)
        }
        (Meaning::Ratio(_), ratio @ Meaning::Ratio(_)) => {
            ratio.accepts(&last_meaning, budget).then_some(last_meaning)
        }
        _ => None,
    }
}

/// The larger side, the smaller one, and whether they may be equal.
fn ordered<'a>(
    left: &'a Expr,
    right: &'a Expr,
    relation: Relation,
) -> Option<(&'a Expr, &'a Expr, bool)> {
    Some(match relation {
        Relation::Greater => (left, right, false),
        Relation::GreaterOrEqual => (left, right, true),
        Relation::Less => (right, left, false),
        Relation::LessOrEqual => (right, left, true),
        _ => return None,
    })
}

fn inequality(
    left: &Expr,
    right: &Expr,
    relation: Relation,
    budget: &mut Budget,
) -> Option<Meaning> {
    let (larger, smaller, or_equal) = ordered(left, right, relation)?;
    if is_name(larger) && !is_name(smaller) {
        return Some(ray(smaller.clone(), true, or_equal));
    }
    if is_name(smaller) && !is_name(larger) {
        return Some(ray(larger.clone(), false, or_equal));
    }
    let positive = difference(larger, smaller);
    let relation = if or_equal {
        Relation::GreaterOrEqual
    } else {
        Relation::Greater
    };
    if let [name] = variables(&positive).as_slice()
        && let Some(solution) = solved(&positive, name, or_equal, budget)
    {
        return Some(solution);
    }
    Some(Meaning::Inequality(positive, relation))
}

/// All numbers above or below an end.
fn ray(end: Expr, upward: bool, closed: bool) -> Meaning {
    let infinity = Expr::Constant(Constant::Infinity);
    let span = if upward {
        Span {
            ends: [end, infinity],
            closed: [closed, false],
        }
    } else {
        Span {
            ends: [negative(infinity), end],
            closed: [false, closed],
        }
    };
    Meaning::Region(vec![span])
}

/// a < x ≤ b, also with a linear formula of x in the middle.
fn chain(
    [low, middle, high]: [&Expr; 3],
    relations: [Relation; 2],
    budget: &mut Budget,
) -> Option<Meaning> {
    let [left, right] = relations;
    let (above_low, low, low_closed) = ordered(low, middle, left)?;
    let (high, above_middle, high_closed) = ordered(middle, high, right)?;
    let (mut ends, mut closed) = if low == middle || high == middle {
        // Downwards: the first side is the larger one.
        if low != middle || high != middle {
            return None;
        }
        ([above_middle, above_low], [high_closed, low_closed])
    } else {
        if above_low != middle || above_middle != middle {
            return None;
        }
        ([low, high], [low_closed, high_closed])
    };
    if is_name(middle) {
        let ends = ends.map(Expr::clone);
        return Some(Meaning::Region(vec![Span { ends, closed }]));
    }
    let names = variables(middle);
    let [name] = names.as_slice() else {
        return None;
    };
    let (slope, offset) = linear(middle, name, budget)?;
    if sign(&slope, budget)? < 0 {
        ends.reverse();
        closed.reverse();
    }
    let ends = ends.map(|end| Expr::quotient(difference(end, &offset), slope.clone()));
    Some(Meaning::Region(vec![Span { ends, closed }]))
}

/// The regions that an inequality is when it is solved for each of its variables.
pub(super) fn solutions(positive: &Expr, relation: Relation, budget: &mut Budget) -> Vec<Meaning> {
    let or_equal = match relation {
        Relation::Greater => false,
        Relation::GreaterOrEqual => true,
        _ => return Vec::new(),
    };
    variables(positive)
        .iter()
        .take(MOST_VARIABLES)
        .filter_map(|name| solved(positive, name, or_equal, budget))
        .collect()
}

/// Where `positive`, linear in `name`, is positive.
fn solved(positive: &Expr, name: &str, or_equal: bool, budget: &mut Budget) -> Option<Meaning> {
    let (slope, offset) = linear(positive, name, budget)?;
    let upward = sign(&slope, budget)? > 0;
    let end = Expr::quotient(negative(offset), slope);
    Some(ray(end, upward, or_equal))
}

/// The sign of a number; `None` for zero and for what has variables.
fn sign(number: &Expr, budget: &mut Budget) -> Option<i8> {
    if !variables(number).is_empty() {
        return None;
    }
    let sign = Evaluator::new(budget, 0)?.order(number, &Expr::integer(0))?;
    (sign != 0).then_some(sign)
}

/// The names of the variables, each once.
fn variables(expr: &Expr) -> Vec<String> {
    fn collect(expr: &Expr, names: &mut Vec<String>) {
        match expr {
            Expr::Symbol(name) if !names.contains(name) => names.push(name.clone()),
            Expr::Sum(parts) | Expr::Product(parts) | Expr::Call(_, parts) => {
                parts.iter().for_each(|part| collect(part, names));
            }
            Expr::Negative(part) | Expr::Percent(part) | Expr::Degrees(part) => {
                collect(part, names);
            }
            Expr::Quotient(parts) | Expr::Power(parts) | Expr::Root(parts) => {
                parts.iter().for_each(|part| collect(part, names));
            }
            _ => {}
        }
    }
    let mut names = Vec::new();
    collect(expr, &mut names);
    names
}

/// The slope and the offset of a formula that is linear in `name`.
fn linear(expr: &Expr, name: &str, budget: &mut Budget) -> Option<(Expr, Expr)> {
    budget.spend(300)?;
    let holds = |part: &Expr| variables(part).iter().any(|other| other == name);
    if !holds(expr) {
        return Some((Expr::integer(0), expr.clone()));
    }
    match expr {
        Expr::Symbol(_) => Some((Expr::integer(1), Expr::integer(0))),
        Expr::Negative(inner) => {
            let (slope, offset) = linear(inner, name, budget)?;
            Some((negative(slope), negative(offset)))
        }
        Expr::Sum(terms) => {
            let (mut slopes, mut offsets) = (Vec::new(), Vec::new());
            for term in terms {
                let (slope, offset) = linear(term, name, budget)?;
                slopes.push(slope);
                offsets.push(offset);
            }
            Some((Expr::Sum(slopes), Expr::Sum(offsets)))
        }
        Expr::Product(factors) => {
            let at = factors.iter().position(holds)?;
            if factors.iter().skip(at + 1).any(holds) {
                return None;
            }
            let (slope, offset) = linear(&factors[at], name, budget)?;
            let with = |part: Expr| {
                let mut factors = factors.clone();
                factors[at] = part;
                Expr::Product(factors)
            };
            Some((with(slope), with(offset)))
        }
        Expr::Quotient(parts) if !holds(&parts[1]) => {
            let (slope, offset) = linear(&parts[0], name, budget)?;
            let over = |part: Expr| Expr::quotient(part, parts[1].clone());
            Some((over(slope), over(offset)))
        }
        _ => None,
    }
}

/// What stands for a value: `x`, `x_1`, `(x, y)`, `f(x)`, `f(3)`, a segment `AB`, words, and ratios
/// of such.
pub(super) fn is_name(expr: &Expr) -> bool {
    let is_symbol = |expr: &Expr| matches!(expr, Expr::Symbol(_));
    match expr {
        Expr::Symbol(_) => true,
        Expr::Tuple(items) => items.iter().all(is_symbol),
        Expr::Ratio(parts) => parts.iter().all(is_name),
        Expr::Call(Function::Abs, parts) => parts.iter().all(is_segment),
        Expr::Product(factors) => match factors.as_slice() {
            [Expr::Symbol(f), Expr::Symbol(_) | Expr::Number(_)] if is_function(f) => true,
            _ => is_segment(expr),
        },
        _ => false,
    }
}

fn is_function(name: &str) -> bool {
    ["f", "g", "h", "p", "q", "P", "Q", "F", "G"].contains(&name)
}

/// Two to four points: `AB`, `ABC`.
fn is_segment(expr: &Expr) -> bool {
    let is_point = |expr: &Expr| {
        matches!(expr, Expr::Symbol(name)
            if name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.starts_with(LABEL))
    };
    match expr {
        Expr::Product(points) => (2..=4).contains(&points.len()) && points.iter().all(is_point),
        _ => false,
    }
}
