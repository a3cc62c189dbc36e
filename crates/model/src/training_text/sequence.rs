//! Turns that share a text, as ids.

use std::ops::Range;

use super::TrainingIds;
use super::turn::Learnt;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Turns that follow one another in one text.
pub(super) struct Sequence {
    text: String,
    /// Bytes that are learnt.
    learnt: Vec<Range<usize>>,
    ends: bool,
}

impl Sequence {
    pub fn of(learnt: Learnt) -> Self {
        let mut sequence = Self {
            text: String::new(),
            learnt: Vec::new(),
            ends: true,
        };
        sequence.extend(learnt, "");
        sequence
    }

    /// Whether a later turn's prompt begins with the text so far and the end that was learnt with it.
    pub fn continues(&self, prompt: &str, end: &str) -> bool {
        let rest = prompt.strip_prefix(self.text.as_str());
        rest.is_some_and(|rest| rest.starts_with(end))
    }

    /// Adds a turn; its prompt begins with the text so far. `end` is the text that ends a turn.
    pub fn extend(&mut self, learnt: Learnt, end: &str) {
        let start = learnt.prompt.len();
        // The token that ended the turn before stands in this prompt, and is learnt.
        if let Some(before) = self.learnt.last_mut()
            && learnt
                .prompt
                .get(before.end..)
                .is_some_and(|rest| rest.starts_with(end))
        {
            before.end += end.len();
        }
        self.text = learnt.prompt;
        self.text.push_str(&learnt.completion);
        self.learnt.push(start..self.text.len());
        self.ends = learnt.ends;
    }

    /// The ids of the text; `end` is the text of the token that ends a turn.
    pub fn ids(&self, tokenizer: &Tokenizer, end: &str) -> Result<TrainingIds> {
        let mut pieces = self.pieces();
        let mut text = self.text.clone();
        if self.ends {
            match tokenizer.end_of_turn_id() {
                None => return Err(no_end_of_turn(tokenizer)),
                Some(_) if ends_with_eos(tokenizer, &text)? => {}
                Some(_) => {
                    text.push_str(end);
                    if let Some(last) = pieces.last_mut() {
                        last.end = text.len();
                    }
                }
            }
        }
        let ids = tokenizer.encode(&text)?;
        let ends = boundaries(tokenizer, &text, &pieces, &ids)?;
        let n_prompt = ends.first().copied().unwrap_or_default();
        let (prompt_ids, completion_ids) = ids.split_at(n_prompt.min(ids.len()));
        // Pieces alternate: prompt, learnt, context, learnt, …
        let context = ends
            .windows(2)
            .enumerate()
            .filter(|(at, _)| at % 2 == 1)
            .map(|(_, ends)| ends[0] - n_prompt..ends[1] - n_prompt)
            .filter(|range| !range.is_empty());
        Ok(TrainingIds {
            context: context.collect(),
            prompt_ids: prompt_ids.to_vec(),
            completion_ids: completion_ids.to_vec(),
        })
    }

    /// Prompt, learnt, context, learnt, … in bytes, end to end.
    fn pieces(&self) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for learnt in &self.learnt {
            pieces.push(from..learnt.start);
            pieces.push(learnt.clone());
            from = learnt.end;
        }
        pieces
    }
}

/// How many ids each piece ends at.
fn boundaries(
    tokenizer: &Tokenizer,
    text: &str,
    pieces: &[Range<usize>],
    ids: &[u32],
) -> Result<Vec<usize>> {
    let piece = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    if let [prompt, _] = pieces {
        // The prompt's own ids, as it is encoded for sampling; a token across the border is the completion's.
        return Ok(vec![
            shared(&tokenizer.encode(piece(prompt))?, ids),
            ids.len(),
        ]);
    }
    let mut ends = Vec::new();
    let mut joined = Vec::with_capacity(ids.len());
    for range in pieces {
        joined.extend(tokenizer.encode(piece(range))?);
        ends.push(joined.len());
    }
    if joined == ids {
        return Ok(ends);
    }
    // Tokens cross the borders, or every text begins with a space of its own.
    let prefix = |range: &Range<usize>| {
        let own = tokenizer.encode(text.get(..range.end).unwrap_or_default())?;
        Ok(shared(&own, ids))
    };
    pieces.iter().map(prefix).collect()
}

fn ends_with_eos(tokenizer: &Tokenizer, text: &str) -> Result<bool> {
    // The end alone: an id of it stands for itself wherever it is.
    let longest = tokenizer
        .eos_ids()
        .iter()
        .filter_map(|id| tokenizer.token_bytes(*id))
        .map(|b| b.len())
        .max();
    let mut from = text.len().saturating_sub(longest.unwrap_or_default());
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    let last = tokenizer.encode(&text[from..])?.last().copied();
    Ok(last.is_some_and(|id| tokenizer.eos_ids().contains(&id)))
}

fn no_end_of_turn(tokenizer: &Tokenizer) -> Error {
    Error::Tokenizer {
        path: tokenizer.dir().join("tokenizer_config.json"),
        problem: "names no eos_token that tokenizer.json has, and the chat template closes the assistant's turn with no special token".into(),
    }
}

/// How many ids two encodings begin with together.
fn shared(own: &[u32], ids: &[u32]) -> usize {
    own.iter()
        .zip(ids)
        .take_while(|(own, id)| own == id)
        .count()
}
