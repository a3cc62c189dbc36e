//! What a conversation teaches: prompts and completions as token ids.
//!
//! A completion is the assistant's turn as the chat template renders it, thinking included, up to the token that ends
//! the turn: TRL's rendering of prompt and completion as one text. Where the template would cut or rewrite the thought,
//! the turn stands as it was written. A thought that the prompt's tail has opened (`<think>`) is not opened twice.
//!
//! Prompt and completion are encoded as one text and split where its ids leave those of the prompt alone, as TRL does
//! (1.16, the common prefix): a tokenizer that puts a space before every text puts none between them.
//!
//! # Layout
//!
//! - This module: [`Tokenizer::training`], what it takes and gives.
//! - `turn`: one turn as text. `sequence`: turns that share a text, as ids.

use std::ops::Range;

use records::conversation::Conversation;
use records::{Message, Role};
use serde::{Deserialize, Serialize};

use self::sequence::Sequence;
use self::turn::{Place, Written};
use crate::error::{Error, Result};
use crate::tokenizer::{Thoughts, Tokenizer};

mod sequence;
mod turn;

/// Which of an assistant's turns are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    #[default]
    Last,
    All,
}

/// What becomes of an answer that has no thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingThought {
    /// It stands as the template renders it. A template that opens `<think>` and would leave it open refuses it.
    #[default]
    Template,
    /// It gets an empty thought, `<think>\n\n</think>\n\n`, unless the prompt has one already.
    Empty,
    Refuse,
}

/// How conversations are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainingOptions {
    pub turns: Turns,
    pub missing_thought: MissingThought,
    /// The last turn was cut off: it is learnt without an end.
    pub cut: bool,
}

/// One sequence to train on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainingIds {
    pub prompt_ids: Vec<u32>,
    /// Ends with the token that ends the turn, unless the turn was cut off.
    pub completion_ids: Vec<u32>,
    /// Positions of the completion that are not learnt: turns of others between two of the assistant's.
    pub context: Vec<Range<usize>>,
}

/// What a conversation gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Training {
    /// One sequence; several where a later turn's prompt does not begin with what went before, as templates that drop
    /// the thoughts of earlier turns have it.
    Sequences(Vec<TrainingIds>),
    /// Nothing to learn, and why.
    Nothing(&'static str),
}

/// The reason of conversations whose assistant says nothing.
pub const EMPTY_COMPLETION: &str = "empty_completion";

/// The reason of conversations whose turns are all marked as not to be learnt.
pub const MASKED: &str = "masked";

impl Tokenizer {
    /// The sequences that a conversation teaches. Turns after the assistant's last are left out.
    ///
    /// # Errors
    /// [`Error::NoCompletion`] without an assistant's turn; [`Error::NoThought`] and [`Error::ClosedThought`] where
    /// thought and template do not fit; the template's own refusals.
    pub fn training(
        &self,
        conversation: &Conversation,
        options: TrainingOptions,
    ) -> Result<Training> {
        let messages = &conversation.messages;
        let Some(last) = messages
            .iter()
            .rposition(|turn| turn.role == Role::Assistant)
        else {
            let found = messages
                .last()
                .map_or("nothing".into(), |turn| format!("`{}`", turn.role));
            return Err(Error::NoCompletion(found));
        };
        let first = match options.turns {
            Turns::Last => last,
            Turns::All => 0,
        };
        let end = self.end_of_turn_text();
        let end = end.as_deref().unwrap_or_default();
        let mut reason = None;
        let mut sequences: Vec<Sequence> = Vec::new();
        for at in first..=last {
            let Some(turn) = messages.get(at).filter(|turn| turn.role == Role::Assistant) else {
                continue;
            };
            if turn.train == Some(false) {
                reason = reason.or(Some(MASKED));
                continue;
            }
            let cut = options.cut && at == last;
            let turn = &self.with_thought_apart(turn);
            if says_nothing(turn, cut) {
                reason = Some(EMPTY_COMPLETION);
                continue;
            }
            let history = messages.get(..at).unwrap_or_default();
            let place = Place {
                tokenizer: self,
                history,
                tools: conversation.tools.as_ref(),
                prompt: self.render(history, true, conversation.tools.as_ref())?,
                end,
            };
            let learnt = place.learnt(turn, options.missing_thought, cut)?;
            match sequences.last_mut() {
                Some(sequence) if sequence.continues(&learnt.prompt, end) => {
                    sequence.extend(learnt, end);
                }
                _ => sequences.push(Sequence::of(learnt)),
            }
        }
        if sequences.is_empty() {
            return Ok(Training::Nothing(reason.unwrap_or(EMPTY_COMPLETION)));
        }
        let sequences = sequences
            .into_iter()
            .map(|sequence| sequence.ids(self, end));
        sequences.collect::<Result<_>>().map(Training::Sequences)
    }

    /// The turn with a whole thought out of its content, for a template that has other marks for it.
    pub(crate) fn with_thought_apart(&self, turn: &Message) -> Message {
        let mut turn = turn.clone();
        let otherwise = self.writes_thoughts() == Thoughts::Otherwise;
        if turn.reasoning.is_some() || turn.role != Role::Assistant || !otherwise {
            return turn;
        }
        let written = Written::of(&turn);
        if let (Some(thought), Some(answer)) = (written.thought, written.answer)
            && written.before.trim().is_empty()
        {
            let newlines = ['\r', '\n'];
            let thought = thought.trim_matches(newlines).to_owned();
            let answer = answer.trim_start_matches(newlines).to_owned();
            turn.reasoning = Some(thought).filter(|thought| !thought.trim().is_empty());
            turn.content = answer;
        }
        turn
    }

    /// The header of an assistant's turn that the template does not write for `add_generation_prompt`: prompts then end
    /// after the user's turn. `None` where it writes it, or has none.
    pub(crate) fn header_without_prompt(&self) -> Option<String> {
        let question = [Message::new("user", "x")];
        let rendered = |open| self.render(&question, open, None).ok();
        let (prompt, without) = (rendered(true)?, rendered(false)?);
        if prompt != without {
            return None;
        }
        let end = self.end_of_turn_text();
        let place = Place {
            tokenizer: self,
            history: &question,
            tools: None,
            prompt,
            end: end.as_deref().unwrap_or_default(),
        };
        let around = place.around(&Message::new(Role::Assistant, "a")).ok()?;
        Some(around.lead).filter(|header| !header.trim().is_empty())
    }

    /// The text of the token that ends a turn.
    fn end_of_turn_text(&self) -> Option<String> {
        let bytes = self.token_bytes(self.end_of_turn_id()?)?;
        String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty())
    }
}

/// Whether a turn teaches nothing but to end: blank, or a finished thought without an answer.
fn says_nothing(turn: &Message, cut: bool) -> bool {
    if turn.calls() {
        return false;
    }
    let blank = turn.content.trim().is_empty();
    match &turn.reasoning {
        Some(_) => blank && !cut,
        None => blank,
    }
}
