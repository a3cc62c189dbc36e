//! A condition over the rows of any table, under the rules of the recipe's filter.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, prep_null_mask_filter};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::collect_columns;

use crate::error::Result;
use crate::sql;

/// A parsed and type-checked condition.
#[derive(Debug, Clone)]
pub struct Condition {
    expr: Arc<dyn PhysicalExpr>,
}

impl Condition {
    /// Parses SQL over the columns of `schema`; `key` is what complaints call it.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: queries, aggregates, unknown columns, and what is no condition.
    pub fn parse(key: &'static str, sql: &str, schema: &SchemaRef) -> Result<Self> {
        let expr = sql::condition(key, sql, schema)?;
        Ok(Self { expr })
    }

    /// The columns that it reads.
    pub fn columns(&self) -> BTreeSet<String> {
        let columns = collect_columns(&self.expr);
        columns
            .into_iter()
            .map(|column| column.name().to_owned())
            .collect()
    }

    /// The rows of a batch of that schema for which it is true.
    pub fn select(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let value = self.expr.evaluate(batch)?.into_array(batch.num_rows())?;
        // `NULL` alone is a condition too.
        let mask = cast(&value, &DataType::Boolean).map_err(records::Error::from)?;
        let mask = mask.as_boolean();
        Ok(match mask.null_count() {
            0 => mask.clone(),
            _ => prep_null_mask_filter(mask),
        })
    }
}
