//! Jinja2's filters of lists and dictionaries.

use std::cmp::Ordering;

use super::calls::Given;
use super::statements::Run;
use super::value::{Missing, Value};
use super::{Problem, Result, operators};

impl Run<'_> {
    /// The filter's result; `None` where it is no filter of sequences.
    pub(super) fn apply_to_sequence(
        &self,
        name: &str,
        value: &Value,
        given: &Given,
    ) -> Result<Option<Value>> {
        let given = || given.clone();
        let elements = || value.elements(&self.meter);
        let truth = |value: &Option<Value>| value.as_ref().is_some_and(Value::is_true);
        Ok(Some(match name {
            "list" => {
                let [] = given().bind(name, [])?;
                self.meter.list(elements()?)?
            }
            "first" | "last" => {
                let [] = given().bind(name, [])?;
                let items = elements()?;
                let found = match name {
                    "first" => items.first(),
                    _ => items.last(),
                };
                found.cloned().unwrap_or(Value::Undefined(Missing::Element))
            }
            "reverse" => {
                let [] = given().bind(name, [])?;
                match value {
                    Value::Str(text) => self.meter.text(text.chars().rev().collect::<String>())?,
                    _ => {
                        let mut items = elements()?;
                        items.reverse();
                        self.meter.list(items)?
                    }
                }
            }
            "items" => {
                let [] = given().bind(name, [])?;
                match value {
                    Value::Undefined(_) => self.meter.list(Vec::new())?,
                    Value::Dict(_) => self.pairs(value)?,
                    other => {
                        let problem = format!("`items` wants a dictionary, not `{}`", other.kind());
                        return Err(Problem::new(problem));
                    }
                }
            }
            "join" => {
                let [separator, attribute] = given().bind(name, ["d", "attribute"])?;
                let separator = separator.map_or(Ok(String::new()), |d| self.to_text(&d))?;
                let mut out = self.meter.buffer();
                for (i, item) in elements()?.into_iter().enumerate() {
                    if i > 0 {
                        out.push(&separator)?;
                    }
                    let item = match &attribute {
                        Some(attribute) => self.looked_up(&item, attribute)?,
                        None => item,
                    };
                    super::printing::print(&item, &mut out)?;
                }
                out.into_value()?
            }
            "map" => self.meter.list(self.mapped(elements()?, given())?)?,
            "select" | "reject" | "selectattr" | "rejectattr" => {
                let kept = self.selected(name, elements()?, given())?;
                self.meter.list(kept)?
            }
            "sort" => {
                let parameters = ["reverse", "case_sensitive", "attribute"];
                let [reverse, case, attribute] = given().bind(name, parameters)?;
                let sorted = self.sorted(elements()?, truth(&case), &attribute, truth(&reverse))?;
                self.meter.list(sorted)?
            }
            "unique" => {
                let [case, attribute] = given().bind(name, ["case_sensitive", "attribute"])?;
                let mut seen: Vec<Value> = Vec::new();
                let mut kept = Vec::new();
                for item in elements()? {
                    let key = self.sort_key(&item, truth(&case), &attribute)?;
                    self.meter
                        .work(seen.len().saturating_mul(key.extent().weight) / 4)?;
                    if !seen.contains(&key) {
                        seen.push(key);
                        kept.push(item);
                    }
                }
                self.meter.list(kept)?
            }
            "min" | "max" => {
                let [case, attribute] = given().bind(name, ["case_sensitive", "attribute"])?;
                let sorted = self.sorted(elements()?, truth(&case), &attribute, name == "max")?;
                let found = sorted.into_iter().next();
                found.unwrap_or(Value::Undefined(Missing::Element))
            }
            "sum" => {
                let [attribute, start] = given().bind(name, ["attribute", "start"])?;
                let mut sum = start.unwrap_or(Value::Int(0));
                for item in elements()? {
                    let item = match &attribute {
                        Some(attribute) => self.looked_up(&item, attribute)?,
                        None => item,
                    };
                    sum = self.operate(super::ast::Operator::Add, &sum, &item)?;
                }
                sum
            }
            "dictsort" => {
                let parameters = ["case_sensitive", "by", "reverse"];
                let [case, by, reverse] = given().bind(name, parameters)?;
                let by = by.map_or(Ok("key".into()), |by| self.to_text(&by))?;
                let place = match by.as_str() {
                    "key" => Value::Int(0),
                    "value" => Value::Int(1),
                    _ => return Err(Problem::new("`dictsort` sorts by `key` or `value`")),
                };
                let pairs = self.pairs(value)?.elements(&self.meter)?;
                let sorted = self.sorted(pairs, truth(&case), &Some(place), truth(&reverse))?;
                self.meter.list(sorted)?
            }
            "batch" | "slice" => {
                let [count, fill] = given().bind(name, ["count", "fill_with"])?;
                let count = count.and_then(|count| usize::try_from(count.as_int()?).ok());
                let Some(count) = count.filter(|count| *count > 0) else {
                    let problem = format!("`{name}` wants a number above 0");
                    return Err(Problem::new(problem));
                };
                let parts = match name {
                    "batch" => self.batches(&elements()?, count, fill)?,
                    _ => self.slices(&elements()?, count, fill)?,
                };
                self.meter.list(parts)?
            }
            "groupby" => {
                let parameters = ["attribute", "default", "case_sensitive"];
                let [attribute, default, case] = given().bind(name, parameters)?;
                self.grouped(elements()?, attribute, default, truth(&case))?
            }
            _ => return Ok(None),
        }))
    }

    /// A dictionary's entries as tuples.
    pub(super) fn pairs(&self, value: &Value) -> Result<Value> {
        let Value::Dict(dict) = value else {
            let problem = format!("a dictionary is wanted, not `{}`", value.kind());
            return Err(Problem::new(problem));
        };
        let pairs = dict.entries.iter().map(|(key, value)| {
            let pair = vec![key.clone(), value.clone()];
            self.meter.tuple(pair)
        });
        self.meter.list(pairs.collect::<Result<_>>()?)
    }

    /// An element's `attribute`: a number, or names and numbers with dots.
    fn looked_up(&self, item: &Value, attribute: &Value) -> Result<Value> {
        let Value::Str(path) = attribute else {
            return self.item(item, attribute);
        };
        let mut value = item.clone();
        for part in path.split('.') {
            let key = match part.parse::<u32>() {
                Ok(n) => Value::Int(n.into()),
                Err(_) => self.meter.text(part)?,
            };
            value = self.item(&value, &key)?;
        }
        Ok(value)
    }

    fn mapped(&self, items: Vec<Value>, mut given: Given) -> Result<Vec<Value>> {
        if given.positional.is_empty() {
            let (attribute, default) = (given.take("attribute"), given.take("default"));
            given.no_more("map")?;
            let Some(attribute) = attribute else {
                return Err(Problem::new("`map` wants a filter's name or an attribute"));
            };
            let attributes = items.iter().map(|item| {
                let found = self.looked_up(item, &attribute)?;
                Ok(match (&found, &default) {
                    (Value::Undefined(_), Some(default)) => default.clone(),
                    _ => found,
                })
            });
            return attributes.collect();
        }
        let name = self.to_text(&given.positional.remove(0))?;
        let mapped = items
            .into_iter()
            .map(|item| self.apply(&name, item, given.clone()));
        mapped.collect()
    }

    fn selected(&self, filter: &str, items: Vec<Value>, mut given: Given) -> Result<Vec<Value>> {
        let wanted = filter.starts_with("select");
        let attribute = match filter.ends_with("attr") {
            true if given.positional.is_empty() => {
                let problem = format!("`{filter}` wants an attribute");
                return Err(Problem::new(problem));
            }
            true => Some(given.positional.remove(0)),
            false => None,
        };
        let test = match given.positional.is_empty() {
            true => None,
            false => Some(self.to_text(&given.positional.remove(0))?),
        };
        let mut kept = Vec::new();
        for item in items {
            let value = match &attribute {
                Some(attribute) => self.looked_up(&item, attribute)?,
                None => item.clone(),
            };
            let holds = match &test {
                Some(test) => self.check(test, &value, given.clone())?,
                None => value.is_true(),
            };
            if holds == wanted {
                kept.push(item);
            }
        }
        Ok(kept)
    }

    /// What an element is sorted by: its attributes, small letters unless case counts.
    fn sort_key(&self, item: &Value, case: bool, attribute: &Option<Value>) -> Result<Value> {
        let folded = |value: Value| match &value {
            Value::Str(text) if !case => self.meter.text(text.to_lowercase()),
            _ => Ok(value),
        };
        match attribute {
            None => folded(item.clone()),
            Some(Value::Str(names)) if names.contains(',') => {
                let keys = names.split(',').map(|name| {
                    let name = self.meter.text(name)?;
                    folded(self.looked_up(item, &name)?)
                });
                self.meter.tuple(keys.collect::<Result<_>>()?)
            }
            Some(attribute) => folded(self.looked_up(item, attribute)?),
        }
    }

    fn sorted(
        &self,
        items: Vec<Value>,
        case: bool,
        attribute: &Option<Value>,
        reverse: bool,
    ) -> Result<Vec<Value>> {
        let mut keyed = items
            .into_iter()
            .map(|item| Ok((self.sort_key(&item, case, attribute)?, item)))
            .collect::<Result<Vec<_>>>()?;
        let heaviest = keyed.iter().map(|(key, _)| key.extent().weight).max();
        let rounds = usize::BITS - keyed.len().leading_zeros();
        let comparisons = keyed.len().saturating_mul(rounds as usize);
        self.meter
            .work(comparisons.saturating_mul(heaviest.unwrap_or(1)))?;
        let mut refused = None;
        keyed.sort_by(|(a, _), (b, _)| {
            let order = a.compare(b).unwrap_or_else(|| {
                refused.get_or_insert_with(|| operators::unsupported("<", a, b));
                Ordering::Equal
            });
            if reverse { order.reverse() } else { order }
        });
        match refused {
            Some(problem) => Err(problem),
            None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
        }
    }

    fn batches(&self, items: &[Value], count: usize, fill: Option<Value>) -> Result<Vec<Value>> {
        let mut batches = Vec::new();
        for batch in items.chunks(count) {
            let mut batch = batch.to_vec();
            if let Some(fill) = &fill {
                self.meter
                    .room(0, count.saturating_mul(size_of::<Value>()))?;
                batch.resize(count, fill.clone());
            }
            batches.push(self.meter.list(batch)?);
        }
        Ok(batches)
    }

    fn slices(&self, items: &[Value], count: usize, fill: Option<Value>) -> Result<Vec<Value>> {
        self.meter.work(count)?;
        let (each, longer) = (items.len() / count, items.len() % count);
        let mut rest = items;
        let mut slices = Vec::new();
        for i in 0..count {
            let (slice, after) = rest.split_at(each + usize::from(i < longer));
            rest = after;
            let mut slice = slice.to_vec();
            if let Some(fill) = &fill
                && i >= longer
            {
                slice.push(fill.clone());
            }
            slices.push(self.meter.list(slice)?);
        }
        Ok(slices)
    }

    fn grouped(
        &self,
        items: Vec<Value>,
        attribute: Option<Value>,
        default: Option<Value>,
        case: bool,
    ) -> Result<Value> {
        let Some(attribute) = attribute else {
            return Err(Problem::new("`groupby` wants an attribute"));
        };
        let key_of = |item: &Value| {
            let found = self.looked_up(item, &attribute)?;
            Ok::<_, Problem>(match (&found, &default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                _ => found,
            })
        };
        let keyed = items
            .into_iter()
            .map(|item| self.meter.tuple(vec![key_of(&item)?, item]))
            .collect::<Result<Vec<_>>>()?;
        let sorted = self.sorted(keyed, case, &Some(Value::Int(0)), false)?;
        let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
        for pair in sorted {
            let Ok([key, item]) = <[Value; 2]>::try_from(pair.elements(&self.meter)?) else {
                continue;
            };
            let folded = self.sort_key(&key, case, &None)?;
            match groups.last_mut() {
                Some((known, _, group)) if self.meter.equal(known, &folded)? => group.push(item),
                _ => groups.push((folded, key, vec![item])),
            }
        }
        let groups = groups.into_iter().map(|(_, key, group)| {
            let group = self.meter.list(group)?;
            self.meter.tuple(vec![key, group])
        });
        self.meter.list(groups.collect::<Result<_>>()?)
    }

    /// `separator.join(items)` of texts.
    pub(super) fn joined_texts(&self, separator: &str, items: &Value) -> Result<Value> {
        let mut out = self.meter.buffer();
        for (i, item) in items.elements(&self.meter)?.iter().enumerate() {
            let Value::Str(text) = item else {
                let problem = format!("`join` wants texts, but item {i} is `{}`", item.kind());
                return Err(Problem::new(problem));
            };
            if i > 0 {
                out.push(separator)?;
            }
            out.push(text)?;
        }
        out.into_value()
    }
}
