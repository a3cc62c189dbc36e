//! Our functions over the text columns, as DataFusion calls them.

mod contaminated_by;
mod repetition;
mod text_hash;
mod verdict;

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::{ScalarFunctionArgs, ScalarUDF};

use crate::contamination::Index;

/// All of them; a query over them reads `verdict(…)`, `repetition(…)`, ….
pub fn all(contamination: Arc<Index>) -> Vec<ScalarUDF> {
    vec![
        ScalarUDF::from(verdict::VerdictOf::new()),
        ScalarUDF::from(repetition::Repetition::new()),
        ScalarUDF::from(text_hash::TextHash::new()),
        ScalarUDF::from(contaminated_by::ContaminatedBy::new(contamination)),
    ]
}

/// The arguments as arrays of the batch's length.
fn columns<const N: usize>(args: &ScalarFunctionArgs) -> Result<[ArrayRef; N]> {
    let columns = args
        .args
        .iter()
        .map(|arg| arg.to_array(args.number_rows))
        .collect::<Result<Vec<_>>>()?;
    columns.try_into().map_err(|columns: Vec<_>| {
        exec_datafusion_err!("{} arguments where {N} belong", columns.len())
    })
}
