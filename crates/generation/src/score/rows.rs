//! What of a table's row is scored: its token ids, or those that its messages make.

use arrow::array::RecordBatch;
use arrow::datatypes::UInt32Type;
use model::tokenizer::Tokenizer;
use records::Message;
use records::column::Columns;

use crate::error::Result;
use crate::teacher::LENGTH;

/// The columns that are read to be scored.
pub const COLUMNS: [&str; 6] = [
    "prompt_token_ids",
    "token_ids",
    "messages",
    "prompt_messages",
    "text",
    "finish_reason",
];

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
        || has("messages")
        || (has("prompt_messages") && has("text"))
}

/// The rows of a batch, in order. Ids go before messages: what was sampled is never tokenized again.
///
/// # Errors
/// A column of another type.
pub fn rows(batch: &RecordBatch, tokenizer: Option<&Tokenizer>) -> Result<Vec<Row>> {
    let n_rows = batch.num_rows();
    match read(batch, tokenizer) {
        // A null within a list, which is one row's fault.
        Err(error) if n_rows > 1 => {
            let rows: Vec<Row> = (0..n_rows)
                .map(|at| match read(&batch.slice(at, 1), tokenizer) {
                    Ok(mut row) => row.pop().unwrap_or(Row::Nothing),
                    Err(error) => Row::Unfit(error.to_string()),
                })
                .collect();
            let readable = |row: &Row| !matches!(row, Row::Unfit(_));
            if rows.iter().any(readable) {
                Ok(rows)
            } else {
                Err(error)
            }
        }
        rows => rows,
    }
}

fn read(batch: &RecordBatch, tokenizer: Option<&Tokenizer>) -> Result<Vec<Row>> {
    let columns = Columns(batch);
    let mut prompts = columns
        .optional_lists::<UInt32Type>("prompt_token_ids")?
        .into_iter();
    let mut completions = columns
        .optional_lists::<UInt32Type>("token_ids")?
        .into_iter();
    let mut conversations = columns.optional_messages("messages")?.into_iter();
    let mut questions = columns.optional_messages("prompt_messages")?.into_iter();
    let mut texts = columns.optional_strings("text")?.into_iter();
    let mut endings = columns.optional_strings("finish_reason")?.into_iter();
    Ok((0..batch.num_rows())
        .map(|_| {
            let ids = (prompts.next().flatten(), completions.next().flatten());
            let conversation = conversations.next().flatten().unwrap_or_default();
            let question = questions.next().flatten().unwrap_or_default();
            let text = texts.next().flatten();
            let ending = endings.next().flatten();
            if let (Some(prompt_token_ids), Some(token_ids)) = ids {
                return whole(Item {
                    prompt_token_ids,
                    token_ids,
                });
            }
            let messages = match text {
                _ if !conversation.is_empty() => conversation,
                Some(text) => [question, vec![Message::new("assistant", text)]].concat(),
                None => return Row::Nothing,
            };
            match tokenizer {
                Some(tokenizer) => tokenized(&messages, ending.as_deref(), tokenizer),
                None => Row::Unfit(
                    "has no token ids, and the recipe names no teacher.tokenizer to make them"
                        .into(),
                ),
            }
        })
        .collect())
}

fn whole(item: Item) -> Row {
    match (item.prompt_token_ids.is_empty(), item.token_ids.is_empty()) {
        (true, _) => Row::Unfit("has an empty prompt: its first token follows nothing".into()),
        (_, true) => Row::Unfit("has an empty completion".into()),
        _ => Row::Item(item),
    }
}

fn tokenized(messages: &[Message], ending: Option<&str>, tokenizer: &Tokenizer) -> Row {
    match tokenizer.training_ids(messages) {
        Ok((prompt_token_ids, mut token_ids)) => {
            // The template closes every turn; this one was cut off.
            let ended = token_ids
                .last()
                .is_some_and(|last| tokenizer.eos_ids().contains(last));
            if ended && ending == Some(LENGTH) {
                token_ids.pop();
            }
            whole(Item {
                prompt_token_ids,
                token_ids,
            })
        }
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
