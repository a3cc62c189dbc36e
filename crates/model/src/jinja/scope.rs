//! Variables, by where they are visible.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::value::Value;

/// The names that a template, a round of a loop or a call of a macro sets.
pub(super) struct Scope {
    names: RefCell<HashMap<Arc<str>, Value>>,
    outside: Option<Rc<Scope>>,
}

impl Scope {
    pub(super) fn root() -> Rc<Self> {
        Rc::new(Self {
            names: RefCell::default(),
            outside: None,
        })
    }

    pub(super) fn inside(outside: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self {
            names: RefCell::default(),
            outside: Some(Rc::clone(outside)),
        })
    }

    pub(super) fn set(&self, name: &Arc<str>, value: Value) {
        self.names.borrow_mut().insert(Arc::clone(name), value);
    }

    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.names.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.outside.as_deref()?;
        }
    }
}
