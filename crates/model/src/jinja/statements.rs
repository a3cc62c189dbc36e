//! Running a template's statements.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::ast::{Ast, Invocation, Stmt, StmtKind, Target};
use super::bounds::{Buffer, Limits, Meter};
use super::scope::Scope;
use super::value::{Callable, Function, Loop, Namespace, Text, Value};
use super::{Problem, Result};

/// One rendering.
pub(super) struct Run<'t> {
    pub(super) ast: &'t Ast,
    pub(super) meter: Rc<Meter>,
    pub(super) now: i64,
    /// Namespaces can hold each other in a circle, which only emptying them ends.
    pub(super) namespaces: RefCell<Vec<Weak<Namespace>>>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Through,
    Break,
    Continue,
}

const FUNCTIONS: [(&str, Function); 7] = [
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("namespace", Function::Namespace),
    ("cycler", Function::Cycler),
    ("joiner", Function::Joiner),
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
];

pub(super) fn render(
    ast: &Ast,
    variables: &[(&str, serde_json::Value)],
    now: i64,
    limits: Limits,
) -> Result<String> {
    let meter = Meter::new(limits);
    let run = Run {
        ast,
        meter: Rc::clone(&meter),
        now,
        namespaces: RefCell::default(),
    };
    let root = Scope::root();
    for (name, function) in FUNCTIONS {
        let callable = Callable::Function(function);
        root.set(&name.into(), Value::Callable(Rc::new(callable)));
    }
    for (name, value) in variables {
        root.set(&(*name).into(), run.given(value)?);
    }
    let mut out = meter.buffer();
    let ended = run.body(&ast.body, &root, &mut out);
    for namespace in run.namespaces.borrow().iter().filter_map(Weak::upgrade) {
        namespace.values.borrow_mut().clear();
    }
    ended.map(|_| out.into_string())
}

