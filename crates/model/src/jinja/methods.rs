//! Python's methods of dictionaries, lists, tuples and loops; those of texts are in
//! [`text_methods`](super::text_methods).

use std::sync::Arc;

use super::calls::Given;
use super::statements::Run;
use super::value::{Callable, Value};
use super::{Problem, Result, text_methods};

const OF_DICTS: [&str; 5] = ["get", "items", "keys", "values", "copy"];
const OF_LISTS: [&str; 3] = ["count", "index", "copy"];

/// Methods that change what they are called on, which the sandbox of transformers does not let a template do.
const CHANGING: [&str; 13] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
    "discard",
];

/// Whether Python's type has a method of this name.
pub(super) fn exist(object: &Value, name: &str) -> bool {
    match object {
        Value::Str(_) => text_methods::NAMES.contains(&name),
        Value::Dict(_) => {
            let changing = ["clear", "pop", "popitem", "setdefault", "update"];
            OF_DICTS.contains(&name) || changing.contains(&name)
        }
        Value::List(_) => OF_LISTS.contains(&name) || CHANGING.contains(&name),
        Value::Tuple(_) | Value::Range(_) => ["count", "index"].contains(&name),
        Value::Loop(_) => ["cycle", "changed"].contains(&name),
        Value::Callable(callable) => {
            matches!(**callable, Callable::Cycler(..)) && ["next", "reset"].contains(&name)
        }
        _ => false,
    }
}

impl Run<'_> {
    /// `receiver.name(…)`.
    pub(super) fn method(&self, receiver: &Value, name: &Arc<str>, given: Given) -> Result<Value> {
        self.meter.work(1)?;
        if let Value::Str(text) = receiver {
            return self.text_method(text, name, given);
        }
        match (receiver, &**name) {
            (Value::Dict(dict), "get") => {
                let [key, default] = given.bind("get", ["key", "default"])?;
                self.meter.work(dict.entries.len() / 16)?;
                let found = key.as_ref().and_then(|key| dict.get(key));
                Ok(found.cloned().or(default).unwrap_or(Value::None))
            }
            (Value::Dict(_), "items") => {
                given.bind("items", []).and_then(|[]| self.pairs(receiver))
            }
            (Value::Dict(dict), "keys" | "values") => {
                let [] = given.bind(name, [])?;
                let values = dict.entries.iter().map(|(key, value)| match &**name {
                    "keys" => key.clone(),
                    _ => value.clone(),
                });
                self.meter.list(values.collect())
            }
            (_, "copy") => given.bind("copy", []).map(|[]| receiver.clone()),
            (Value::List(_) | Value::Tuple(_) | Value::Range(_), "count" | "index") => {
                let [wanted] = given.bind(name, ["value"])?;
                let wanted = wanted.ok_or_else(|| Problem::new("a value to look for is wanted"))?;
                let mut places = Vec::new();
                for (i, item) in receiver.elements(&self.meter)?.iter().enumerate() {
                    if self.meter.equal(item, &wanted)? {
                        places.push(i);
                    }
                }
                match (&**name, places.first()) {
                    ("count", _) => Ok(Value::Int(places.len() as i128)),
                    (_, Some(place)) => Ok(Value::Int(*place as i128)),
                    _ => Err(Problem::new("the value is not in the list")),
                }
            }
            (Value::Loop(state), "cycle") => {
                given.no_more("cycle")?;
                let n = given.positional.len();
                let found = state.index.get().checked_rem(n);
                found
                    .and_then(|at| given.positional.get(at).cloned())
                    .ok_or_else(|| Problem::new("`cycle` wants at least one value"))
            }
            (Value::Loop(state), "changed") => {
                let now = given.positional;
                let before = state.changed.replace(Some(now.clone()));
                let weight = now.iter().map(|value| value.extent().weight);
                self.meter.work(weight.fold(0, usize::saturating_add))?;
                Ok(Value::Bool(before != Some(now)))
            }
            (Value::Callable(callable), "next") => match &**callable {
                Callable::Cycler(..) => self.call(receiver, Given::default()),
                _ => Err(Problem::new("`next` wants a cycler")),
            },
            (Value::Callable(callable), "reset") => {
                if let Callable::Cycler(_, at) = &**callable {
                    at.set(0);
                }
                Ok(Value::None)
            }
            (_, changing) if CHANGING.contains(&changing) => Err(Problem::new(format!(
                "`{}.{changing}` would change its object, which templates may not do",
                receiver.kind()
            ))),
            (_, other) => Err(Problem::new(format!(
                "`{}` object has no method `{other}`",
                receiver.kind()
            ))),
        }
    }
}
