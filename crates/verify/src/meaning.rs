//! What an answer means: a number or formula, a set, a tuple, a region of the line, an equation.

use num_bigint::BigInt;

use crate::budget::Budget;
use crate::expr::{Constant, Expr, Relation};
use crate::numeric::Evaluator;
use crate::scalar;

/// Elements of a set that are compared with one another.
const MOST_ELEMENTS: usize = 128;

/// Signs of ± in one answer.
const MOST_SIGNS: usize = 4;

#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    Scalar(Expr),
    /// The number in front of the sign.
    Percent(Expr),
    Based(BigInt),
    /// In no order.
    Set(Vec<Meaning>),
    Tuple(Vec<Meaning>),
    /// Intervals, from left to right and apart.
    Region(Vec<Span>),
    Matrix(Vec<Vec<Expr>>),
    /// A name and its value.
    Assigned(Expr, Box<Meaning>),
    /// The difference of the sides is zero.
    Equation(Expr),
    /// The difference of the sides is positive, or not negative, or not zero.
    Inequality(Expr, Relation),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    ends: [Expr; 2],
    closed: [bool; 2],
}

impl Meaning {
    /// `None` where the parts make no sense together.
    pub fn of(expr: &Expr, budget: &mut Budget) -> Option<Self> {
        if let Some([plus, minus]) = signs(expr, MOST_SIGNS)? {
            let both = [Self::of(&plus, budget)?, Self::of(&minus, budget)?];
            return Some(alternatives(both.to_vec(), budget));
        }
        Some(match expr {
            Expr::Percent(inner) => Self::Percent((**inner).clone()),
            Expr::Degrees(inner) => Self::Scalar((**inner).clone()),
            Expr::Based { value, .. } => Self::Based(value.clone()),
            Expr::Negative(inner) => match Self::of(inner, budget)? {
                Self::Percent(inner) => Self::Percent(negative(inner)),
                Self::Based(value) => Self::Based(-value),
                Self::Scalar(inner) => Self::Scalar(negative(inner)),
                _ => return None,
            },
            Expr::Constant(Constant::EmptySet) => Self::Set(Vec::new()),
            Expr::Constant(Constant::Reals) => {
                let infinity = Expr::Constant(Constant::Infinity);
                let ends = [negative(infinity.clone()), infinity];
                Self::Region(vec![Span {
                    ends,
                    closed: [false; 2],
                }])
            }
            Expr::List(items) => alternatives(all(items, budget)?, budget),
            Expr::Set(items) => Self::Set(all(items, budget)?),
            Expr::Tuple(items) => Self::Tuple(all(items, budget)?),
            Expr::Interval { ends, closed } => {
                let ends = ends.as_ref().clone();
                Self::Region(vec![Span {
                    ends,
                    closed: *closed,
                }])
            }
            Expr::Union(parts) => union(all(parts, budget)?, budget)?,
            Expr::Matrix(rows) => Self::Matrix(rows.clone()),
            Expr::Relation(sides, relations) => related(sides, relations, budget)?,
            scalar => Self::Scalar(scalar.clone()),
        })
    }

