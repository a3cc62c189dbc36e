//! Bounds of one rendering: steps, live memory and nesting.
//!
//! A template comes with a model, from anywhere. Whatever makes work or memory asks the [`Meter`] first.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::value::{Dict, Extent, Items, Text, Value};
use super::{Problem, Result};

/// What one rendering may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Evaluated nodes, elements and kibibytes copied.
    pub steps: u64,
    /// Bytes that are alive at one time, the output included.
    pub bytes: usize,
}

/// Levels of statements, expressions and macro calls inside each other.
/// A level takes up to some 2 KiB of a thread's stack.
pub(crate) const MAX_DEPTH: usize = 250;

/// Texts so short are counted with the list or the variable that holds them.
const UNCOUNTED: usize = 16;

/// Levels of lists and dictionaries inside each other.
pub(crate) const MAX_NESTING: usize = 200;

impl Limits {
    /// Limits that grow with what is rendered: `values` in messages, tools and variables, and the `bytes` of their
    /// text. 5 million steps, 2,000 a value and 8 a byte; 64 MiB and 32 times the text.
    ///
    /// The templates of current models take below 1,000 steps a message.
    pub(crate) fn of_input(values: usize, bytes: usize) -> Self {
        let (steps, text) = (values as u64, bytes as u64);
        Self {
            steps: 5_000_000 + 2_000 * steps + 8 * text,
            bytes: (64 << 20) + 32 * bytes,
        }
    }
}

/// Counts what a rendering has used.
pub(super) struct Meter {
    limits: Limits,
    steps: Cell<u64>,
    bytes: Cell<usize>,
    depth: Cell<usize>,
}

impl Meter {
    pub(super) fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            steps: Cell::new(0),
            bytes: Cell::new(0),
            depth: Cell::new(0),
        })
    }

    /// Counts `n` steps.
    pub(super) fn work(&self, n: usize) -> Result<()> {
        let steps = self.steps.get().saturating_add(n as u64);
        self.steps.set(steps);
        if steps > self.limits.steps {
            return Err(Problem::new(format!(
                "takes more than {} steps, which no conversation of this size needs; the template does not end, or not soon",
                self.limits.steps
            )));
        }
        Ok(())
    }

    /// Asks for `n` more bytes before they are allocated, beside `open` bytes of text that is being built.
    pub(super) fn room(&self, open: usize, n: usize) -> Result<()> {
        self.work(n / 1024)?;
        let wanted = self.bytes.get().saturating_add(open).saturating_add(n);
        if wanted > self.limits.bytes {
            return Err(Problem::new(format!(
                "makes more than {} MiB of text and lists, which no conversation of this size needs",
                self.limits.bytes >> 20
            )));
        }
        Ok(())
    }

    /// Takes `n` bytes until the charge is dropped.
    pub(super) fn charge(self: &Rc<Self>, n: usize) -> Result<Charge> {
        self.room(0, n)?;
        self.bytes.set(self.bytes.get() + n);
        Ok(Charge {
            bytes: n,
            meter: Rc::clone(self),
        })
    }

    /// Goes one level deeper until the guard is dropped.
    pub(super) fn deeper(self: &Rc<Self>) -> Result<Level> {
        let depth = self.depth.get() + 1;
        if depth > MAX_DEPTH {
            return Err(Problem::new(format!(
                "nests or recurses deeper than {MAX_DEPTH} levels"
            )));
        }
        self.depth.set(depth);
        Ok(Level(Rc::clone(self)))
    }

    pub(super) fn text(self: &Rc<Self>, text: impl Into<Arc<str>>) -> Result<Value> {
        let text = text.into();
        if text.len() <= UNCOUNTED {
            return Ok(Value::Str(Text::constant(&text)));
        }
        let charge = self.charge(text.len())?;
        Ok(Value::Str(Text::charged(text, charge)))
    }

    pub(super) fn list(self: &Rc<Self>, values: Vec<Value>) -> Result<Value> {
        Ok(Value::List(Rc::new(self.items(values)?)))
    }

    pub(super) fn tuple(self: &Rc<Self>, values: Vec<Value>) -> Result<Value> {
        Ok(Value::Tuple(Rc::new(self.items(values)?)))
    }

    fn items(self: &Rc<Self>, values: Vec<Value>) -> Result<Items> {
        let charge = self.charge(values.len() * size_of::<Value>())?;
        self.work(values.len())?;
        let extent = self.extent(values.iter())?;
        Ok(Items {
            values,
            extent,
            _charge: charge,
        })
    }

    pub(super) fn dict(self: &Rc<Self>, entries: Vec<(Value, Value)>) -> Result<Value> {
        let charge = self.charge(entries.len() * 2 * size_of::<Value>())?;
        // Keys that are no text are looked for one by one.
        let searched = entries.iter().any(|(key, _)| key.as_str().is_none());
        let searches = if searched { entries.len() / 16 } else { 1 };
        self.work(entries.len().saturating_mul(searches))?;
        if let Some((key, _)) = entries.iter().find(|(key, _)| !key.is_key()) {
            let problem = format!("`{}` cannot be the key of a dictionary", key.kind());
            return Err(Problem::new(problem));
        }
        let extent = self.extent(entries.iter().map(|(_, value)| value))?;
        Ok(Value::Dict(Rc::new(Dict::new(entries, extent, charge))))
    }

    /// Counts the comparison of two values; a list that holds another twice is worth as much as its printed form.
    pub(super) fn equal(&self, a: &Value, b: &Value) -> Result<bool> {
        self.work(a.extent().weight.min(b.extent().weight))?;
        Ok(a == b)
    }

    /// Values are dropped, printed and compared by recursion, so they may not lie too deep.
    fn extent<'v>(&self, values: impl Iterator<Item = &'v Value>) -> Result<Extent> {
        let mut extent = Extent::default();
        for inner in values.map(Value::extent) {
            extent.nesting = extent.nesting.max(inner.nesting);
            extent.weight = extent.weight.saturating_add(inner.weight);
        }
        extent.nesting += 1;
        if extent.nesting > MAX_NESTING {
            return Err(Problem::new(format!(
                "nests lists and dictionaries deeper than {MAX_NESTING} levels"
            )));
        }
        Ok(extent)
    }

    pub(super) fn buffer(self: &Rc<Self>) -> Buffer {
        Buffer {
            text: String::new(),
            meter: Rc::clone(self),
        }
    }
}

/// Bytes that are alive.
pub(super) struct Charge {
    bytes: usize,
    meter: Rc<Meter>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let left = self.meter.bytes.get().saturating_sub(self.bytes);
        self.meter.bytes.set(left);
    }
}

/// One level of nesting.
pub(super) struct Level(Rc<Meter>);

impl Drop for Level {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get().saturating_sub(1));
    }
}

/// Text under construction.
pub(super) struct Buffer {
    text: String,
    pub(super) meter: Rc<Meter>,
}

impl Buffer {
    pub(super) fn push(&mut self, text: &str) -> Result<()> {
        self.meter.room(self.text.len(), text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// `n` times `c`.
    pub(super) fn fill(&mut self, c: char, n: usize) -> Result<()> {
        let bytes = n.saturating_mul(c.len_utf8());
        self.meter.room(self.text.len(), bytes)?;
        self.text.extend(std::iter::repeat_n(c, n));
        Ok(())
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }

    pub(super) fn into_value(self) -> Result<Value> {
        self.meter.text(self.text)
    }
}
