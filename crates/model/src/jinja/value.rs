//! Python's values, as far as templates see them.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::bounds::{Charge, Meter};
use super::scope::Scope;
use super::{Problem, Result};

#[derive(Clone)]
pub(super) enum Value {
    Undefined(Missing),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    Range(Rc<Range>),
    Namespace(Rc<Namespace>),
    Loop(Rc<Loop>),
    Callable(Rc<Callable>),
}

/// What was asked for and is not there, for the message of whoever uses it.
#[derive(Clone)]
pub(super) enum Missing {
    Name(Arc<str>),
    /// A type's name and the attribute.
    Attribute(&'static str, Arc<str>),
    Element,
}

impl Missing {
    pub(super) fn problem(&self) -> Problem {
        Problem::new(match self {
            Self::Name(name) => format!("`{name}` is undefined"),
            Self::Attribute(kind, name) => format!("`{kind}` object has no attribute `{name}`"),
            Self::Element => "element is undefined".into(),
        })
    }
}

/// A text, shared; its bytes count while it lives, unless they are the template's or the conversation's own.
#[derive(Clone)]
pub(super) struct Text {
    text: Arc<str>,
    _charge: Option<Rc<Charge>>,
}

impl Text {
    pub(super) fn charged(text: Arc<str>, charge: Charge) -> Self {
        Self {
            text,
            _charge: Some(Rc::new(charge)),
        }
    }

    pub(super) fn constant(text: &Arc<str>) -> Self {
        Self {
            text: Arc::clone(text),
            _charge: None,
        }
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// How deep a value nests, and how many values it would be if none were shared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) nesting: usize,
    pub(super) weight: usize,
}

/// The elements of a list or a tuple.
pub(super) struct Items {
    pub(super) values: Vec<Value>,
    pub(super) extent: Extent,
    pub(super) _charge: Charge,
}

/// A dictionary in insertion order.
pub(super) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    /// Places of text keys, where there are enough to look them up by hash.
    places: HashMap<Arc<str>, usize>,
    extent: Extent,
    _charge: Charge,
}

const HASHED_FROM: usize = 12;

impl Dict {
    /// A later entry of the same key takes the earlier one's place.
    pub(super) fn new(entries: Vec<(Value, Value)>, extent: Extent, charge: Charge) -> Self {
        let mut dict = Self {
            entries: Vec::with_capacity(entries.len()),
            places: HashMap::new(),
            extent,
            _charge: charge,
        };
        let hashed = entries.len() >= HASHED_FROM;
        for (key, value) in entries {
            match dict.place(&key) {
                Some(place) => dict.entries[place].1 = value,
                None => {
                    if let (true, Value::Str(name)) = (hashed, &key) {
                        dict.places.insert(name.text.clone(), dict.entries.len());
                    }
                    dict.entries.push((key, value));
                }
            }
        }
        dict
    }

    fn place(&self, key: &Value) -> Option<usize> {
        match key {
            Value::Str(name) if !self.places.is_empty() => self.places.get(&name.text).copied(),
            _ => self.entries.iter().position(|(known, _)| known == key),
        }
    }

    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        Some(&self.entries[self.place(key)?].1)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Value> {
        if !self.places.is_empty() {
            return Some(&self.entries[*self.places.get(name)?].1);
        }
        let mut entries = self.entries.iter();
        entries
            .find(|(key, _)| matches!(key, Value::Str(known) if **known == *name))
            .map(|(_, value)| value)
    }
}

/// Python's `range`.
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

impl Range {
    pub(super) fn len(&self) -> usize {
        let (span, step) = if self.step > 0 {
            (self.stop - self.start, self.step)
        } else {
            (self.start - self.stop, -self.step)
        };
        usize::try_from((span + step - 1) / step).unwrap_or(0)
    }

    pub(super) fn at(&self, i: usize) -> Value {
        Value::Int(self.start + self.step * i as i128)
    }
}

/// `namespace()`: the one thing whose attributes a template may set.
#[derive(Default)]
pub(super) struct Namespace {
    pub(super) values: RefCell<Vec<(Arc<str>, Value)>>,
}

impl Namespace {
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let values = self.values.borrow();
        let found = values.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| value.clone())
    }

    pub(super) fn set(&self, name: &Arc<str>, value: Value) {
        let mut values = self.values.borrow_mut();
        match values.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => values.push((Arc::clone(name), value)),
        }
    }
}

/// The variable `loop`.
pub(super) struct Loop {
    pub(super) items: Rc<Vec<Value>>,
    pub(super) index: Cell<usize>,
    pub(super) depth: usize,
    /// The arguments of the last `loop.changed(…)`.
    pub(super) changed: RefCell<Option<Vec<Value>>>,
    /// Number of the loop in the template, and where it stands: for `loop(…)` of a recursive one.
    pub(super) number: usize,
    pub(super) outside: Weak<Scope>,
}

