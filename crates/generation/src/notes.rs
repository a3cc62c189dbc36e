//! What is done otherwise than the recipe says, or than a reader would think: said once, and counted.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// One kind of such things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub what: String,
    pub count: u64,
    /// Where it happened first.
    pub first: String,
}

impl Note {
    /// The line that is printed when it happens first.
    pub fn line(&self) -> String {
        match self.first.is_empty() {
            true => format!("note: {}", self.what),
            false => format!("note: {} (first: {})", self.what, self.first),
        }
    }
}

/// Notes of a teacher, in the order in which they came up.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Vec<Note>>);

impl Notes {
    /// Counts one more; `first` is asked for where it happens the first time.
    pub fn count(&self, what: &str, n: u64, first: impl FnOnce() -> String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match notes.iter_mut().find(|note| note.what == what) {
            Some(note) => note.count += n,
            None => notes.push(Note {
                what: what.to_owned(),
                count: n,
                first: first(),
            }),
        }
    }

    pub fn all(&self) -> Vec<Note> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.clone()
    }
}
