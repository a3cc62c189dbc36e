use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;

use crate::contamination::Index;

/// `contaminated_by(problem)`: the benchmark row that the problem shares words with, and the
/// words; null for a clean problem. See [`Index::find`].
pub fn udf(index: Arc<Index>) -> ScalarUDF {
    let arguments = vec![DataType::Utf8];
    super::function(
        "contaminated_by",
        arguments,
        DataType::Utf8,
        move |[problem]| {
            let mut hits = StringBuilder::new();
            // The samples of one prompt stand together, and have one problem.
            let mut last: Option<(&str, Option<String>)> = None;
            for problem in problem.as_string::<i32>() {
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
            Ok(Arc::new(hits.finish()) as _)
        },
    )
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::StringArray;

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
        let hits = super::super::call(
            &udf(Arc::new(index)),
            vec![Arc::new(StringArray::from(rows))],
        );
        let hits: Vec<_> = hits.as_string::<i32>().iter().collect();
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
