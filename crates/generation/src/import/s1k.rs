//! s1K-1.1: a question with the trajectories of two teachers, each a trace.

use super::adapter::{Adapter, Found, Kind, NO_PROBLEM, Question, Sample, Shape, name};
use super::completion::Completion;
use super::row::{Mismatch, Row};
use crate::config::TracesConfig;

/// The teachers, as the columns begin.
const TEACHERS: [&str; 2] = ["deepseek", "gemini"];

pub struct S1k {
    pub config: TracesConfig,
}

fn trajectory(teacher: &str) -> String {
    format!("{teacher}_thinking_trajectory")
}

fn attempt(teacher: &str) -> String {
    format!("{teacher}_attempt")
}

impl Adapter for S1k {
    fn shape(&self) -> Shape {
        let config = &self.config;
        let attempts = TEACHERS.map(attempt);
        let mut shape = Shape::default()
            .one_of(&[name(&config.problem, "question")], Kind::Text)
            .one_of(&attempts.each_ref().map(String::as_str), Kind::Text)
            .optional(&config.answer, "solution", Kind::TextOrNumber)
            .optional(&None, "source_type", Kind::Text);
        for teacher in TEACHERS {
            shape = shape.optional(&None, &trajectory(teacher), Kind::Text);
        }
        shape
    }

    fn read(&self, row: &Row) -> Result<Found, Mismatch> {
        let config = &self.config;
        let Some(problem) = row.text(name(&config.problem, "question"))? else {
            return Ok(NO_PROBLEM);
        };
        let question = Question {
            gold_answer: row.text_or_number(name(&config.answer, "solution"))?,
            source: row.text("source_type")?.map(str::to_owned),
            ..Question::alone(problem)
        };
        let mut samples = Vec::new();
        for teacher in TEACHERS {
            let (thought, answer) = (trajectory(teacher), attempt(teacher));
            // A set of one teacher has no columns of the other.
            if !(row.0.contains_key(&thought) || row.0.contains_key(&answer)) {
                continue;
            }
            samples.push(match (row.text(&thought)?, row.text(&answer)?) {
                (None, None) => {
                    Sample::failed(format!("`{thought}` and `{answer}` are null"), teacher)
                }
                (reasoning, answer) => Sample {
                    completion: Ok(Completion::of_parts(reasoning, answer)),
                    finish_reason: None,
                    teacher: teacher.to_owned(),
                },
            });
        }
        if samples.is_empty() {
            samples.push(Sample::failed(
                "the row has no teacher's columns",
                TEACHERS[0],
            ));
        }
        Ok(Found::Traces(question, samples))
    }
}
