//! Python's arithmetic.

use super::ast::Operator;
use super::statements::Run;
use super::value::{Items, Value};
use super::{Problem, Result};

impl Run<'_> {
    pub(super) fn operate(&self, operator: Operator, a: &Value, b: &Value) -> Result<Value> {
        for value in [a, b] {
            if let Value::Undefined(missing) = value {
                return Err(missing.problem());
            }
        }
        match (operator, a, b) {
            (Operator::Add, Value::Str(a), Value::Str(b)) => {
                let mut text = self.meter.buffer();
                text.push(a)?;
                text.push(b)?;
                text.into_value()
            }
            (Operator::Add, Value::List(a), Value::List(b)) => self.meter.list(self.joined(a, b)?),
            (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => {
                self.meter.tuple(self.joined(a, b)?)
            }
            (Operator::Multiply, Value::Str(_) | Value::List(_) | Value::Tuple(_), b) => {
                self.repeated(a, b)
            }
            (Operator::Multiply, a, Value::Str(_) | Value::List(_) | Value::Tuple(_)) => {
                self.repeated(b, a)
            }
            (Operator::Remainder, Value::Str(format), values) => {
                super::formatting::percent(self, format, values)
            }
            _ => number(operator, a, b),
        }
    }

    fn joined(&self, a: &Items, b: &Items) -> Result<Vec<Value>> {
        let n = a.values.len() + b.values.len();
        self.meter.room(0, n * size_of::<Value>())?;
        Ok(a.values.iter().chain(&b.values).cloned().collect())
    }

    fn repeated(&self, value: &Value, times: &Value) -> Result<Value> {
        let Some(times) = times.as_int() else {
            return Err(unsupported("*", value, times));
        };
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        match value {
            Value::Str(text) => {
                self.meter.room(0, text.len().saturating_mul(times))?;
                self.meter.text(text.repeat(times))
            }
            Value::List(items) | Value::Tuple(items) => {
                let n = items.values.len().saturating_mul(times);
                self.meter.room(0, n.saturating_mul(size_of::<Value>()))?;
                self.meter.work(n)?;
                let values = items.values.iter().cycle().take(n).cloned().collect();
                match value {
                    Value::Tuple(_) => self.meter.tuple(values),
                    _ => self.meter.list(values),
                }
            }
            other => Ok(other.clone()),
        }
    }
}

fn number(operator: Operator, a: &Value, b: &Value) -> Result<Value> {
    let symbol = match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Remainder => "%",
        Operator::Power => "**",
    };
    let (Some(x), Some(y)) = (a.as_number(), b.as_number()) else {
        return Err(unsupported(symbol, a, b));
    };
    let divides = matches!(
        operator,
        Operator::Divide | Operator::FloorDivide | Operator::Remainder
    );
    if divides && y == 0.0 {
        return Err(Problem::new("division by zero"));
    }
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int()) {
        let whole = match operator {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide => return Ok(Value::Float(x / y)),
            // Python rounds towards minus infinity; the remainder has the divisor's sign.
            Operator::FloorDivide => a.checked_div(b).map(|q| {
                if a % b != 0 && (a < 0) != (b < 0) {
                    q - 1
                } else {
                    q
                }
            }),
            Operator::Remainder => a.checked_rem(b).map(|r| {
                if r != 0 && (r < 0) != (b < 0) {
                    r + b
                } else {
                    r
                }
            }),
            Operator::Power if b < 0 => return Ok(Value::Float(x.powf(y))),
            Operator::Power => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        };
        return whole
            .map(Value::Int)
            .ok_or_else(|| Problem::new("makes a whole number of more than 128 bits"));
    }
    Ok(Value::Float(match operator {
        Operator::Add => x + y,
        Operator::Subtract => x - y,
        Operator::Multiply => x * y,
        Operator::Divide => x / y,
        Operator::FloorDivide => (x / y).floor(),
        Operator::Remainder => {
            let rest = x % y;
            if rest != 0.0 && (rest < 0.0) != (y < 0.0) {
                rest + y
            } else {
                rest
            }
        }
        Operator::Power => x.powf(y),
    }))
}

pub(super) fn negative(value: &Value) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Float(x), _) => Ok(Value::Float(-x)),
        (_, Some(n)) => n
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| Problem::new("makes a whole number of more than 128 bits")),
        _ => Err(no_number("-", value)),
    }
}

pub(super) fn positive(value: &Value) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Float(_), _) => Ok(value.clone()),
        (_, Some(n)) => Ok(Value::Int(n)),
        _ => Err(no_number("+", value)),
    }
}

fn no_number(symbol: &str, value: &Value) -> Problem {
    match value {
        Value::Undefined(missing) => missing.problem(),
        _ => Problem::new(format!("`{symbol}` wants a number, not `{}`", value.kind())),
    }
}

/// Python's TypeError of an operator.
pub(super) fn unsupported(symbol: &str, a: &Value, b: &Value) -> Problem {
    for value in [a, b] {
        if let Value::Undefined(missing) = value {
            return missing.problem();
        }
    }
    Problem::new(format!(
        "`{symbol}` does not go with `{}` and `{}`",
        a.kind(),
        b.kind()
    ))
}