impl Run<'_> {
    /// A variable's value. Its text is the caller's and does not count.
    fn given(&self, value: &serde_json::Value) -> Result<Value> {
        use serde_json::Value as Json;
        Ok(match value {
            Json::Null => Value::None,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(n), _) => Value::Int(n.into()),
                (_, Some(n)) => Value::Int(n.into()),
                _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Str(Text::constant(&text.as_str().into())),
            Json::Array(items) => {
                let items = items.iter().map(|item| self.given(item));
                self.meter.list(items.collect::<Result<_>>()?)?
            }
            Json::Object(map) => {
                let entries = map.iter().map(|(key, value)| {
                    let key = Value::Str(Text::constant(&key.as_str().into()));
                    Ok((key, self.given(value)?))
                });
                self.meter.dict(entries.collect::<Result<_>>()?)?
            }
        })
    }

    pub(super) fn body(&self, body: &[Stmt], scope: &Rc<Scope>, out: &mut Buffer) -> Result<Flow> {
        for stmt in body {
            let flow = self
                .statement(stmt, scope, out)
                .map_err(|problem| problem.at(stmt.line))?;
            if flow != Flow::Through {
                return Ok(flow);
            }
        }
        Ok(Flow::Through)
    }

    fn statement(&self, stmt: &Stmt, scope: &Rc<Scope>, out: &mut Buffer) -> Result<Flow> {
        self.meter.work(1)?;
        let _level = self.meter.deeper()?;
        match &stmt.kind {
            StmtKind::Text(text) => out.push(text)?,
            StmtKind::Print(expr) => {
                let value = self.expr(expr, scope)?;
                super::printing::print(&value, out)?;
            }
            StmtKind::For(number) => {
                let iterable = self.expr(&self.ast.loops[*number].iterable, scope)?;
                self.run_loop(*number, &iterable, 1, scope, out)?;
            }
            StmtKind::If {
                branches,
                otherwise,
            } => {
                for (condition, body) in branches {
                    if self.expr(condition, scope)?.is_true() {
                        return self.body(body, scope, out);
                    }
                }
                return self.body(otherwise, scope, out);
            }
            StmtKind::Set(target, value) => {
                let value = self.expr(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::SetBlock {
                target,
                filters,
                body,
            } => {
                let mut inner = self.meter.buffer();
                self.body(body, &Scope::inside(scope), &mut inner)?;
                let value = self.filtered(inner.into_value()?, filters, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::Macro(number) => {
                let name = &self.ast.macros[*number].name;
                scope.set(name, self.macro_value(*number, scope));
            }
            StmtKind::CallBlock(call, number) => {
                let caller = self.macro_value(*number, scope);
                let value = self.call_with_caller(call, Some(caller), scope)?;
                super::printing::print(&value, out)?;
            }
            StmtKind::Filter(filters, body) => {
                let mut inner = self.meter.buffer();
                self.body(body, &Scope::inside(scope), &mut inner)?;
                let value = self.filtered(inner.into_value()?, filters, scope)?;
                super::printing::print(&value, out)?;
            }
            StmtKind::With(assignments, body) => {
                let inside = Scope::inside(scope);
                for (target, value) in assignments {
                    // Jinja2 evaluates all of them outside.
                    let value = self.expr(value, scope)?;
                    self.assign(target, value, &inside)?;
                }
                return self.body(body, &inside, out);
            }
            StmtKind::Inside(body) => return self.body(body, &Scope::inside(scope), out),
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Through)
    }

    fn macro_value(&self, number: usize, scope: &Rc<Scope>) -> Value {
        let callable = Callable::Macro(number, Rc::downgrade(scope));
        Value::Callable(Rc::new(callable))
    }

    fn filtered(
        &self,
        mut value: Value,
        filters: &[Invocation],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        for filter in filters {
            value = self.filter(value, filter, scope)?;
        }
        Ok(value)
    }

    pub(super) fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Attribute(object, name) => match scope.get(object) {
                Some(Value::Namespace(namespace)) if !name.starts_with("__") => {
                    namespace.set(name, value);
                }
                _ => {
                    return Err(Problem::new(format!(
                        "`{object}.{name}` cannot be set: `{object}` is no namespace"
                    )));
                }
            },
            Target::Tuple(targets) => {
                let values = value.elements(&self.meter)?;
                if values.len() != targets.len() {
                    return Err(Problem::new(format!(
                        "{} values cannot be set to {} names",
                        values.len(),
                        targets.len()
                    )));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    /// One loop of the template over `iterable`; `depth` counts the rounds of a recursive one.
    pub(super) fn run_loop(
        &self,
        number: usize,
        iterable: &Value,
        depth: usize,
        scope: &Rc<Scope>,
        out: &mut Buffer,
    ) -> Result<()> {
        let node = &self.ast.loops[number];
        let mut items = iterable.elements(&self.meter)?;
        if let Some(condition) = &node.condition {
            let mut kept = Vec::new();
            for item in items {
                let inside = Scope::inside(scope);
                self.assign(&node.target, item.clone(), &inside)?;
                if self.expr(condition, &inside)?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            self.body(&node.otherwise, &Scope::inside(scope), out)?;
            return Ok(());
        }
        // The copy of a long list counts while the loop runs.
        let _charge = self.meter.charge(items.len() * size_of::<Value>())?;
        let items = Rc::new(items);
        let state = Rc::new(Loop {
            items: Rc::clone(&items),
            index: Cell::new(0),
            depth,
            changed: RefCell::default(),
            number,
            outside: Rc::downgrade(scope),
        });
        let name: Arc<str> = "loop".into();
        for (i, item) in items.iter().enumerate() {
            state.index.set(i);
            let inside = Scope::inside(scope);
            inside.set(&name, Value::Loop(Rc::clone(&state)));
            self.assign(&node.target, item.clone(), &inside)?;
            if self.body(&node.body, &inside, out)? == Flow::Break {
                break;
            }
        }
        Ok(())
    }
}
