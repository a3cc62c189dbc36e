use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, StringBuilder};

use super::Traces;
use crate::contamination::Index;
use crate::error::Result;

/// The benchmark row that each problem shares words with, and the words; null for a clean problem. See [`Index::find`].
pub fn contaminated_by(traces: &Traces<'_>) -> Result<ArrayRef> {
    let hits = hits(&traces.tools.contamination, traces.texts("problem")?);
    Ok(Arc::new(hits))
}

fn hits(index: &Index, problems: &StringArray) -> StringArray {
    let mut hits = StringBuilder::new();
    // The samples of one prompt stand together, and have one problem.
    let mut last: Option<(&str, Option<String>)> = None;
    for problem in problems {
        let Some(problem) = problem else {
            hits.append_null();
            continue;
        };
        let hit = match last.take() {
            Some((same, hit)) if same == problem => hit,
            _ => index.find(problem).map(|hit| hit.to_string()),
        };
        hits.append_option(hit.as_deref());
        last = Some((problem, hit));
    }
    hits.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_missing_problems_keep_their_own_result() {
        let mut index = Index::new(3);
        index.add("b", "7", "one two three four");
        let rows = vec![
            Some("x one two three"),
            Some("x one two three"),
            None,
            Some("two one"),
            Some("two three four"),
        ];
        let hits = hits(&index, &StringArray::from(rows));
        let hits: Vec<_> = hits.iter().collect();
        assert_eq!(
            hits,
            vec![
                Some("b 7: one two three"),
                Some("b 7: one two three"),
                None,
                None,
                Some("b 7: two three four")
            ]
        );
    }
}
