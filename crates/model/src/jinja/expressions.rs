//! Evaluating expressions.

use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Comparison, Expr, ExprKind};
use super::lexer::is_space;
use super::methods;
use super::scope::Scope;
use super::statements::Run;
use super::value::{Callable, Missing, Text, Value};
use super::{Problem, Result, operators, printing};

impl Run<'_> {
    pub(super) fn expr(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.value_of(expr, scope)
            .map_err(|problem| problem.at(expr.line))
    }

    fn value_of(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.meter.work(1)?;
        // Leaves first: they need no level.
        match &expr.kind {
            ExprKind::None => return Ok(Value::None),
            ExprKind::Bool(b) => return Ok(Value::Bool(*b)),
            ExprKind::Int(n) => return Ok(Value::Int(*n)),
            ExprKind::Float(x) => return Ok(Value::Float(*x)),
            ExprKind::Str(text) => return Ok(Value::Str(Text::constant(text))),
            ExprKind::Name(name) => {
                let found = scope.get(name);
                return Ok(
                    found.unwrap_or_else(|| Value::Undefined(Missing::Name(Arc::clone(name))))
                );
            }
            _ => {}
        }
        let _level = self.meter.deeper()?;
        match &expr.kind {
            ExprKind::List(items) => self.meter.list(self.exprs(items, scope)?),
            ExprKind::Tuple(items) => self.meter.tuple(self.exprs(items, scope)?),
            ExprKind::Dict(entries) => {
                let mut values = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    values.push((self.expr(key, scope)?, self.expr(value, scope)?));
                }
                self.meter.dict(values)
            }
            ExprKind::Attribute(object, name) => self.attribute(&self.expr(object, scope)?, name),
            ExprKind::Item(object, key) => {
                let object = self.expr(object, scope)?;
                self.item(&object, &self.expr(key, scope)?)
            }
            ExprKind::Slice(object, parts) => self.slice(object, parts, scope),
            ExprKind::Call(..) => self.call_with_caller(expr, None, scope),
            ExprKind::Filter(value, filter) => {
                let value = self.expr(value, scope)?;
                self.filter(value, filter, scope)
            }
            ExprKind::Test(value, test) => {
                let value = self.expr(value, scope)?;
                let arguments = self.arguments(&test.arguments, scope)?;
                self.check(&test.name, &value, arguments).map(Value::Bool)
            }
            ExprKind::Not(inner) => Ok(Value::Bool(!self.expr(inner, scope)?.is_true())),
            ExprKind::Negative(inner) => operators::negative(&self.expr(inner, scope)?),
            ExprKind::Positive(inner) => operators::positive(&self.expr(inner, scope)?),
            ExprKind::Chain(first, others) => {
                let mut value = self.expr(first, scope)?;
                for (operator, other) in others {
                    let other = self.expr(other, scope)?;
                    value = self.operate(*operator, &value, &other)?;
                }
                Ok(value)
            }
            ExprKind::Concat(parts) => {
                let mut text = self.meter.buffer();
                for part in parts {
                    printing::print(&self.expr(part, scope)?, &mut text)?;
                }
                text.into_value()
            }
            ExprKind::Compare(first, others) => {
                let mut left = self.expr(first, scope)?;
                for (comparison, right) in others {
                    let right = self.expr(right, scope)?;
                    if !self.compares(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            ExprKind::And(parts) => self.first_where(parts, false, scope),
            ExprKind::Or(parts) => self.first_where(parts, true, scope),
            ExprKind::If {
                condition,
                then,
                otherwise,
            } => match (self.expr(condition, scope)?.is_true(), otherwise) {
                (true, _) => self.expr(then, scope),
                (false, Some(otherwise)) => self.expr(otherwise, scope),
                (false, None) => Ok(Value::Undefined(Missing::Element)),
            },
            // The leaves have returned.
            _ => Ok(Value::None),
        }
    }

    fn exprs(&self, exprs: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.expr(expr, scope)).collect()
    }

    /// The first operand of that truth, which ends `and` and `or`; else the last.
    fn first_where(&self, parts: &[Expr], truth: bool, scope: &Rc<Scope>) -> Result<Value> {
        let mut value = Value::None;
        for part in parts {
            value = self.expr(part, scope)?;
            if value.is_true() == truth {
                break;
            }
        }
        Ok(value)
    }

    fn compares(&self, comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
        match comparison {
            Comparison::Equal => self.meter.equal(left, right),
            Comparison::NotEqual => Ok(!self.meter.equal(left, right)?),
            Comparison::In => self.contains(right, left),
            Comparison::NotIn => Ok(!self.contains(right, left)?),
            _ => {
                self.meter.work(left.extent().weight)?;
                let Some(order) = left.compare(right) else {
                    return Err(operators::unsupported("<", left, right));
                };
                // NaN is neither.
                let is_nan = |value: &Value| matches!(value, Value::Float(x) if x.is_nan());
                if is_nan(left) || is_nan(right) {
                    return Ok(false);
                }
                Ok(match comparison {
                    Comparison::Less => order.is_lt(),
                    Comparison::LessOrEqual => order.is_le(),
                    Comparison::Greater => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
        }
    }

    /// `value in container`.
    pub(super) fn contains(&self, container: &Value, value: &Value) -> Result<bool> {
        match container {
            Value::Undefined(_) => Ok(false),
            Value::Str(text) => match value {
                Value::Str(part) => {
                    self.meter.work(text.len() / 256)?;
                    Ok(text.contains(&**part))
                }
                other => Err(Problem::new(format!(
                    "`in` a text wants a text on its left, not `{}`",
                    other.kind()
                ))),
            },
            Value::List(items) | Value::Tuple(items) => {
                let each = value.extent().weight;
                self.meter.work(items.values.len().saturating_mul(each))?;
                Ok(items.values.contains(value))
            }
            Value::Dict(dict) => {
                self.meter.work(1 + dict.entries.len() / 16)?;
                Ok(dict.get(value).is_some())
            }
            Value::Range(range) => Ok(value.as_int().is_some_and(|n| {
                let inside = if range.step > 0 {
                    n >= range.start && n < range.stop
                } else {
                    n <= range.start && n > range.stop
                };
                inside && (n - range.start) % range.step == 0
            })),
            other => Err(Problem::new(format!(
                "`in` wants a list, a dictionary or a text on its right, not `{}`",
                other.kind()
            ))),
        }
    }

    /// `object.name`: Python's attribute where there is one, else the entry of a dictionary.
    pub(super) fn attribute(&self, object: &Value, name: &Arc<str>) -> Result<Value> {
        if let Value::Undefined(missing) = object {
            return Err(missing.problem());
        }
        if methods::exist(object, name) {
            return Ok(bound(object, name));
        }
        let found = match object {
            Value::Dict(dict) => dict.named(name).cloned(),
            Value::Namespace(namespace) => namespace.get(name),
            Value::Loop(state) => self.loop_attribute(state, name)?,
            Value::Callable(callable) => match &**callable {
                Callable::Macro(number, _) if **name == *"name" => {
                    Some(Value::Str(Text::constant(&self.ast.macros[*number].name)))
                }
                Callable::Cycler(items, at) if **name == *"current" => items.get(at.get()).cloned(),
                _ => None,
            },
            _ => None,
        };
        Ok(found.unwrap_or_else(|| missing(object, name)))
    }

    /// `object[key]`: the entry or element where there is one, else Python's attribute.
    pub(super) fn item(&self, object: &Value, key: &Value) -> Result<Value> {
        let element = match (object, key) {
            (Value::Undefined(missing), _) => return Err(missing.problem()),
            (Value::Dict(dict), key) => dict.get(key).cloned(),
            (Value::List(items) | Value::Tuple(items), key) => key
                .as_int()
                .and_then(|at| place(at, items.values.len()))
                .map(|at| items.values[at].clone()),
            (Value::Range(range), key) => key
                .as_int()
                .and_then(|at| place(at, range.len()))
                .map(|at| range.at(at)),
            (Value::Str(text), key) => match key.as_int() {
                Some(at) => {
                    self.meter.work(text.len() / 256)?;
                    let found = match usize::try_from(at) {
                        Ok(at) => text.chars().nth(at),
                        Err(_) => usize::try_from(-1 - at)
                            .ok()
                            .and_then(|at| text.chars().rev().nth(at)),
                    };
                    found.map(|c| self.meter.text(c.to_string())).transpose()?
                }
                None => None,
            },
            _ => None,
        };
        match (element, key) {
            (Some(element), _) => Ok(element),
            (None, Value::Str(name)) => {
                let name: Arc<str> = (**name).into();
                match object {
                    // Only its methods are left to ask for.
                    Value::Dict(_) if !methods::exist(object, &name) => Ok(missing(object, &name)),
                    _ => self.attribute(object, &name),
                }
            }
            (None, _) => Ok(Value::Undefined(Missing::Element)),
        }
    }

    fn slice(
        &self,
        object: &Expr,
        parts: &[Option<Box<Expr>>; 3],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let object = self.expr(object, scope)?;
        let mut bounds = [None; 3];
        for (bound, part) in bounds.iter_mut().zip(parts) {
            let Some(part) = part else { continue };
            let value = self.expr(part, scope)?;
            *bound = match (&value, value.as_int()) {
                (Value::None, _) => None,
                (_, Some(n)) => Some(n),
                _ => {
                    let problem =
                        format!("a slice counts in whole numbers, not `{}`", value.kind());
                    return Err(Problem::new(problem));
                }
            };
        }
        if bounds[2] == Some(0) {
            return Err(Problem::new("a slice cannot go in steps of 0"));
        }
        match &object {
            Value::Undefined(missing) => Err(missing.problem()),
            Value::Str(text) => {
                self.meter.work(text.len() / 64)?;
                let chars: Vec<char> = text.chars().collect();
                let text: String = sliced(chars.len(), bounds).map(|i| chars[i]).collect();
                self.meter.text(text)
            }
            Value::List(items) => {
                let at = |i: usize| items.values[i].clone();
                self.meter
                    .list(sliced(items.values.len(), bounds).map(at).collect())
            }
            Value::Tuple(items) => {
                let at = |i: usize| items.values[i].clone();
                self.meter
                    .tuple(sliced(items.values.len(), bounds).map(at).collect())
            }
            Value::Range(range) => {
                self.meter.work(range.len())?;
                self.meter
                    .list(sliced(range.len(), bounds).map(|i| range.at(i)).collect())
            }
            other => Ok(Value::Undefined(Missing::Attribute(
                other.kind(),
                "[:]".into(),
            ))),
        }
    }
}

fn bound(object: &Value, name: &Arc<str>) -> Value {
    let method = Callable::Method(object.clone(), Arc::clone(name));
    Value::Callable(Rc::new(method))
}

fn missing(object: &Value, name: &Arc<str>) -> Value {
    Value::Undefined(Missing::Attribute(object.kind(), Arc::clone(name)))
}

/// Python's index, from the end where it is negative.
fn place(at: i128, length: usize) -> Option<usize> {
    let at = if at < 0 { at + length as i128 } else { at };
    usize::try_from(at).ok().filter(|at| *at < length)
}

/// The places that Python's `[start:stop:step]` takes of `length`.
fn sliced(length: usize, [start, stop, step]: [Option<i128>; 3]) -> impl Iterator<Item = usize> {
    let n = length as i128;
    let step = step.unwrap_or(1);
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let bound = |value: Option<i128>, default: i128| match value {
        None => default,
        Some(value) if value < 0 => value.saturating_add(n).clamp(low, high),
        Some(value) => value.clamp(low, high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (mut at, stop) = (bound(start, first), bound(stop, last));
    std::iter::from_fn(move || {
        let inside = if step > 0 { at < stop } else { at > stop };
        let found = inside.then_some(at)?;
        at = at.saturating_add(step);
        usize::try_from(found).ok()
    })
}

/// Python's `str.strip` without an argument.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(is_space)
}
