//! What is found out about each trace by itself.
//!
//! An annotation is a function in a file of its own, and an entry in [`ANNOTATIONS`].

mod code_blocks;
mod contaminated_by;
mod language;
mod language_mix;
mod longest_paragraph;
mod loop_repeats;
mod mean_logprob;
pub mod minhash;
mod n_tokens;
mod repetition;
mod think_format;
mod verdict;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Float32Type, UInt32Type};
use tokenizers::Tokenizer;
use verify::Verifier;

use crate::contamination::Index;
use crate::error::Result;
use crate::rows::column;

/// A column that is found out about each trace by itself.
pub struct Annotation {
    pub name: &'static str,
    pub kind: DataType,
    /// The columns of a trace that it is made of.
    pub reads: &'static [&'static str],
    /// One value for each trace.
    pub of: fn(&Traces<'_>) -> Result<ArrayRef>,
    pub meaning: &'static str,
}

/// Some traces, and what they are looked at with.
pub struct Traces<'a> {
    pub batch: &'a RecordBatch,
    pub tools: &'a Tools,
}

/// What traces are looked at with.
pub struct Tools {
    pub contamination: Index,
    pub tokenizer: Option<Tokenizer>,
    pub verifier: Verifier,
}

impl<'a> Traces<'a> {
    /// A column of texts.
    pub fn texts(&self, name: &str) -> Result<&'a StringArray> {
        Ok(column(self.batch, name)?.as_string())
    }

    /// One number for each completion, null where there is none.
    fn measured<T: ArrowPrimitiveType>(&self, measure: fn(&str) -> T::Native) -> Result<ArrayRef> {
        let texts = self.texts("text")?.iter();
        let values: PrimitiveArray<T> = texts.map(|text| text.map(measure)).collect();
        Ok(Arc::new(values))
    }
}

/// Conditions can name them. One that is no column of an example by itself is a field of its `quality`.
pub static ANNOTATIONS: [Annotation; 11] = [
    Annotation {
        name: "n_tokens",
        kind: DataType::UInt32,
        reads: &["n_completion_tokens", "text"],
        of: n_tokens::n_tokens,
        meaning: "tokens of the completion",
    },
    Annotation {
        name: "verdict",
        kind: DataType::Utf8,
        reads: &["gold_answer", "answer", "text"],
        of: verdict::verdicts,
        meaning: "`correct`, `incorrect`, `no_answer` or `gold_unreadable`; null for a failed trace",
    },
    Annotation {
        name: "repetition",
        kind: DataType::Float32,
        reads: &["text"],
        of: |traces| traces.measured::<Float32Type>(repetition::repetition),
        meaning: "share of repeated word 4-grams, 0 to 1",
    },
    Annotation {
        name: "loop_repeats",
        kind: DataType::UInt32,
        reads: &["text"],
        of: |traces| traces.measured::<UInt32Type>(loop_repeats::loop_repeats),
        meaning: "how often the passage that repeats most stands back to back; 1 where nothing does",
    },
    Annotation {
        name: "think_format",
        kind: DataType::Utf8,
        reads: &["text", "answer"],
        of: think_format::think_formats,
        meaning: "`valid`, `no_thought`, `unfinished`, `empty_thought`, `empty_answer` or `stray_tags`",
    },
    Annotation {
        name: "language",
        kind: DataType::Utf8,
        reads: &["text"],
        of: language::languages,
        meaning: "language of the prose, as ISO 639-3; null where there is hardly any",
    },
    Annotation {
        name: "language_mix",
        kind: DataType::Float32,
        reads: &["text"],
        of: |traces| traces.measured::<Float32Type>(language_mix::language_mix),
        meaning: "share of letters outside the script that most are in, 0 to 1",
    },
    Annotation {
        name: "code_blocks",
        kind: DataType::UInt32,
        reads: &["text"],
        of: |traces| traces.measured::<UInt32Type>(code_blocks::code_blocks),
        meaning: "fenced blocks of code",
    },
    Annotation {
        name: "longest_paragraph",
        kind: DataType::UInt32,
        reads: &["text"],
        of: |traces| traces.measured::<UInt32Type>(longest_paragraph::longest_paragraph),
        meaning: "characters of the longest paragraph",
    },
    Annotation {
        name: "mean_logprob",
        kind: DataType::Float32,
        reads: &["token_logprobs"],
        of: mean_logprob::mean_logprobs,
        meaning: "mean log-probability the teacher gave the sampled tokens; null where not known",
    },
    Annotation {
        name: "contaminated_by",
        kind: DataType::Utf8,
        reads: &["problem"],
        of: contaminated_by::contaminated_by,
        meaning: "benchmark, row and n-gram that the problem shares; else null",
    },
];
