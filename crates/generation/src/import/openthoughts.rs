//! OpenThoughts-114k: its `default` set is a conversation in tags of its own, its `metadata` set has the parts apart.

use super::adapter::{Adapter, Found, Kind, Question, Sample, Shape, name};
use super::completion::Completion;
use super::messages::Messages;
use super::row::{Mismatch, Row};
use crate::config::TracesConfig;

const TEACHER: &str = "DeepSeek-R1";
const REASONING: &str = "deepseek_reasoning";
const SOLUTION: &str = "deepseek_solution";
const GOLD: &str = "ground_truth_solution";

pub struct OpenThoughts {
    conversation: Messages,
}

impl OpenThoughts {
    pub fn new(config: TracesConfig) -> Self {
        let conversation = Messages {
            config,
            teacher: TEACHER,
        };
        Self { conversation }
    }

    fn config(&self) -> &TracesConfig {
        &self.conversation.config
    }
}

impl Adapter for OpenThoughts {
    fn shape(&self) -> Shape {
        let mut shape = self.conversation.shape();
        if self.config().messages.is_none() {
            // Either of the two sets.
            for names in &mut shape.required {
                if names.iter().any(|name| name == "conversations") {
                    names.push(SOLUTION.to_owned());
                }
            }
        }
        shape
            .optional(&None, REASONING, Kind::Text)
            .optional(&None, SOLUTION, Kind::Text)
            .optional(&None, GOLD, Kind::Gold)
    }

    fn read(&self, row: &Row) -> Result<Found, Mismatch> {
        let config = self.config();
        if self.conversation.turns(row)?.is_some()
            || !(row.has(REASONING) || row.has(SOLUTION) || row.has(GOLD))
        {
            return self.conversation.read(row);
        }
        let Some(problem) = row.text(name(&config.problem, "problem"))? else {
            return Ok(Found::no_problem());
        };
        let question = Question {
            gold_answer: row.gold(name(&config.answer, GOLD))?,
            source: row.text("source")?.map(str::to_owned),
            ..Question::alone(problem)
        };
        let sample = match (row.text(REASONING)?, row.text(SOLUTION)?) {
            (None, None) => {
                Sample::failed(format!("`{REASONING}` and `{SOLUTION}` are null"), TEACHER)
            }
            (reasoning, solution) => Sample {
                completion: Ok(Completion::of_parts(reasoning, solution)),
                finish_reason: None,
                teacher: TEACHER.to_owned(),
            },
        };
        Ok(Found::Traces(question, vec![sample]))
    }
}
