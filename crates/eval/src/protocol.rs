//! Protocols by which published scores were measured: the words of the question, the sampling, and how far an answer is
//! looked for.
//!
//! Sources: DeepSeek-R1 (Nature version, B.4.3) and the cards of its models; lighteval with open-r1's settings; evalchemy
//! and MathArena as their repositories have them; for choices the prompt of simple-evals, which R1 and lighteval use too.

use generation::config::R1_TEMPLATE;
use records::benchmark::{AnswerKind, AnswerSearch, Benchmark};
use serde::{Deserialize, Serialize};

/// A protocol by its name in recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// DeepSeek-R1's.
    #[serde(rename = "r1")]
    R1,
    /// That of R1-0528 and its distilled 8B: longer thoughts, fewer samples.
    #[serde(rename = "r1-0528")]
    R1Of0528,
    /// lighteval's questions with the samples of open-r1.
    #[serde(rename = "lighteval")]
    Lighteval,
    #[serde(rename = "evalchemy")]
    Evalchemy,
    /// MathArena's questions. It samples each model as its makers advise; R1's values stand here.
    #[serde(rename = "matharena")]
    MathArena,
    /// One sample, the likeliest token each time.
    #[serde(rename = "greedy")]
    Greedy,
}

const SIMPLE_EVALS_CHOICE: &str = "Answer the following multiple choice question. The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n{problem}";

const LIGHTEVAL_MATH: &str = "Solve the following math problem efficiently and clearly.  The last line of your response should be of the following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) where ANSWER is just the final number or expression that solves the problem. Think step by step before answering.\n\n{problem}";

const EVALCHEMY_MATH: &str = "Problem: {problem}\nMark your solution with \\boxed\nAnswer:";

const EVALCHEMY_CHOICE: &str = "Return your final response within \\boxed{} and only include the letter choice (A, B, C, or D) as your final response.\nProblem: {problem}\nOptions: {options}\nAnswer:";

const MATH_ARENA: &str = "Put your final answer within \\boxed{}.\n\n{problem}";

const MATH_ARENA_AIME: &str = "Put your final answer within \\boxed{}.\nThe answer is an integer between 0 and 999 inclusive.\n\n{problem}";

impl Protocol {
    /// The name in recipes and scores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::R1 => "r1",
            Self::R1Of0528 => "r1-0528",
            Self::Lighteval => "lighteval",
            Self::Evalchemy => "evalchemy",
            Self::MathArena => "matharena",
            Self::Greedy => "greedy",
        }
    }

    /// Samples per question.
    pub fn samples(self, benchmark: &Benchmark) -> u32 {
        let name = benchmark.name.as_str();
        let (letters, long) = (
            benchmark.answers() == AnswerKind::Letter,
            matches!(name, "math500" | "gsm8k"),
        );
        // A contest is a few dozen questions, whose score moves with every sample.
        let contest = records::benchmark::named::find(name).is_some() && !long && !letters;
        match self {
            Self::R1 if contest || letters => 64,
            Self::R1 | Self::R1Of0528 => 16,
            Self::Lighteval if contest => 64,
            Self::Lighteval if letters => 8,
            Self::Lighteval => 4,
            Self::Evalchemy if contest => 10,
            Self::Evalchemy if letters => 3,
            Self::Evalchemy | Self::Greedy => 1,
            Self::MathArena => 4,
        }
    }

    pub fn temperature(self) -> f64 {
        match self {
            Self::R1 | Self::R1Of0528 | Self::Lighteval | Self::MathArena => 0.6,
            Self::Evalchemy => 0.7,
            Self::Greedy => 0.0,
        }
    }

    pub fn top_p(self) -> f64 {
        match self {
            Self::R1 | Self::R1Of0528 | Self::Lighteval | Self::MathArena => 0.95,
            Self::Evalchemy | Self::Greedy => 1.0,
        }
    }

    pub fn max_new_tokens(self) -> u32 {
        match self {
            Self::R1Of0528 => 65_536,
            _ => 32_768,
        }
    }

    /// The user turn of a question; there is no system turn. `{problem}` stands for the problem, choices included, or for
    /// the question alone where `{options}` stands for its choices.
    pub fn template(self, answers: AnswerKind) -> &'static str {
        match (self, answers) {
            (Self::Evalchemy, AnswerKind::Letter) => EVALCHEMY_CHOICE,
            (_, AnswerKind::Letter) => SIMPLE_EVALS_CHOICE,
            (Self::R1 | Self::R1Of0528 | Self::Greedy, _) => R1_TEMPLATE,
            (Self::Lighteval, _) => LIGHTEVAL_MATH,
            (Self::Evalchemy, _) => EVALCHEMY_MATH,
            (Self::MathArena, AnswerKind::ThreeDigits) => MATH_ARENA_AIME,
            (Self::MathArena, _) => MATH_ARENA,
        }
    }

    /// How far the answer of a response is looked for.
    pub fn answer_from(self, benchmark: &Benchmark) -> AnswerSearch {
        match (self, benchmark.answers()) {
            (_, AnswerKind::Letter) => benchmark.answer_from,
            // Its graders read boxes only.
            (Self::Evalchemy, _) => AnswerSearch::Boxed,
            // Not strict: without a box, the last integer.
            (Self::MathArena, _) => AnswerSearch::LastNumber,
            _ => benchmark.answer_from,
        }
    }

    /// The templates of every kind of question, which decide samples.
    pub(crate) fn templates(self) -> [&'static str; 3] {
        let kinds = [
            AnswerKind::ThreeDigits,
            AnswerKind::Mathematics,
            AnswerKind::Letter,
        ];
        kinds.map(|kind| self.template(kind))
    }
}

