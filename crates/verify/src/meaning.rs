//! What an answer means: a number or formula, a set, a tuple, a region of the line, an equation.

use num_bigint::BigInt;

mod matrix;
mod region;
mod relation;

use crate::budget::Budget;
use crate::expr::{Constant, Expr, Relation};
use crate::parse::LABEL;
use crate::scalar;

use region::{Span, one_span, union};

/// Elements of a set that are compared with one another.
const MOST_ELEMENTS: usize = 128;

/// Values with a name each in one answer.
const MOST_LABELS: usize = 32;

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
    /// Names, each with its value, in the order of the answer.
    Labelled(Vec<(Expr, Meaning)>),
    Ratio(Vec<Expr>),
    /// Whether a value belongs to a set: the value, the set, and whether it does.
    Member(Expr, Expr, bool),
    /// The difference of the sides is zero.
    Equation(Expr),
    /// The difference of the sides is positive, or not negative, or not zero.
    Inequality(Expr, Relation),
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
            Expr::Negative(inner) if !inner.has(|part| matches!(part, Expr::Matrix(_))) => {
                match Self::of(inner, budget)? {
                    Self::Percent(inner) => Self::Percent(negative(inner)),
                    Self::Based(value) => Self::Based(-value),
                    Self::Scalar(inner) => Self::Scalar(negative(inner)),
                    _ => return None,
                }
            }
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
            Expr::Set(items) => {
                let mut elements = Vec::with_capacity(items.len());
                for item in items {
                    match (signs(item, MOST_SIGNS)?, Self::of(item, budget)?) {
                        // Both values of a ± are elements.
                        (Some(_), Self::Set(both)) => elements.extend(both),
                        (_, element) => elements.push(element),
                    }
                }
                Self::Set(elements)
            }
            Expr::Ratio(parts) => Self::Ratio(parts.clone()),
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
            Expr::Relation(sides, relations) => relation::related(sides, relations, budget)?,
            formula if formula.has(|part| matches!(part, Expr::Matrix(_))) => {
                Self::Matrix(matrix::evaluated(formula, budget)?)
            }
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
            (Self::Assigned(a, x), Self::Assigned(b, y))
                if a == b || is_words(a) || is_words(b) =>
            {
                x.accepts(y, budget)
            }
            // `x = 5` and `y = 5` are no forms of one equation.
            (Self::Assigned(_, x), Self::Assigned(..)) if x.is_number() => false,
            (Self::Assigned(..), Self::Assigned(..) | Self::Equation(_))
            | (Self::Equation(_), Self::Assigned(..) | Self::Equation(_)) => {
                match (self.zero(), response.zero()) {
                    (Some(a), Some(b)) => scalar::proportional(&a, &b, budget),
                    _ => false,
                }
            }
            (Self::Labelled(a), Self::Labelled(b)) => same_labelled(a, b, budget),
            // Without names the order says which is which.
            (Self::Labelled(named), Self::Set(plain) | Self::Tuple(plain)) => {
                named.len() == plain.len()
                    && (named.iter().zip(plain)).all(|((_, a), b)| a.accepts(b, budget))
            }
            (Self::Set(plain) | Self::Tuple(plain), Self::Labelled(named)) => {
                named.len() == plain.len()
                    && (named.iter().zip(plain)).all(|((_, b), a)| a.accepts(b, budget))
            }
            (Self::Assigned(_, value), other) => value.accepts(other, budget),
            (other, Self::Assigned(_, value)) => other.accepts(value, budget),
            (Self::Inequality(a, x), Self::Inequality(b, y)) => {
                x == y
                    && (scalar::equal(a, b, budget)
                        || match x {
                            Relation::NotEqual => scalar::proportional(a, b, budget),
                            _ => scalar::same_direction(a, b, budget),
                        })
            }
            (Self::Inequality(a, sign), region @ Self::Region(_)) => {
                relation::solutions(a, *sign, budget)
                    .iter()
                    .any(|solution| solution.accepts(region, budget))
            }
            (region @ Self::Region(_), Self::Inequality(b, sign)) => {
                relation::solutions(b, *sign, budget)
                    .iter()
                    .any(|solution| region.accepts(solution, budget))
            }
            (Self::Ratio(a), Self::Ratio(b)) => same_ratio(a, b, budget),
            (Self::Ratio(parts), Self::Scalar(value))
            | (Self::Scalar(value), Self::Ratio(parts)) => match parts.as_slice() {
                [a, b] if !is_time(parts) => {
                    scalar::equal(&Expr::quotient(a.clone(), b.clone()), value, budget)
                }
                _ => false,
            },
            (Self::Member(a, x, yes), Self::Member(b, y, also)) => {
                yes == also && scalar::equal(a, b, budget) && x == y
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
    scalar::equal(gold, response, budget)
        || scalar::rounds_to(gold, response, budget)
        || scalar::is_rounded(gold, response, budget)
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
    let names = || {
        items.iter().map(|item| match item {
            Meaning::Assigned(name, _) => Some(name),
            _ => None,
        })
    };
    let distinct = |(place, name): (usize, Option<&Expr>)| {
        name.is_some() && names().skip(place + 1).all(|other| other != name)
    };
    if (2..=MOST_LABELS).contains(&items.len()) && names().enumerate().all(distinct) {
        let named = items.into_iter().filter_map(|item| match item {
            Meaning::Assigned(name, value) => Some((name, *value)),
            _ => None,
        });
        return Meaning::Labelled(named.collect());
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

/// Whether a name is words, which may be others for the same value.
fn is_words(name: &Expr) -> bool {
    matches!(name, Expr::Symbol(name) if name.starts_with(LABEL))
}

/// The same value for each name; where one names its values by words, in the same order.
fn same_labelled(a: &[(Expr, Meaning)], b: &[(Expr, Meaning)], budget: &mut Budget) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let find = |name: &Expr| b.iter().find(|(other, _)| other == name);
    let shares_names = a.iter().any(|(name, _)| find(name).is_some());
    let has_words = a.iter().chain(b).any(|(name, _)| is_words(name));
    if !shares_names && has_words {
        return a.iter().zip(b).all(|((_, a), (_, b))| a.accepts(b, budget));
    }
    a.iter()
        .all(|(name, a)| find(name).is_some_and(|(_, b)| a.accepts(b, budget)))
}

/// Whether a ratio may be a time of day, which is no multiple of another one.
fn is_time(parts: &[Expr]) -> bool {
    let within = |part: &Expr, low: i64, high: i64| {
        part.as_integer()
            .is_some_and(|n| (low.into()..=high.into()).contains(n))
    };
    matches!(parts, [hours, minutes] if within(hours, 0, 24) && within(minutes, 10, 59))
}

fn same_ratio(a: &[Expr], b: &[Expr], budget: &mut Budget) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if is_time(a) && is_time(b) {
        return a == b;
    }
    let (Some(first), Some(other)) = (a.first(), b.first()) else {
        return false;
    };
    let product = |a: &Expr, b: &Expr| Expr::Product(vec![a.clone(), b.clone()]);
    a.iter()
        .zip(b)
        .skip(1)
        .all(|(a, b)| scalar::equal(&product(a, other), &product(b, first), budget))
}

/// A point that a list says twice is one point; a number that is said twice may be meant twice.
fn without_repeated_points<'a>(items: &'a [Meaning], budget: &mut Budget) -> Vec<&'a Meaning> {
    let all_points = items.iter().all(|item| matches!(item, Meaning::Tuple(_)));
    let mut kept: Vec<&Meaning> = Vec::with_capacity(items.len());
    for item in items {
        if !all_points || !kept.iter().any(|one| item.accepts(one, budget)) {
            kept.push(item);
        }
    }
    kept
}

fn same_set(a: &[Meaning], b: &[Meaning], budget: &mut Budget) -> bool {
    if a.len().max(b.len()) > MOST_ELEMENTS {
        return false;
    }
    let a = without_repeated_points(a, budget);
    let mut left = without_repeated_points(b, budget);
    if a.len() != left.len() {
        return false;
    }
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