pub(super) enum Callable {
    Function(Function),
    /// `x.name`, bound.
    Method(Value, Arc<str>),
    /// Number of the macro in the template, and where it was defined. Weak, or scope and macro would hold each other.
    Macro(usize, Weak<Scope>),
    Cycler(Vec<Value>, Cell<usize>),
    Joiner(Value, Cell<bool>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

impl Value {
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Float(x) => *x != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.values.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Range(range) => range.len() > 0,
            Self::Namespace(_) | Self::Loop(_) | Self::Callable(_) => true,
        }
    }

    /// Python's name of the type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Callable(_) => "function",
        }
    }

    pub(super) fn extent(&self) -> Extent {
        match self {
            Self::List(items) | Self::Tuple(items) => items.extent,
            Self::Dict(dict) => dict.extent,
            Self::Str(text) => Extent {
                nesting: 0,
                weight: 1 + text.len() / 64,
            },
            _ => Extent {
                nesting: 0,
                weight: 1,
            },
        }
    }

    /// Whether it can be the key of a dictionary.
    pub(super) fn is_key(&self) -> bool {
        match self {
            Self::List(_) | Self::Dict(_) => false,
            Self::Tuple(items) => items.extent.weight < 64 && items.values.iter().all(Self::is_key),
            _ => true,
        }
    }

    /// Whole numbers, among which Python counts True and False.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Bool(b) => Some(i128::from(*b)),
            _ => None,
        }
    }

    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Self::Float(x) => Some(*x),
            other => other.as_int().map(|n| n as f64),
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// `len(x)`.
    pub(super) fn len(&self) -> Result<usize> {
        match self {
            Self::Undefined(_) => Ok(0),
            Self::Str(text) => Ok(text.chars().count()),
            Self::List(items) | Self::Tuple(items) => Ok(items.values.len()),
            Self::Dict(dict) => Ok(dict.entries.len()),
            Self::Range(range) => Ok(range.len()),
            Self::Loop(state) => Ok(state.items.len()),
            other => Err(Problem::new(format!(
                "object of type `{}` has no length",
                other.kind()
            ))),
        }
    }

    pub(super) fn is_iterable(&self) -> bool {
        matches!(
            self,
            Self::Undefined(_)
                | Self::Str(_)
                | Self::List(_)
                | Self::Tuple(_)
                | Self::Dict(_)
                | Self::Range(_)
        )
    }

    /// The elements that Python's `for` goes through; every one is a step.
    pub(super) fn elements(&self, meter: &Rc<Meter>) -> Result<Vec<Value>> {
        if self.is_iterable() {
            let n = match self {
                Self::Str(text) => text.len(),
                other => other.len()?,
            };
            meter.room(0, n.saturating_mul(size_of::<Value>()))?;
            meter.work(n)?;
        }
        Ok(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) => text
                .chars()
                .map(|c| meter.text(c.to_string()))
                .collect::<Result<_>>()?,
            Self::List(items) | Self::Tuple(items) => items.values.clone(),
            Self::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            Self::Range(range) => (0..range.len()).map(|i| range.at(i)).collect(),
            other => {
                return Err(Problem::new(format!(
                    "`{}` object is not iterable",
                    other.kind()
                )));
            }
        })
    }

    /// `x is y`.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => Rc::ptr_eq(a, b),
            (Self::Dict(a), Self::Dict(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.kind() == b.kind() && a == b,
        }
    }

    /// `<` and its like; `None` where Python raises a TypeError.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                for (a, b) in a.values.iter().zip(&b.values) {
                    if a != b {
                        return a.compare(b);
                    }
                }
                Some(a.values.len().cmp(&b.values.len()))
            }
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                // Nothing is ordered beside NaN; as the smallest it at least ends every sort.
                _ => {
                    let (a, b) = (a.as_number()?, b.as_number()?);
                    Some(a.partial_cmp(&b).unwrap_or(Ordering::Less))
                }
            },
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a), Self::Str(b)) => **a == **b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                Rc::ptr_eq(a, b) || a.values == b.values
            }
            (Self::Dict(a), Self::Dict(b)) => {
                Rc::ptr_eq(a, b)
                    || (a.entries.len() == b.entries.len()
                        && a.entries.iter().all(|(k, v)| b.get(k) == Some(v)))
            }
            (Self::Range(a), Self::Range(b)) => {
                a.len() == b.len() && (0..a.len()).all(|i| a.at(i) == b.at(i))
            }
            (Self::Namespace(a), Self::Namespace(b)) => Rc::ptr_eq(a, b),
            (Self::Loop(a), Self::Loop(b)) => Rc::ptr_eq(a, b),
            (Self::Callable(a), Self::Callable(b)) => Rc::ptr_eq(a, b),
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => a.as_number().is_some() && a.as_number() == b.as_number(),
            },
        }
    }
}