/// A template with its places filled in, each once and in one pass: a problem may hold `{options}` itself.
pub(crate) fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() + 256);
    let mut rest = template;
    loop {
        let next = places
            .iter()
            .filter_map(|(name, text)| Some((rest.find(name)?, *name, *text)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, name, text)) = next else {
            filled.push_str(rest);
            return filled;
        };
        filled.push_str(&rest[..at]);
        filled.push_str(text);
        rest = &rest[at + name.len()..];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use records::benchmark::named;
    use serde_json::json;

    use super::*;

    const ALL: [Protocol; 6] = [
        Protocol::R1,
        Protocol::R1Of0528,
        Protocol::Lighteval,
        Protocol::Evalchemy,
        Protocol::MathArena,
        Protocol::Greedy,
    ];

    #[test]
    fn names_are_those_of_recipes() {
        for protocol in ALL {
            assert_eq!(
                serde_json::to_value(protocol).unwrap(),
                json!(protocol.as_str())
            );
            for template in protocol.templates() {
                assert!(template.contains("{problem}"), "{template}");
            }
        }
    }

    #[test]
    fn samples_are_those_that_published_scores_have() {
        let samples = |protocol: Protocol, name| protocol.samples(&named::benchmark(name).unwrap());
        let of =
            |protocol| ["aime24", "math500", "gpqa_diamond"].map(|name| samples(protocol, name));
        assert_eq!(of(Protocol::R1), [64, 16, 64]);
        assert_eq!(of(Protocol::R1Of0528), [16, 16, 16]);
        assert_eq!(of(Protocol::Lighteval), [64, 4, 8]);
        assert_eq!(of(Protocol::Evalchemy), [10, 1, 3]);
        assert_eq!(of(Protocol::MathArena), [4, 4, 4]);
        assert_eq!(of(Protocol::Greedy), [1, 1, 1]);
    }

    #[test]
    fn places_are_filled_once() {
        let places = [
            ("{problem}", "a {options} b"),
            ("{options}", "A) {problem}"),
        ];
        let filled = fill("{problem}|{options}|{problem}", &places);
        assert_eq!(filled, "a {options} b|A) {problem}|a {options} b");
        assert_eq!(fill("none", &places), "none");
    }
}
