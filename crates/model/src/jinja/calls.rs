//! Calling macros, methods, functions and loops.

use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Arguments, Expr, ExprKind};
use super::scope::Scope;
use super::statements::Run;
use super::value::{Callable, Loop, Missing, Value};
use super::{Problem, Result};

/// The arguments of a call, evaluated.
#[derive(Clone, Default)]
pub(super) struct Given {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Arc<str>, Value)>,
}

impl Given {
    /// The arguments by a function's parameters, in their order; `None` where one is left to its default.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        parameters: [&str; N],
    ) -> Result<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        let n = self.positional.len();
        if n > N {
            let problem = format!("`{function}` takes at most {N} arguments, not {n}");
            return Err(Problem::new(problem));
        }
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match parameters.iter().position(|known| **known == *name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => {
                    let problem = format!("`{function}` is given `{name}` twice");
                    return Err(Problem::new(problem));
                }
                None => {
                    let problem = format!("`{function}` takes no argument `{name}`");
                    return Err(Problem::new(problem));
                }
            }
        }
        Ok(bound)
    }

    /// Takes the argument of this name out.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.named.iter().position(|(known, _)| **known == *name)?;
        Some(self.named.remove(at).1)
    }

    pub(super) fn no_more(&self, function: &str) -> Result<()> {
        match self.named.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::new(format!(
                "`{function}` takes no argument `{name}`"
            ))),
        }
    }
}

impl Run<'_> {
    pub(super) fn arguments(&self, arguments: &Arguments, scope: &Rc<Scope>) -> Result<Given> {
        let mut given = Given::default();
        for expr in &arguments.positional {
            given.positional.push(self.expr(expr, scope)?);
        }
        for (name, expr) in &arguments.named {
            given
                .named
                .push((Arc::clone(name), self.expr(expr, scope)?));
        }
        if let Some(spread) = &arguments.spread {
            let spread = self.expr(spread, scope)?.elements(&self.meter)?;
            given.positional.extend(spread);
        }
        if let Some(spread) = &arguments.spread_named {
            let spread = self.expr(spread, scope)?;
            let Value::Dict(dict) = &spread else {
                let problem = format!("`**` wants a dictionary, not `{}`", spread.kind());
                return Err(Problem::new(problem));
            };
            for (key, value) in &dict.entries {
                let Value::Str(name) = key else {
                    return Err(Problem::new("`**` wants texts as keys"));
                };
                given.named.push(((**name).into(), value.clone()));
            }
        }
        Ok(given)
    }

    /// Evaluates a call; `caller` is what a `{% call %}` block gives the macro beside its arguments.
    pub(super) fn call_with_caller(
        &self,
        call: &Expr,
        caller: Option<Value>,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let ExprKind::Call(callee, arguments) = &call.kind else {
            return self.expr(call, scope);
        };
        let callee = self.expr(callee, scope)?;
        let mut given = self.arguments(arguments, scope)?;
        if let Some(caller) = caller {
            given.named.push(("caller".into(), caller));
        }
        self.call(&callee, given)
            .map_err(|problem| problem.at(call.line))
    }

    pub(super) fn call(&self, callee: &Value, given: Given) -> Result<Value> {
        let callable = match callee {
            Value::Callable(callable) => callable,
            Value::Loop(state) => return self.call_loop(state, given),
            Value::Undefined(missing) => return Err(missing.problem()),
            other => {
                let problem = format!("`{}` object cannot be called", other.kind());
                return Err(Problem::new(problem));
            }
        };
        match &**callable {
            Callable::Function(function) => self.function(*function, given),
            Callable::Method(receiver, name) => self.method(receiver, name, given),
            Callable::Macro(number, scope) => match scope.upgrade() {
                Some(scope) => self.call_macro(*number, &scope, given),
                None => Err(Problem::new(format!(
                    "the macro `{}` is called where what it was defined in has ended",
                    self.ast.macros[*number].name
                ))),
            },
            Callable::Cycler(items, at) => {
                let value = items.get(at.get()).cloned();
                at.set((at.get() + 1) % items.len().max(1));
                Ok(value.unwrap_or(Value::None))
            }
            Callable::Joiner(separator, used) => Ok(match used.replace(true) {
                true => separator.clone(),
                false => self.meter.text("")?,
            }),
        }
    }

    fn call_macro(&self, number: usize, scope: &Rc<Scope>, mut given: Given) -> Result<Value> {
        let node = &self.ast.macros[number];
        let inside = Scope::inside(scope);
        let declares = |name: &str| node.parameters.iter().any(|(known, _)| **known == *name);
        if !declares("caller") {
            let caller = given.take("caller");
            let caller = caller.unwrap_or_else(|| Value::Undefined(Missing::Name("caller".into())));
            inside.set(&"caller".into(), caller);
        }
        let mut positional = std::mem::take(&mut given.positional).into_iter();
        for (name, default) in &node.parameters {
            let value = match (positional.next(), given.take(name), default) {
                (Some(_), Some(_), _) => {
                    let problem = format!("`{}` is given `{name}` twice", node.name);
                    return Err(Problem::new(problem));
                }
                (Some(value), None, _) | (None, Some(value), _) => value,
                (None, None, Some(default)) => self.expr(default, &inside)?,
                (None, None, None) => Value::Undefined(Missing::Name(Arc::clone(name))),
            };
            inside.set(name, value);
        }
        // As in Jinja2, only a macro that reads them takes more arguments than it names; which one does is not looked up.
        inside.set(&"varargs".into(), self.meter.tuple(positional.collect())?);
        let named = given.named.into_iter();
        let named = named
            .map(|(name, value)| Ok((self.meter.text(name)?, value)))
            .collect::<Result<_>>()?;
        inside.set(&"kwargs".into(), self.meter.dict(named)?);
        let mut out = self.meter.buffer();
        self.body(&node.body, &inside, &mut out)?;
        out.into_value()
    }

    /// `loop(children)` inside a recursive loop: the same loop over other elements.
    fn call_loop(&self, state: &Loop, given: Given) -> Result<Value> {
        let [iterable] = given.bind("loop", ["iterable"])?;
        let (Some(iterable), Some(outside)) = (iterable, state.outside.upgrade()) else {
            return Err(Problem::new("`loop` wants what it is to go through"));
        };
        if !self.ast.loops[state.number].recursive {
            return Err(Problem::new(
                "`loop` can be called in loops that are marked `recursive` only",
            ));
        }
        let mut out = self.meter.buffer();
        self.run_loop(state.number, &iterable, state.depth + 1, &outside, &mut out)?;
        out.into_value()
    }

    pub(super) fn loop_attribute(
        &self,
        state: &Rc<Loop>,
        name: &Arc<str>,
    ) -> Result<Option<Value>> {
        let (i, n) = (state.index.get(), state.items.len());
        let number = |n: usize| Some(Value::Int(n as i128));
        let neighbour = |at: Option<usize>| {
            let found = at.and_then(|at| state.items.get(at)).cloned();
            Some(found.unwrap_or(Value::Undefined(Missing::Element)))
        };
        Ok(match &**name {
            "index" => number(i + 1),
            "index0" => number(i),
            "revindex" => number(n - i),
            "revindex0" => number(n - i - 1),
            "first" => Some(Value::Bool(i == 0)),
            "last" => Some(Value::Bool(i + 1 == n)),
            "length" => number(n),
            "depth" => number(state.depth),
            "depth0" => number(state.depth - 1),
            "previtem" => neighbour(i.checked_sub(1)),
            "nextitem" => neighbour(Some(i + 1)),
            _ => None,
        })
    }
}
