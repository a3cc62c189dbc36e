use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::contamination::Index;

/// `contaminated_by(problem)`: the benchmark row that the problem shares words with, and the
/// words; null for a clean problem. See [`Index::find`].
#[derive(Debug)]
pub struct ContaminatedBy {
    signature: Signature,
    index: Arc<Index>,
}

impl ContaminatedBy {
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
            index,
        }
    }
}

impl PartialEq for ContaminatedBy {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.index, &other.index)
    }
}

impl Eq for ContaminatedBy {}

impl Hash for ContaminatedBy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.index).hash(state);
    }
}

impl ScalarUDFImpl for ContaminatedBy {
    fn name(&self) -> &str {
        "contaminated_by"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [problem] = super::columns(&args)?;
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
                _ => self.index.find(problem).map(|hit| hit.to_string()),
            };
            hits.append_option(hit.as_deref());
            last = Some((problem, hit));
        }
        Ok(ColumnarValue::Array(Arc::new(hits.finish())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use datafusion::arrow::array::StringArray;
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn repeated_and_missing_problems_keep_their_own_result() {
        let mut index = Index::new(3);
        index.add("b", "7", "one two three four");
        let udf = ContaminatedBy::new(Arc::new(index));
        let rows = vec![
            Some("x one two three"),
            Some("x one two three"),
            None,
            Some("two one"),
            Some("two three four"),
        ];
        let args = ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(Arc::new(StringArray::from(rows)))],
            arg_fields: vec![Arc::new(Field::new("problem", DataType::Utf8, true))],
            number_rows: 5,
            return_field: Arc::new(Field::new("hit", DataType::Utf8, true)),
            config_options: Arc::default(),
        };
        let ColumnarValue::Array(hits) = udf.invoke_with_args(args).unwrap() else {
            panic!("an array")
        };
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
