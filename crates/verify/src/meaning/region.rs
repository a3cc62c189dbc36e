//! Intervals of the line, and unions of them.

use super::{MOST_ELEMENTS, Meaning, scalar_accepts};
use crate::budget::Budget;
use crate::expr::{Constant, Expr};
use crate::numeric::Evaluator;

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub(super) ends: [Expr; 2],
    pub(super) closed: [bool; 2],
}

impl Span {
    pub(super) fn same(&self, other: &Self, budget: &mut Budget) -> bool {
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
pub(super) fn one_span(meaning: &Meaning) -> Option<Span> {
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
pub(super) fn union(parts: Vec<Meaning>, budget: &mut Budget) -> Option<Meaning> {
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
