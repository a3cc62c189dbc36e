//! What of a table's row is scored: its token ids, or those that its messages make.

use arrow::array::RecordBatch;
use arrow::datatypes::UInt32Type;
use model::tokenizer::Tokenizer;
use model::training_text::{Training, TrainingOptions};
use records::column::{Columns, each_row};
use records::conversation::{self, Conversation, Layout};
use records::{FinishReason, Message, cell};
use serde_json::{Map, Value};

use crate::error::Result;

/// The columns that are read to be scored, beside those of conversations.
const OWN_COLUMNS: [&str; 5] = [
    "prompt_token_ids",
    "token_ids",
    "prompt_messages",
    "text",
    "finish_reason",
];

/// The columns that are read to be scored.
pub fn columns() -> Vec<&'static str> {
    [&OWN_COLUMNS[..], &conversation::COLUMNS].concat()
}

/// A completion and what it follows; neither is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub prompt_token_ids: Vec<u32>,
    /// Ends in EOS where the completion was finished.
    pub token_ids: Vec<u32>,
}

impl Item {
    /// Names the item by its contents: the same ids are scored once.
    pub fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.prompt_token_ids.len() as u64).to_le_bytes());
        for id in self.prompt_token_ids.iter().chain(&self.token_ids) {
            hasher.update(&id.to_le_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    Item(Item),
    /// A failed trace, which has no completion.
    Nothing,
    /// Why the row cannot be scored.
    Unfit(String),
}

/// Whether a table of these columns has anything to score.
pub fn readable(has: impl Fn(&str) -> bool) -> bool {
    (has("prompt_token_ids") && has("token_ids"))
        || Layout::of(&has).is_some()
        || (has("prompt_messages") && has("text"))
}

/// The rows of a batch, in order. Ids go before messages: what was sampled is never tokenized again.
///
/// # Errors
/// A column of another type.
pub fn rows(batch: &RecordBatch, tokenizer: Option<&Tokenizer>) -> Result<Vec<Row>> {
    let rows = each_row(batch, |batch| read(batch, tokenizer));
    let none_is_read = rows.iter().all(Result::is_err);
    rows.into_iter()
        .map(|row| match row {
            // A column that no row can be read from is the table's fault, a null within a list one row's.
            Err(error) if none_is_read => Err(error.into()),
            row => Ok(row.unwrap_or_else(|error| Row::Unfit(error.to_string()))),
        })
        .collect()
}

fn read(batch: &RecordBatch, tokenizer: Option<&Tokenizer>) -> records::Result<Vec<Row>> {
    let columns = Columns(batch);
    let mut prompts = columns
        .optional_lists::<UInt32Type>("prompt_token_ids")?
        .into_iter();
    let mut completions = columns
        .optional_lists::<UInt32Type>("token_ids")?
        .into_iter();
    let mut questions = columns.optional_messages("prompt_messages")?.into_iter();
    let mut texts = columns.optional_strings("text")?.into_iter();
    let mut endings = columns.optional_strings("finish_reason")?.into_iter();
    Ok((0..batch.num_rows())
        .map(|at| {
            let ids = (prompts.next().flatten(), completions.next().flatten());
            let question = questions.next().flatten().unwrap_or_default();
            let text = texts.next().flatten();
            let ending = endings.next().flatten().map(FinishReason::from);
            if let (Some(prompt_token_ids), Some(token_ids)) = ids {
                return whole(Item {
                    prompt_token_ids,
                    token_ids,
                });
            }
            let conversation = match conversation(batch, at) {
                Err(problem) => return Row::Unfit(problem),
                Ok(Some(conversation)) => conversation,
                Ok(None) => match text {
                    Some(text) => [question, vec![Message::new("assistant", text)]]
                        .concat()
                        .into(),
                    None => return Row::Nothing,
                },
            };
            match tokenizer {
                Some(tokenizer) => tokenized(&conversation, ending.as_ref(), tokenizer),
                None => Row::Unfit(
                    "has no token ids, and the recipe names no teacher.tokenizer to make them"
                        .into(),
                ),
            }
        })
        .collect())
}

/// A row's conversation, in every layout but ids.
fn conversation(batch: &RecordBatch, row: usize) -> Result<Option<Conversation>, String> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    let fields: Map<String, Value> = fields
        .filter(|(field, _)| conversation::COLUMNS.contains(&field.name().as_str()))
        .map(|(field, column)| (field.name().clone(), cell::value(column.as_ref(), row)))
        .filter(|(_, value)| !value.is_null())
        .collect();
    let layout = Layout::of(|name| fields.contains_key(name));
    let read = layout.map(|layout| layout.read(&fields)).transpose()?;
    Ok(read.filter(|conversation| !conversation.messages.is_empty()))
}

fn whole(item: Item) -> Row {
    match (item.prompt_token_ids.is_empty(), item.token_ids.is_empty()) {
        (true, _) => Row::Unfit("has an empty prompt: its first token follows nothing".into()),
        (_, true) => Row::Unfit("has an empty completion".into()),
        _ => Row::Item(item),
    }
}

fn tokenized(
    conversation: &Conversation,
    ending: Option<&FinishReason>,
    tokenizer: &Tokenizer,
) -> Row {
    let options = TrainingOptions {
        cut: ending == Some(&FinishReason::Length),
        ..TrainingOptions::default()
    };
    match tokenizer.training(conversation, options) {
        Ok(Training::Nothing(reason)) => Row::Unfit(reason.into()),
        // The last turn alone is learnt, so there is one sequence.
        Ok(Training::Sequences(sequences)) => match sequences.into_iter().next_back() {
            Some(ids) => whole(Item {
                prompt_token_ids: ids.prompt_ids,
                token_ids: ids.completion_ids,
            }),
            None => Row::Nothing,
        },
        Err(error) => Row::Unfit(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_prompt_and_completion_apart() {
        let item = |prompt: &[u32], completion: &[u32]| Item {
            prompt_token_ids: prompt.to_vec(),
            token_ids: completion.to_vec(),
        };
        assert_eq!(item(&[1], &[2, 3]).key(), item(&[1], &[2, 3]).key());
        assert_ne!(item(&[1], &[2, 3]).key(), item(&[1, 2], &[3]).key());
        assert_ne!(item(&[1], &[2]).key(), item(&[1], &[258]).key());
    }
}
