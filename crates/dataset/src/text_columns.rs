//! The texts of a trace, as `dataset.filter` can name them.
//!
//! They are too large to stand beside the annotations. A part of the filter that looks at nothing else, such as
//! `length(problem)`, is therefore computed while a trace is annotated, and its value stands beside them.

use datafusion_common::DataFusionError;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::{Expr, col};

/// Name and meaning of every text that a filter can name.
pub const TEXTS: [(&str, &str); 3] = [
    ("problem", "the problem, as it was put"),
    ("text", "what the teacher wrote, thought and answer"),
    (
        "answer",
        "what follows the thought; null where it never ended",
    ),
];

/// A part of a filter that looks at texts alone.
#[derive(Debug, Clone, PartialEq)]
pub struct OfText {
    /// The column that holds its value.
    pub name: String,
    pub expr: Expr,
}

/// Puts a column in the place of every largest part that looks at texts alone, and adds those parts to `found`.
///
/// # Errors
/// A text that is not within such a part: its whole would have to be kept.
pub fn lift(expr: Expr, found: &mut Vec<OfText>) -> Result<Expr, String> {
    let is_text = |name: &str| TEXTS.iter().any(|(text, _)| *text == name);
    let lifted = expr.transform_down(|part| {
        let columns = part.column_refs();
        if !columns.iter().any(|column| is_text(&column.name)) {
            return Ok(Transformed::new(part, false, TreeNodeRecursion::Jump));
        }
        if matches!(part, Expr::Column(_)) {
            let problem = format!(
                "`{part}` is compared with another column, and texts only with what is written out"
            );
            return Err(DataFusionError::Plan(problem));
        }
        if !columns.iter().all(|column| is_text(&column.name)) {
            return Ok(Transformed::no(part));
        }
        let known = found.iter().find(|of_text| of_text.expr == part);
        let name = match known {
            Some(known) => known.name.clone(),
            None => {
                let name = format!("of_text_{}", found.len());
                found.push(OfText {
                    name: name.clone(),
                    expr: part,
                });
                name
            }
        };
        Ok(Transformed::new(col(name), true, TreeNodeRecursion::Jump))
    });
    match lifted {
        Ok(lifted) => Ok(lifted.data),
        Err(DataFusionError::Plan(problem)) => Err(problem),
        Err(error) => Err(error.to_string()),
    }
}
