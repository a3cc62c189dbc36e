//! s1K: a question with the trajectories of two teachers, each a trace (1.1), or with those of one (1.0).

use super::adapter::{Adapter, Found, Kind, Question, Sample, Shape, name};
use super::completion::Completion;
use super::row::{Mismatch, Row};
use crate::config::TracesConfig;

/// The teachers, as the columns begin.
const TEACHERS: [&str; 2] = ["deepseek", "gemini"];

pub struct S1k {
    pub config: TracesConfig,
}

/// The one teacher of s1K 1.0, its list of trajectories and what it answered.
const FIRST: &str = "gemini";
const TRAJECTORIES: &str = "thinking_trajectories";
const ATTEMPT: &str = "attempt";

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
        let attempts = attempts.iter().map(String::as_str).chain([ATTEMPT]);
        let mut shape = Shape::default()
            .one_of(&[name(&config.problem, "question")], Kind::Text)
            .any_of(attempts.map(|attempt| (attempt, Kind::Text)))
            .optional(&None, TRAJECTORIES, Kind::Texts)
            .optional(&config.answer, "solution", Kind::Gold)
            .optional(&None, "source_type", Kind::Text);
        for teacher in TEACHERS {
            shape = shape.optional(&None, &trajectory(teacher), Kind::Text);
        }
        shape
    }

    fn read(&self, row: &Row) -> Result<Found, Mismatch> {
        let config = &self.config;
        let Some(problem) = row.text(name(&config.problem, "question"))? else {
            return Ok(Found::no_problem());
        };
        let question = Question {
            gold_answer: row.gold(name(&config.answer, "solution"))?,
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
        if samples.is_empty() && (row.has(TRAJECTORIES) || row.has(ATTEMPT)) {
            let pieces = row.texts(TRAJECTORIES)?.unwrap_or_default();
            let pieces: Vec<_> = pieces.into_iter().flatten().collect();
            let thought = Some(pieces.join("\n\n")).filter(|thought| !thought.is_empty());
            samples.push(Sample {
                completion: Ok(Completion::of_parts(thought.as_deref(), row.text(ATTEMPT)?)),
                finish_reason: None,
                teacher: FIRST.to_owned(),
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
