//! What a judge says of a trace.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::row::{self, row};

row! {
    /// A trace that a judge was asked about.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Judged {
        pub trace_id: String,
        pub prompt_id: String,
        pub sample_index: u32,
        /// The rules' verdict, because of which the judge was asked.
        pub rule_verdict: String,
        /// `correct`, `incorrect` or `unsure`; null where replies are missing.
        pub verdict: Option<String>,
        /// What each reply that came says, in the order of the samples; `unsure` where it says nothing that reads.
        pub votes: Vec<String>,
        /// The `prompt_id` of the question among the replies; traces that answer alike share it.
        pub question_id: String,
        /// The model that judged.
        pub judge: String,
        /// Why replies are missing.
        pub error: Option<String>,
    }
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(row::schema::<Judged>);

/// The columns of a table of verdicts.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// A batch of [`schema`].
pub fn to_batch(rows: &[Judged]) -> Result<RecordBatch> {
    row::to_batch(rows, &SCHEMA)
}

/// The rows of a batch with at least the columns that are never null.
///
/// # Errors
/// [`Error::MissingColumn`](crate::Error::MissingColumn), [`Error::ColumnType`](crate::Error::ColumnType),
/// [`Error::NullValue`](crate::Error::NullValue).
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Judged>> {
    row::from_batch(batch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn verdicts_survive_the_batch() {
        let asked = Judged {
            trace_id: "p-1".into(),
            prompt_id: "p".into(),
            sample_index: 1,
            rule_verdict: "unparsable".into(),
            verdict: Some("correct".into()),
            votes: vec!["correct".into(), "unsure".into()],
            question_id: "q".into(),
            judge: "j".into(),
            error: None,
        };
        let unanswered = Judged {
            verdict: None,
            votes: Vec::new(),
            error: Some("400: no".into()),
            ..asked.clone()
        };
        let rows = vec![asked, unanswered];
        assert_eq!(from_batch(&to_batch(&rows).unwrap()).unwrap(), rows);
    }
}
