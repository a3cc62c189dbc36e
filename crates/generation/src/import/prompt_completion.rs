//! TRL's prompt and completion, each a text or a list of messages.

use records::Message;

use super::adapter::{Adapter, Found, Kind, Shape, UNKNOWN};
use super::messages::{beside, conversation};
use super::row::{Mismatch, Row, Turn};
use crate::config::TracesConfig;

const PROMPT: &str = "prompt";
const COMPLETION: &str = "completion";

pub struct PromptCompletion {
    pub config: TracesConfig,
}

impl Adapter for PromptCompletion {
    fn shape(&self) -> Shape {
        let shape = Shape::default()
            .one_of(&[PROMPT], Kind::TextOrTurns)
            .one_of(&[COMPLETION], Kind::TextOrTurns);
        beside(shape, &self.config)
    }

    fn read(&self, row: &Row) -> Result<Found, Mismatch> {
        let mut prompt = turns(row, PROMPT, "user")?;
        let completion = turns(row, COMPLETION, "assistant")?;
        let empty = completion.is_empty();
        prompt.extend(completion);
        conversation(row, &self.config, UNKNOWN, prompt, empty)
    }
}

fn turns(row: &Row, name: &str, role: &str) -> Result<Vec<Turn>, Mismatch> {
    if row.is_text(name) {
        let text = row.text(name)?;
        return Ok(text
            .map(|text| Ok(Message::new(role, text)))
            .into_iter()
            .collect());
    }
    Ok(row.turns(name)?.unwrap_or_default())
}