    /// Whether the response means what the gold answer does. Only a gold decimal is not
    /// exchangeable with the response: see [`scalar::rounds_to`].
    pub fn accepts(&self, response: &Self, budget: &mut Budget) -> bool {
        if budget.spend(200).is_none() {
            return false;
        }
        match (self, response) {
            (Self::Assigned(a, x), Self::Assigned(b, y)) if a == b => x.accepts(y, budget),
            // `x = 5` and `y = 5` are no forms of one equation.
            (Self::Assigned(_, x), Self::Assigned(..)) if x.is_number() => false,
            (Self::Assigned(..), Self::Assigned(..) | Self::Equation(_))
            | (Self::Equation(_), Self::Assigned(..) | Self::Equation(_)) => {
                match (self.zero(), response.zero()) {
                    (Some(a), Some(b)) => scalar::proportional(&a, &b, budget),
                    _ => false,
                }
            }
            (Self::Assigned(_, value), other) => value.accepts(other, budget),
            (other, Self::Assigned(_, value)) => other.accepts(value, budget),
            (Self::Inequality(a, x), Self::Inequality(b, y)) => {
                x == y && scalar::equal(a, b, budget)
            }
            (Self::Percent(a), Self::Percent(b)) => scalar_accepts(a, b, budget),
            (Self::Percent(a), Self::Scalar(b)) | (Self::Scalar(b), Self::Percent(a)) => {
                scalar::equal(a, b, budget)
                    || scalar::equal(&Expr::Percent(Box::new(a.clone())), b, budget)
            }
            (Self::Based(a), Self::Based(b)) => a == b,
            (Self::Scalar(a), Self::Scalar(b)) => scalar_accepts(a, b, budget),
            (Self::Set(a), Self::Set(b)) => same_set(a, b, budget),
            (Self::Set(one), other) if one.len() == 1 => {
                one.iter().all(|one| one.accepts(other, budget))
            }
            (other, Self::Set(one)) if one.len() == 1 => {
                one.iter().all(|one| other.accepts(one, budget))
            }
            (Self::Tuple(a), Self::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.accepts(b, budget))
            }
            (Self::Region(a), Self::Region(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b, budget))
            }
            // (a, b) may be a point or an interval; what it is compared with says which.
            (Self::Region(a), Self::Tuple(_)) => {
                one_span(response).is_some_and(|b| a.len() == 1 && a[0].same(&b, budget))
            }
            (Self::Tuple(_), Self::Region(b)) => {
                one_span(self).is_some_and(|a| b.len() == 1 && a.same(&b[0], budget))
            }
            (Self::Matrix(a), Self::Matrix(b)) => {
                let same_rows = |(a, b): (&Vec<Expr>, &Vec<Expr>)| {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| scalar::equal(a, b, budget))
                };
                a.len() == b.len() && a.iter().zip(b).all(same_rows)
            }
            (Self::Matrix(rows), Self::Tuple(items)) | (Self::Tuple(items), Self::Matrix(rows)) => {
                is_vector(rows, items, budget)
            }
            _ => false,
        }
    }

    /// What an equation says is zero.
    fn zero(&self) -> Option<Expr> {
        match self {
            Self::Equation(zero) => Some(zero.clone()),
            Self::Assigned(name, value) => match value.as_ref() {
                Self::Scalar(value) => Some(difference(name, value)),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Scalar(Expr::Number(_) | Expr::Decimal { .. }))
    }
}

fn scalar_accepts(gold: &Expr, response: &Expr, budget: &mut Budget) -> bool {
    scalar::equal(gold, response, budget) || scalar::rounds_to(gold, response, budget)
}

fn all(items: &[Expr], budget: &mut Budget) -> Option<Vec<Meaning>> {
    items.iter().map(|item| Meaning::of(item, budget)).collect()
}

fn negative(expr: Expr) -> Expr {
    Expr::Negative(Box::new(expr))
}

fn difference(left: &Expr, right: &Expr) -> Expr {
    Expr::Sum(vec![left.clone(), negative(right.clone())])
}

/// Several answers: the values of one name, regions that are joined, or a set.
fn alternatives(items: Vec<Meaning>, budget: &mut Budget) -> Meaning {
    let mut values = Vec::with_capacity(items.len());
    let mut names = items.iter().map(|item| match item {
        Meaning::Assigned(name, _) => Some(name.clone()),
        _ => None,
    });
    let name = names.next().flatten();
    let one_name = name.is_some() && names.all(|other| other == name);
    if items.iter().all(|item| matches!(item, Meaning::Region(_)))
        && let Some(region) = union(items.clone(), budget)
    {
        return region;
    }
    for (place, item) in items.into_iter().enumerate() {
        match item {
            Meaning::Set(inner) => values.extend(inner),
            // `x = 1, 2` and `x = 1, x = 2`
            Meaning::Assigned(_, value) if one_name || place == 0 => match *value {
                Meaning::Set(inner) => values.extend(inner),
                value => values.push(value),
            },
            other => values.push(other),
        }
    }
    Meaning::Set(values)
}

