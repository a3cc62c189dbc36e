//! The functions that transformers gives a template.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use chrono::DateTime;

use super::calls::Given;
use super::statements::Run;
use super::value::{Callable, Function, Namespace, Range, Value};
use super::{Problem, Result};

/// Jinja2's sandbox refuses longer ones, too.
const MAX_RANGE: usize = 100_000;

impl Run<'_> {
    pub(super) fn function(&self, function: Function, given: Given) -> Result<Value> {
        match function {
            Function::Range => range(given),
            Function::Dict => self.meter.dict(self.entries(given)?),
            Function::Namespace => self.namespace(given),
            Function::Cycler => {
                given.no_more("cycler")?;
                if given.positional.is_empty() {
                    return Err(Problem::new("`cycler` wants at least one value"));
                }
                let cycler = Callable::Cycler(given.positional, Cell::new(0));
                Ok(Value::Callable(Rc::new(cycler)))
            }
            Function::Joiner => {
                let [separator] = given.bind("joiner", ["sep"])?;
                let separator = separator.map_or_else(|| self.meter.text(", "), Ok)?;
                let joiner = Callable::Joiner(separator, Cell::new(false));
                Ok(Value::Callable(Rc::new(joiner)))
            }
            Function::RaiseException => {
                let [message] = given.bind("raise_exception", ["message"])?;
                let mut text = self.meter.buffer();
                super::printing::print(&message.unwrap_or(Value::None), &mut text)?;
                Err(Problem::new(text.into_string()))
            }
            Function::StrftimeNow => {
                let [format] = given.bind("strftime_now", ["format"])?;
                match format.as_ref().and_then(Value::as_str) {
                    Some(format) => self.meter.text(strftime(format, self.now)?),
                    None => Err(Problem::new("`strftime_now` wants a format")),
                }
            }
        }
    }

    /// The entries of `dict(…)`: another dictionary's, or pairs, and the named arguments.
    fn entries(&self, given: Given) -> Result<Vec<(Value, Value)>> {
        let mut entries = match given.positional.as_slice() {
            [] => Vec::new(),
            [Value::Dict(dict)] => dict.entries.clone(),
            [pairs] => pairs
                .elements(&self.meter)?
                .iter()
                .map(
                    |pair| match <[Value; 2]>::try_from(pair.elements(&self.meter)?) {
                        Ok([key, value]) => Ok((key, value)),
                        Err(_) => Err(Problem::new("`dict` wants pairs of keys and values")),
                    },
                )
                .collect::<Result<_>>()?,
            _ => return Err(Problem::new("`dict` takes at most one argument")),
        };
        for (name, value) in given.named {
            entries.push((self.meter.text(name)?, value));
        }
        Ok(entries)
    }

    fn namespace(&self, given: Given) -> Result<Value> {
        let namespace = Rc::new(Namespace::default());
        for (key, value) in self.entries(given)? {
            match key {
                Value::Str(name) => namespace.set(&Arc::from(&*name), value),
                _ => return Err(Problem::new("`namespace` wants texts as names")),
            }
        }
        let mut known = self.namespaces.borrow_mut();
        // Those of rounds that are over are let go of now and then.
        if known.len() >= 1024 && known.len().is_power_of_two() {
            known.retain(|namespace| namespace.strong_count() > 0);
        }
        known.push(Rc::downgrade(&namespace));
        self.meter.work(4)?;
        Ok(Value::Namespace(namespace))
    }
}

fn range(given: Given) -> Result<Value> {
    let mut numbers = Vec::new();
    given.no_more("range")?;
    for value in &given.positional {
        match value.as_int() {
            // Beyond this the length could not be counted.
            Some(n) if n.abs() < 1 << 100 => numbers.push(n),
            _ => {
                let problem = format!("`range` wants whole numbers, not `{}`", value.kind());
                return Err(Problem::new(problem));
            }
        }
    }
    let (start, stop, step) = match *numbers.as_slice() {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        [_, _, _] => return Err(Problem::new("`range` cannot go in steps of 0")),
        _ => return Err(Problem::new("`range` takes one to three numbers")),
    };
    let range = Range { start, stop, step };
    let span = if step > 0 { stop - start } else { start - stop };
    if span / step.abs() > MAX_RANGE as i128 {
        return Err(Problem::new(format!(
            "a range of more than {MAX_RANGE} numbers is not allowed in templates"
        )));
    }
    Ok(Value::Range(Rc::new(range)))
}

/// Longer formats than any date needs would be a way to make text without end.
const MAX_FORMAT: usize = 1024;

/// Python's `datetime.strftime` of a time without a zone, in the C locale.
pub(super) fn strftime(format: &str, now: i64) -> Result<String> {
    if format.len() > MAX_FORMAT {
        return Err(Problem::new("the format of `strftime_now` is too long"));
    }
    let Some(time) = DateTime::from_timestamp(now, 0).map(|time| time.naive_utc()) else {
        return Err(Problem::new(
            "the time given to the template is no date of this calendar",
        ));
    };
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flag = rest
            .chars()
            .next()
            .filter(|c| matches!(c, '-' | '_' | '0' | '^' | '#'));
        let after = &rest[flag.map_or(0, char::len_utf8)..];
        let Some(directive) = after.chars().next() else {
            text.push('%');
            continue;
        };
        rest = &after[directive.len_utf8()..];
        match directive {
            '%' => text.push('%'),
            // Microseconds there, nanoseconds in chrono.
            'f' => text.push_str("000000"),
            // A time without a zone has nothing to say about it.
            'z' | 'Z' => {}
            'a' | 'A' | 'b' | 'B' | 'c' | 'C' | 'd' | 'D' | 'e' | 'F' | 'g' | 'G' | 'h' | 'H'
            | 'I' | 'j' | 'k' | 'l' | 'm' | 'M' | 'n' | 'p' | 'P' | 'r' | 'R' | 's' | 'S' | 't'
            | 'T' | 'u' | 'U' | 'V' | 'w' | 'W' | 'x' | 'X' | 'y' | 'Y' => {
                let padding: String = flag.into_iter().filter(|c| !"^#".contains(*c)).collect();
                let written = time.format(&format!("%{padding}{directive}")).to_string();
                match flag {
                    Some('^') => text.push_str(&written.to_uppercase()),
                    _ => text.push_str(&written),
                }
            }
            other => {
                return Err(Problem::new(format!(
                    "`strftime_now` does not know the directive `%{other}`"
                )));
            }
        }
    }
    text.push_str(rest);
    Ok(text)
}
