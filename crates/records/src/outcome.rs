//! How a stage's work ended, where it did not fail.

/// What came of work that may be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Nothing is left to do, and the manifest is written.
    Complete(T),
    /// It was asked to stop: what had finished is kept, and the next start goes on from there.
    Interrupted,
}

impl<T> Outcome<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Complete(value) => Outcome::Complete(f(value)),
            Self::Interrupted => Outcome::Interrupted,
        }
    }
}