fn related(sides: &[Expr], relations: &[Relation], budget: &mut Budget) -> Option<Meaning> {
    let (first, last) = (sides.first()?, sides.last()?);
    if relations
        .iter()
        .all(|relation| *relation == Relation::Equal)
    {
        if is_name(first) {
            return Some(Meaning::Assigned(
                first.clone(),
                Box::new(Meaning::of(last, budget)?),
            ));
        }
        let last_meaning = Meaning::of(last, budget)?;
        return match (&last_meaning, Meaning::of(first, budget)?) {
            (Meaning::Scalar(value), Meaning::Scalar(_)) => {
                if is_name(value) && sides.len() == 2 {
                    return Some(Meaning::Assigned(
                        value.clone(),
                        Box::new(Meaning::Scalar(first.clone())),
                    ));
                }
                if scalar::equal(first, last, budget) {
                    // A calculation with its result: `2 · 3 = 6`.
                    return Some(last_meaning);
                }
                Some(Meaning::Equation(difference(first, last)))
            }
            _ => None,
        };
    }
    match (sides, relations) {
        ([_, set], [Relation::In]) => Meaning::of(set, budget),
        ([left, right], [relation]) => {
            let (larger, smaller, strict) = match relation {
                Relation::Greater => (left, right, true),
                Relation::GreaterOrEqual => (left, right, false),
                Relation::Less => (right, left, true),
                Relation::LessOrEqual => (right, left, false),
                Relation::NotEqual => {
                    return Some(Meaning::Inequality(
                        difference(left, right),
                        Relation::NotEqual,
                    ));
                }
                _ => return None,
            };
            let infinity = || Expr::Constant(Constant::Infinity);
            let ray = |ends: [Expr; 2], closed: [bool; 2]| {
                Some(Meaning::Region(vec![Span { ends, closed }]))
            };
            if is_name(larger) && !is_name(smaller) {
                return ray([smaller.clone(), infinity()], [!strict, false]);
            }
            if is_name(smaller) && !is_name(larger) {
                return ray([negative(infinity()), larger.clone()], [false, !strict]);
            }
            let relation = if strict {
                Relation::Greater
            } else {
                Relation::GreaterOrEqual
            };
            Some(Meaning::Inequality(difference(larger, smaller), relation))
        }
        // a < x ≤ b
        ([low, name, high], [left, right]) if is_name(name) => {
            let upward = |relation: &Relation| match relation {
                Relation::Less => Some(false),
                Relation::LessOrEqual => Some(true),
                _ => None,
            };
            let downward = |relation: &Relation| match relation {
                Relation::Greater => Some(false),
                Relation::GreaterOrEqual => Some(true),
                _ => None,
            };
            let span = match (upward(left), upward(right), downward(left), downward(right)) {
                (Some(a), Some(b), _, _) => Span {
                    ends: [low.clone(), high.clone()],
                    closed: [a, b],
                },
                (_, _, Some(a), Some(b)) => Span {
                    ends: [high.clone(), low.clone()],
                    closed: [b, a],
                },
                _ => return None,
            };
            Some(Meaning::Region(vec![span]))
        }
        _ => None,
    }
}

/// A variable, several in brackets, or a function of one: `x`, `x_1`, `(x, y)`, `f(x)`.
fn is_name(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(_) => true,
        Expr::Tuple(items) => items.iter().all(|item| matches!(item, Expr::Symbol(_))),
        Expr::Product(factors) => {
            matches!(factors.as_slice(), [Expr::Symbol(f), Expr::Symbol(_)] if ["f", "g", "h", "p", "q", "P", "Q", "F", "G"].contains(&f.as_str()))
        }
        _ => false,
    }
}

impl Span {
    fn same(&self, other: &Self, budget: &mut Budget) -> bool {
        let [a, b] = &self.ends;
        let [c, d] = &other.ends;
        // Infinity belongs to no interval, whatever its bracket says.
        let closed = |span: &Self| [0, 1].map(|at| span.closed[at] && !is_infinite(&span.ends[at]));
        closed(self) == closed(other)
            && scalar_accepts(a, c, budget)
            && scalar_accepts(b, d, budget)
    }
}

fn is_infinite(expr: &Expr) -> bool {
    match expr {
        Expr::Constant(Constant::Infinity) => true,
        Expr::Negative(inner) => is_infinite(inner),
        _ => false,
    }
}

