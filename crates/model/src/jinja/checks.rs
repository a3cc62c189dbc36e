//! Jinja2's tests: what stands behind `is`.

use super::calls::Given;
use super::expressions::trimmed;
use super::statements::Run;
use super::value::Value;
use super::{Problem, Result, filters};

const NAMES: [&str; 37] = [
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
    "==",
    "!=",
    "<",
    ">",
];

impl Run<'_> {
    /// `value is name(…)`.
    pub(super) fn check(&self, name: &str, value: &Value, given: Given) -> Result<bool> {
        let [other] = given.bind(name, ["other"])?;
        let wanted = || {
            let problem = format!("the test `{name}` wants something to compare with");
            other.as_ref().ok_or_else(|| Problem::new(problem))
        };
        let whole = |value: &Value| match value.as_int() {
            Some(n) => Ok(n),
            None => Err(Problem::new(format!(
                "the test `{name}` wants a whole number, not `{}`",
                value.kind()
            ))),
        };
        let order = |allowed: fn(std::cmp::Ordering) -> bool| {
            let other = wanted()?;
            self.meter.work(value.extent().weight)?;
            let order = value.compare(other);
            let order = order.ok_or_else(|| super::operators::unsupported("<", value, other))?;
            Ok(allowed(order))
        };
        Ok(match name {
            "boolean" => matches!(value, Value::Bool(_)),
            "callable" => matches!(
                value,
                Value::Callable(_) | Value::Loop(_) | Value::Undefined(_)
            ),
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "none" => matches!(value, Value::None),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => value.as_number().is_some(),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "iterable" => value.is_iterable(),
            "sequence" => value.is_iterable(),
            "escaped" => false,
            "even" => whole(value)? % 2 == 0,
            "odd" => whole(value)? % 2 != 0,
            "divisibleby" => match whole(wanted()?)? {
                0 => return Err(Problem::new("division by zero")),
                by => whole(value)? % by == 0,
            },
            "eq" | "equalto" | "==" => self.meter.equal(value, wanted()?)?,
            "ne" | "!=" => !self.meter.equal(value, wanted()?)?,
            "lt" | "lessthan" | "<" => order(std::cmp::Ordering::is_lt)?,
            "le" => order(std::cmp::Ordering::is_le)?,
            "gt" | "greaterthan" | ">" => order(std::cmp::Ordering::is_gt)?,
            "ge" => order(std::cmp::Ordering::is_ge)?,
            "in" => self.contains(wanted()?, value)?,
            "sameas" => {
                let other = wanted()?;
                self.meter.work(value.extent().weight)?;
                value.same_as(other)
            }
            "lower" | "upper" => {
                let text = self.to_text(value)?;
                let lower = name == "lower";
                let has = |wanted: fn(char) -> bool| text.chars().any(wanted);
                match lower {
                    true => has(char::is_lowercase) && !has(char::is_uppercase),
                    false => has(char::is_uppercase) && !has(char::is_lowercase),
                }
            }
            "filter" => value.as_str().is_some_and(filters::is_known),
            "test" => value
                .as_str()
                .is_some_and(|name| NAMES.contains(&trimmed(name))),
            _ => {
                let problem = format!("the test `{name}` is unknown here");
                return Err(Problem::new(problem));
            }
        })
    }
}
