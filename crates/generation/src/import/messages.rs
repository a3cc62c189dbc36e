//! Conversations: the last assistant turn is the trace, what stands before it is the prompt.

use records::Message;

use super::adapter::{Adapter, Found, Kind, NO_PROBLEM, Question, Sample, Shape, name};
use super::completion::Completion;
use super::row::{Mismatch, Row, Turn};
use crate::config::TracesConfig;

/// What conversations are called, where the recipe does not say.
const OWN: [&str; 2] = ["messages", "conversations"];

const ASSISTANT: &str = "assistant";

pub struct Messages {
    pub config: TracesConfig,
    /// Of sets that do not say who wrote.
    pub teacher: &'static str,
}

impl Messages {
    pub fn turns(&self, row: &Row) -> Result<Option<Vec<Turn>>, Mismatch> {
        let named = self.config.messages.as_deref();
        for name in named.map_or(&OWN[..], |_| &[]).iter().copied().chain(named) {
            if let Some(turns) = row.turns(name)? {
                return Ok(Some(turns));
            }
        }
        Ok(None)
    }
}

impl Adapter for Messages {
    fn shape(&self) -> Shape {
        let config = &self.config;
        let named = config.messages.as_deref();
        let shape = match &named {
            Some(name) => Shape::default().one_of(&[name], Kind::Turns),
            None => Shape::default().one_of(&OWN, Kind::Turns),
        };
        beside(shape, config).optional(&None, "system", Kind::Text)
    }

    fn read(&self, row: &Row) -> Result<Found, Mismatch> {
        let turns = self.turns(row)?;
        let empty = turns.as_ref().is_none_or(Vec::is_empty);
        let mut turns = turns.unwrap_or_default();
        if let Some(system) = row.text("system")? {
            let has_system = turns
                .first()
                .is_some_and(|turn| turn.as_ref().is_some_and(|turn| turn.role == "system"));
            if !has_system {
                turns.insert(0, Some(Message::new("system", system)));
            }
        }
        conversation(row, &self.config, self.teacher, turns, empty)
    }
}

/// The columns that may stand beside a conversation.
pub fn beside(shape: Shape, config: &TracesConfig) -> Shape {
    let shape = shape
        .optional(&config.problem, "problem", Kind::Text)
        .optional(&config.answer, "gold_answer", Kind::TextOrNumber)
        .optional(&config.teacher, "teacher", Kind::Text)
        .optional(&config.finish_reason, "finish_reason", Kind::Text)
        .optional(&None, "source", Kind::Text);
    let shape = match config.answer {
        Some(_) => shape,
        None => shape.optional(&None, "answer", Kind::TextOrNumber),
    };
    match config.teacher {
        Some(_) => shape,
        None => shape.optional(&None, "model", Kind::Text),
    }
}

/// A conversation and what stands beside it as one trace.
pub fn conversation(
    row: &Row,
    config: &TracesConfig,
    unnamed: &str,
    turns: Vec<Turn>,
    empty: bool,
) -> Result<Found, Mismatch> {
    let teacher = match row.text(name(&config.teacher, "teacher"))? {
        None if config.teacher.is_none() => row.text("model")?,
        found => found,
    };
    let teacher = teacher.unwrap_or(unnamed);
    let gold_answer = match row.text_or_number(name(&config.answer, "gold_answer"))? {
        None if config.answer.is_none() => row.text_or_number("answer")?,
        found => found,
    };
    let broken = turns.iter().position(Option::is_none);
    let last = turns
        .iter()
        .rposition(|turn| turn.as_ref().is_some_and(|turn| turn.role == ASSISTANT));
    let text = last.and_then(|at| turns.get(at).cloned().flatten());
    let prompt: Vec<Message> = turns
        .into_iter()
        .take(last.unwrap_or(usize::MAX))
        .flatten()
        .collect();
    let problem = match row.text(name(&config.problem, "problem"))? {
        Some(problem) => problem.to_owned(),
        None => problem_of(&prompt),
    };
    if problem.trim().is_empty() {
        return Ok(NO_PROBLEM);
    }
    let completion = match (broken, text) {
        _ if empty => Err("the conversation is null or empty".to_owned()),
        (Some(at), _) => Err(format!("turn {at} has no role or no content")),
        (None, None) => Err("the conversation has no assistant turn".to_owned()),
        (None, Some(turn)) if turn.content.trim().is_empty() => {
            Err("the last assistant turn is empty".to_owned())
        }
        (None, Some(turn)) => Ok(Completion::of_text(&turn.content)),
    };
    let sample = Sample {
        completion,
        finish_reason: row
            .text(name(&config.finish_reason, "finish_reason"))?
            .map(str::to_owned),
        teacher: teacher.to_owned(),
    };
    let messages = match prompt.is_empty() {
        true => vec![Message::new("user", problem.as_str())],
        false => prompt,
    };
    let question = Question {
        problem,
        messages,
        gold_answer,
        source: row.text("source")?.map(str::to_owned),
    };
    Ok(Found::Traces(question, vec![sample]))
}

/// What was asked: the only user turn, or all turns but the system's, so that two conversations are not the same
/// problem because they end in the same words.
fn problem_of(prompt: &[Message]) -> String {
    let asked: Vec<_> = prompt.iter().filter(|turn| turn.role != "system").collect();
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
