//! Benchmarks that go by a name.

use super::{AnswerKind, AnswerSearch, Benchmark};
use crate::error::{Error, Result};

/// A benchmark that goes by a name. Its file on the Hub is at a commit, so that a score is of the same questions tomorrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub name: &'static str,
    pub source: &'static str,
    pub problem: &'static str,
    pub answer: &'static str,
    pub distractors: &'static [&'static str],
    pub subject: Option<&'static str>,
    pub level: Option<&'static str>,
    pub answers: AnswerKind,
    pub answer_from: AnswerSearch,
    pub n_questions: u64,
    /// As the repository states it, by the Hub's names; none where it states none.
    pub licence: Option<&'static str>,
    /// Whether the Hub asks for its terms to be accepted first.
    pub gated: bool,
}

/// A contest of a few dozen questions, in `problem` and `answer`.
const CONTEST: Named = Named {
    name: "",
    source: "",
    problem: "problem",
    answer: "answer",
    distractors: &[],
    subject: None,
    level: None,
    answers: AnswerKind::Mathematics,
    answer_from: AnswerSearch::Written,
    n_questions: 30,
    licence: None,
    gated: false,
};

const AIME: Named = Named {
    answers: AnswerKind::ThreeDigits,
    ..CONTEST
};

/// As MathArena publishes contests.
const MATH_ARENA: Named = Named {
    subject: Some("problem_type"),
    licence: Some("cc-by-nc-sa-4.0"),
    ..CONTEST
};

impl Named {
    /// The dataset on the Hub and its commit; none where the file is our own.
    pub fn dataset(&self) -> Option<(&'static str, &'static str)> {
        let (id, rest) = self
            .source
            .strip_prefix("hf://datasets/")?
            .split_once('@')?;
        Some((id, rest.split('/').next()?))
    }
}

pub const NAMED: [Named; 11] = [
    Named {
        name: "arithmetic",
        source: "data/arithmetic/heldout.jsonl",
        n_questions: 256,
        ..CONTEST
    },
    Named {
        name: "aime24",
        source: "hf://datasets/HuggingFaceH4/aime_2024@2fe88a2f1091d5048c0f36abc874fb997b3dd99a/data/train-00000-of-00001.parquet",
        ..AIME
    },
    Named {
        name: "aime25",
        source: "hf://datasets/yentinglin/aime_2025@6f71d77b0b89b9dabe07ab466c51df33f514df7f/data/train-00000-of-00001-243207c6c994e1bd.parquet",
        ..AIME
    },
    Named {
        name: "aime26",
        source: "hf://datasets/MathArena/aime_2026@d2de22f3c656b4f56cf8981212186377d1e23bc3/data/train-00000-of-00001.parquet",
        answers: AnswerKind::ThreeDigits,
        ..MATH_ARENA
    },
    Named {
        name: "hmmt_feb_2025",
        source: "hf://datasets/MathArena/hmmt_feb_2025@6fdc4277120810ff75aa22d2d5489b91f7a262a1/data/train-00000-of-00001.parquet",
        ..MATH_ARENA
    },
    Named {
        name: "hmmt_feb_2026",
        source: "hf://datasets/MathArena/hmmt_feb_2026@02fba4f74d8e68e73e66a02d540fd979c05c274c/data/train-00000-of-00001.parquet",
        n_questions: 33,
        ..MATH_ARENA
    },
    Named {
        name: "brumo_2025",
        source: "hf://datasets/MathArena/brumo_2025@6de9bc0987f5710c6376ee980e1483dbeb55cfda/data/train-00000-of-00001.parquet",
        ..MATH_ARENA
    },
    Named {
        name: "amc23",
        source: "hf://datasets/math-ai/amc23@80815d37005feb82cd7f8fbc6901d5d3eff43057/test-00000-of-00001.parquet",
        problem: "question",
        n_questions: 40,
        ..CONTEST
    },
    Named {
        name: "math500",
        source: "hf://datasets/HuggingFaceH4/MATH-500@6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be/test.jsonl",
        subject: Some("subject"),
        level: Some("level"),
        n_questions: 500,
        ..CONTEST
    },
    Named {
        name: "gsm8k",
        source: "hf://datasets/openai/gsm8k@740312add88f781978c0658806c59bc2815b9866/main/test-00000-of-00001.parquet",
        problem: "question",
        answers: AnswerKind::Number,
        answer_from: AnswerSearch::LastNumber,
        n_questions: 1319,
        licence: Some("mit"),
        ..CONTEST
    },
    Named {
        name: "gpqa_diamond",
        source: "hf://datasets/Idavidrein/gpqa@633f5ee89ab8ad4522a9f850766b73f62147ffdd/gpqa_diamond.csv",
        problem: "Question",
        answer: "Correct Answer",
        distractors: &[
            "Incorrect Answer 1",
            "Incorrect Answer 2",
            "Incorrect Answer 3",
        ],
        subject: Some("High-level domain"),
        level: Some("Writer's Difficulty Estimate"),
        answers: AnswerKind::Letter,
        n_questions: 198,
        licence: Some("cc-by-4.0"),
        gated: true,
        ..CONTEST
    },
];

/// The known benchmark of that name.
pub fn find(name: &str) -> Option<&'static Named> {
    NAMED.iter().find(|known| known.name == name)
}

/// The benchmark of that name, as a recipe could write it.
///
/// # Errors
/// [`Error::UnknownBenchmark`], with the names that are known.
pub fn benchmark(name: &str) -> Result<Benchmark> {
    let known = find(name).ok_or_else(|| {
        let known: Vec<_> = NAMED.iter().map(|known| known.name).collect();
        Error::UnknownBenchmark(name.to_owned(), known.join(", "))
    })?;
    Ok(Benchmark {
        name: name.to_owned(),
        source: known.source.into(),
        problem: known.problem.to_owned(),
        answer: known.answer.to_owned(),
        distractors: known.distractors.iter().map(|&name| name.into()).collect(),
        subject: None,
        level: None,
        answer_from: known.answer_from,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{NAMED, benchmark};

    #[test]
    fn unknown_names_list_the_known_ones() {
        assert!(benchmark("aime24").is_ok());
        let error = benchmark("aime1900").unwrap_err().to_string();
        assert!(
            error.contains("math500") && error.contains("brumo_2025"),
            "{error}"
        );
    }

    #[test]
    fn files_of_the_hub_are_at_a_commit() {
        for known in NAMED {
            let Some((id, commit)) = known.dataset() else {
                assert_eq!(known.name, "arithmetic");
                continue;
            };
            assert_eq!(id.split('/').count(), 2, "{id}");
            let hex = commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(commit.len() == 40 && hex, "{}", known.name);
        }
    }
}
