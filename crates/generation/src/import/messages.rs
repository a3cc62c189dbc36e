//! Conversations: the last assistant turn is the trace, what stands before it is the prompt.

use records::prompt::problem_of;
use records::{Message, Role};

use super::adapter::{Adapter, Found, Kind, Question, Sample, Shape, name};
use super::completion::Completion;
use super::row::{Mismatch, Row, Turn};
use crate::config::TracesConfig;

/// What conversations are called, where the recipe does not say.
const OWN: [&str; 2] = ["messages", "conversations"];

/// The column of tools that an assistant may call.
const TOOLS: &str = "tools";

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
                .is_some_and(|turn| turn.as_ref().is_ok_and(|turn| turn.role == Role::System));
            if !has_system {
                turns.insert(0, Ok(Message::new("system", system)));
            }
        }
        conversation(row, &self.config, self.teacher, turns, empty)
    }
}

/// The columns that may stand beside a conversation.
pub fn beside(shape: Shape, config: &TracesConfig) -> Shape {
    let shape = shape
        .optional(&config.problem, "problem", Kind::Text)
        .optional(&config.answer, "gold_answer", Kind::Gold)
        .optional(&config.teacher, "teacher", Kind::Text)
        .optional(&config.finish_reason, "finish_reason", Kind::Text)
        .optional(&None, "source", Kind::Text)
        .optional(&None, TOOLS, Kind::Any);
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
    // Only a column that is meant for it: in many sets `answer` is the model's own.
    let gold_answer = row.gold(name(&config.answer, "gold_answer"))?;
    let broken = turns.iter().find_map(|turn| turn.as_ref().err().cloned());
    let last = turns
        .iter()
        .rposition(|turn| turn.as_ref().is_ok_and(|turn| turn.role == Role::Assistant));
    let said = last.and_then(|at| turns.get(at)?.as_ref().ok().cloned());
    let prompt: Vec<Message> = turns
        .into_iter()
        .take(last.unwrap_or(usize::MAX))
        .flatten()
        .map(Message::with_thought_inside)
        .collect();
    let problem = match row.text(name(&config.problem, "problem"))? {
        Some(problem) => problem.to_owned(),
        None => problem_of(&prompt),
    };
    if problem.trim().is_empty() {
        return Ok(broken.map_or_else(Found::no_problem, Found::Nothing));
    }
    let uses_tools = row.has(TOOLS) && !row.is_empty(TOOLS)
        || prompt
            .iter()
            .chain(&said)
            .any(|turn| turn.role == Role::Tool || turn.calls());
    let completion = match (broken, said) {
        _ if empty => Err("the conversation is null or empty".to_owned()),
        (Some(problem), _) => Err(problem),
        // A trace has no columns for them, and without them it would be another conversation.
        _ if uses_tools => {
            Err("the conversation uses tools; train on such rows with train.data".to_owned())
        }
        (None, None) => Err("the conversation has no assistant turn".to_owned()),
        (None, Some(turn)) if turn.content.trim().is_empty() && turn.reasoning.is_none() => {
            Err("the last assistant turn is empty".to_owned())
        }
        (None, Some(turn)) => Ok(Completion::of_turn(turn)),
    };
    let sample = Sample {
        completion,
        finish_reason: row
            .text(name(&config.finish_reason, "finish_reason"))?
            .map(Into::into),
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
