//! What a teacher wrote, in the one form that traces have here: `<think>`, the thought, `</think>`, the answer.

use records::conversation::untagged;
use records::{FinishReason, Message};
use verify::think;

/// OpenThoughts' own tags.
const THOUGHT: [&str; 2] = ["<|begin_of_thought|>", "<|end_of_thought|>"];
const SOLUTION: [&str; 2] = ["<|begin_of_solution|>", "<|end_of_solution|>"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    pub reasoning: Option<String>,
    /// `None` where the thought never ended.
    pub answer: Option<String>,
    pub text: String,
}

impl Completion {
    /// Splits a text by the tags that it has. One without tags is an answer without a thought.
    pub fn of_text(text: &str) -> Self {
        let Some((_, thought)) = text.split_once(THOUGHT[0]) else {
            let split = think::split(text, false);
            return match split.reasoning {
                Some(reasoning) => Self::of_parts(Some(reasoning), split.answer),
                // As it stands, white space included.
                None => Self {
                    reasoning: None,
                    answer: split.answer.map(str::to_owned),
                    text: text.to_owned(),
                },
            };
        };
        let Some((thought, rest)) = thought.split_once(THOUGHT[1]) else {
            return Self::of_parts(Some(thought), None);
        };
        let answer = rest.split_once(SOLUTION[0]).map_or(rest, |(_, rest)| rest);
        let answer = answer
            .split_once(SOLUTION[1])
            .map_or(answer, |(text, _)| text);
        Self::of_parts(Some(thought), Some(answer))
    }

    /// The assistant's turn, its thought in a field of its own or within its content.
    pub fn of_turn(turn: Message) -> Self {
        match turn.reasoning {
            Some(thought) => {
                let answer = Some(turn.content.as_str()).filter(|text| !text.trim().is_empty());
                Self::of_parts(Some(&thought), answer)
            }
            None => Self::of_text(&turn.content),
        }
    }

    pub fn of_parts(reasoning: Option<&str>, answer: Option<&str>) -> Self {
        let reasoning = reasoning.map(|thought| untagged(thought).trim());
        let answer = answer.map(str::trim);
        let text = match (reasoning, answer) {
            (Some(reasoning), Some(answer)) => {
                format!("<think>\n{reasoning}\n</think>\n\n{answer}")
            }
            (Some(reasoning), None) => format!("<think>\n{reasoning}"),
            (None, answer) => answer.unwrap_or_default().to_owned(),
        };
        Self {
            reasoning: reasoning.map(str::to_owned),
            answer: answer.map(str::to_owned),
            text,
        }
    }

    /// Why it ended, as far as its form says.
    pub fn finish_reason(&self) -> FinishReason {
        match self.answer {
            Some(_) => FinishReason::Stop,
            None => FinishReason::Length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_s_tags_give_one_form() {
        let check = |text: &str, reasoning: Option<&str>, answer: Option<&str>, whole: &str| {
            let found = Completion::of_text(text);
            assert_eq!(found.reasoning.as_deref(), reasoning, "{text}");
            assert_eq!(found.answer.as_deref(), answer, "{text}");
            assert_eq!(found.text, whole, "{text}");
        };
        let whole = "<think>\na\n</think>\n\nb";
        check("<think>a</think>b", Some("a"), Some("b"), whole);
        check("a\n</think>\nb", Some("a"), Some("b"), whole);
        check(
            "<|begin_of_thought|>\n\na\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nb\n\n<|end_of_solution|>",
            Some("a"),
            Some("b"),
            whole,
        );
        check(
            "<|begin_of_thought|>a<|end_of_thought|>b",
            Some("a"),
            Some("b"),
            whole,
        );
        check(
            "<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>b",
            Some("a"),
            Some("b"),
            whole,
        );
        check("<|begin_of_thought|>a", Some("a"), None, "<think>\na");
        check("<think>a", Some("a"), None, "<think>\na");
        check(" b ", None, Some("b"), " b ");
    }
}