/// The interval that a pair is.
fn one_span(meaning: &Meaning) -> Option<Span> {
    match meaning {
        Meaning::Tuple(items) => match items.as_slice() {
            [Meaning::Scalar(low), Meaning::Scalar(high)] => {
                let ends = [low.clone(), high.clone()];
                Some(Span {
                    ends,
                    closed: [false; 2],
                })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Intervals and single points, sorted, and joined where they touch.
fn union(parts: Vec<Meaning>, budget: &mut Budget) -> Option<Meaning> {
    if parts.iter().all(|part| matches!(part, Meaning::Set(_))) {
        let elements = parts.into_iter().flat_map(|part| match part {
            Meaning::Set(items) => items,
            _ => Vec::new(),
        });
        return Some(Meaning::Set(elements.collect()));
    }
    let mut spans = Vec::new();
    for part in parts {
        match part {
            Meaning::Region(more) => spans.extend(more),
            Meaning::Set(points) => {
                for point in points {
                    let Meaning::Scalar(point) = point else {
                        return None;
                    };
                    spans.push(Span {
                        ends: [point.clone(), point],
                        closed: [true; 2],
                    });
                }
            }
            pair => spans.push(one_span(&pair)?),
        }
    }
    if spans.len() > MOST_ELEMENTS {
        return None;
    }
    let mut sorted: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        let mut place = sorted.len();
        while place > 0 && before(&span.ends[0], &sorted[place - 1].ends[0], budget)? {
            place -= 1;
        }
        sorted.insert(place, span);
    }
    let mut joined: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        if let Some(last) = joined.last_mut()
            && !before(&last.ends[1], &span.ends[0], budget)?
        {
            let touching = !before(&span.ends[0], &last.ends[1], budget)?;
            if !touching || last.closed[1] || span.closed[0] {
                if before(&last.ends[1], &span.ends[1], budget)? {
                    (last.ends[1], last.closed[1]) = (span.ends[1].clone(), span.closed[1]);
                } else if touching {
                    last.closed[1] |= span.closed[1];
                }
                continue;
            }
        }
        joined.push(span);
    }
    Some(Meaning::Region(joined))
}

/// Whether one end lies left of the other.
fn before(a: &Expr, b: &Expr, budget: &mut Budget) -> Option<bool> {
    let infinity = |expr: &Expr| match expr {
        Expr::Constant(Constant::Infinity) => 1,
        Expr::Negative(inner) if is_infinite(inner) => -1,
        _ => 0,
    };
    match (infinity(a), infinity(b)) {
        (0, 0) => Some(Evaluator::new(budget, 0)?.order(a, b)? < 0),
        (a, b) => Some(a < b),
    }
}

fn same_set(a: &[Meaning], b: &[Meaning], budget: &mut Budget) -> bool {
    if a.len() != b.len() || a.len() > MOST_ELEMENTS {
        return false;
    }
    let mut left: Vec<&Meaning> = b.iter().collect();
    a.iter()
        .all(|a| match left.iter().position(|b| a.accepts(b, budget)) {
            Some(at) => {
                left.swap_remove(at);
                true
            }
            None => false,
        })
}

/// A row or a column with the entries of a tuple.
fn is_vector(rows: &[Vec<Expr>], items: &[Meaning], budget: &mut Budget) -> bool {
    let one_column = rows.iter().all(|row| row.len() == 1);
    if !one_column && rows.len() != 1 {
        return false;
    }
    let entries: Vec<&Expr> = rows.iter().flatten().collect();
    entries.len() == items.len()
        && entries.iter().zip(items).all(|(entry, item)| matches!(item, Meaning::Scalar(item) if scalar::equal(entry, item, budget)))
}

/// The answer with every ± as plus, and with every ± as minus; `None` inside when it has none, and
/// altogether when it has too many.
fn signs(expr: &Expr, most: usize) -> Option<Option<[Expr; 2]>> {
    let mut n_signs = 0;
    let plus = with_sign(expr, true, &mut n_signs);
    match n_signs {
        0 => Some(None),
        n if n <= most => Some(Some([plus, with_sign(expr, false, &mut n_signs)])),
        _ => None,
    }
}

fn with_sign(expr: &Expr, plus: bool, n_signs: &mut usize) -> Expr {
    let mut inner = |expr: &Expr| with_sign(expr, plus, n_signs);
    let pair = |parts: &[Expr; 2], inner: &mut dyn FnMut(&Expr) -> Expr| {
        Box::new([inner(&parts[0]), inner(&parts[1])])
    };
    match expr {
        Expr::PlusMinus { terms, minus_first } => {
            let [a, b] = [inner(&terms[0]), inner(&terms[1])];
            *n_signs += 1;
            let b = if plus != *minus_first { b } else { negative(b) };
            match a {
                Expr::Number(zero) if zero == num_traits::Zero::zero() => b,
                a => Expr::Sum(vec![a, b]),
            }
        }
        Expr::Sum(parts) => Expr::Sum(parts.iter().map(inner).collect()),
        Expr::Product(parts) => Expr::Product(parts.iter().map(inner).collect()),
        Expr::Call(function, parts) => Expr::Call(*function, parts.iter().map(inner).collect()),
        Expr::Negative(part) => negative(inner(part)),
        Expr::Percent(part) => Expr::Percent(Box::new(inner(part))),
        Expr::Degrees(part) => Expr::Degrees(Box::new(inner(part))),
        Expr::Quotient(parts) => Expr::Quotient(pair(parts, &mut inner)),
        Expr::Power(parts) => Expr::Power(pair(parts, &mut inner)),
        Expr::Root(parts) => Expr::Root(pair(parts, &mut inner)),
        // Within lists and tuples each item has its own signs.
        other => other.clone(),
    }
}
