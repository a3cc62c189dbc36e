//! A problem ready to be put to a teacher.

use crate::Message;
use crate::Role;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// See [`prompt_id`].
    pub prompt_id: String,
    /// Where the problem came from: the file's path or dataset name, as the recipe gave it.
    pub source: String,
    pub problem: String,
    pub gold_answer: Option<String>,
    /// What the teacher is asked: an optional system turn and the user turn.
    pub messages: Vec<Message>,
}

/// The identity of a problem: the first 128 bits of blake3 over its text, in 32 hex digits.
///
/// It depends on nothing else, so that the same problem has the same id in every run, and
/// order, template and sampling settings may change without renaming it.
pub fn prompt_id(problem: &str) -> String {
    blake3::hash(problem.as_bytes()).to_hex()[..32].to_owned()
}

/// What was asked: the only user turn, or all turns but the system's, so that two conversations are not the same
/// problem because they end in the same words.
pub fn problem_of(prompt: &[Message]) -> String {
    let asked: Vec<_> = prompt
        .iter()
        .filter(|turn| turn.role != Role::System)
        .collect();
    match asked.as_slice() {
        [only] => only.content.clone(),
        turns => {
            let turns = turns
                .iter()
                .map(|turn| format!("{}: {}", turn.role, turn.content));
            turns.collect::<Vec<_>>().join("\n\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable() {
        assert_eq!(prompt_id(""), "af1349b9f5f9a1a6a0404dea36dcc949");
        assert_ne!(prompt_id("1+1"), prompt_id("1+2"));
    }
}
