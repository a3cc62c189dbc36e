//! `dataset.filter` and `dataset.order_by`: SQL expressions over the annotation columns.
//!
//! They are read as expressions over [`columns::schema`] and nothing else, so that a recipe can neither read a file nor
//! write one through them.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_expr::{Expr, SortExpr, lit};
use datafusion_physical_expr::PhysicalExpr;
use sqlparser::ast::{self, BinaryOperator};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use crate::columns;
use crate::config::DatasetConfig;
use crate::error::{Error, Result};
use crate::expression;
use crate::text_columns::{OfText, lift};

const FILTER: &str = "dataset.filter";
const ORDER_BY: &str = "dataset.order_by";

/// Words that begin a command where an expression should stand, and would be taken for a column.
const COMMANDS: [Keyword; 3] = [Keyword::COPY, Keyword::CREATE, Keyword::EXPLAIN];

/// The recipe's filter and order, translated and checked.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The filter's top-level `AND` conjuncts: their SQL, and the expression.
    pub conjuncts: Vec<(String, Expr)>,
    /// What the conjuncts ask of a trace's texts, which is found out while it is annotated.
    pub of_text: Vec<OfText>,
    pub order_by: Vec<SortExpr>,
}

/// Parses and type-checks both expressions.
pub fn parse(config: &DatasetConfig) -> Result<Selection> {
    let schema = |arrow: SchemaRef| DFSchema::try_from(arrow.as_ref().clone());
    let columns = schema(columns::filter_schema())?;
    let mut of_text = Vec::new();
    let conjuncts = filter(FILTER, &config.filter, &columns)?;
    let conjuncts = conjuncts.into_iter().map(|(sql, expr)| {
        let lifted = lift(expr, &mut of_text);
        let lifted = lifted.map_err(|problem| {
            let example = "parts such as `length(problem) < 2000` or `problem NOT LIKE '%![%'`";
            refusal(FILTER, &config.filter, problem, example, &columns)
        });
        Ok((sql, lifted?))
    });
    Ok(Selection {
        conjuncts: conjuncts.collect::<Result<_>>()?,
        of_text,
        order_by: order_by(&config.order_by, &schema(columns::order_schema())?)?,
    })
}

impl Selection {
    /// Whether the order names the column.
    pub fn orders_by(&self, column: &str) -> bool {
        self.order_by.iter().any(|item| names(&item.expr, column))
    }

    /// Whether filter or order name the column.
    pub fn names(&self, column: &str) -> bool {
        let mut conjuncts = self.conjuncts.iter();
        self.orders_by(column) || conjuncts.any(|(_, conjunct)| names(conjunct, column))
    }
}

fn names(expr: &Expr, column: &str) -> bool {
    expr.column_refs().iter().any(|found| found.name == column)
}

/// A condition over the columns of `schema`, under the rules of `dataset.filter`. `key` is what
/// complaints call it.
pub fn condition(
    key: &'static str,
    sql: &str,
    schema: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>> {
    let columns = DFSchema::try_from(schema.as_ref().clone())?;
    let conjuncts = filter(key, sql, &columns)?;
    let all = conjuncts.into_iter().map(|(_, expr)| expr);
    let all = all.reduce(Expr::and).unwrap_or_else(|| lit(true));
    Ok(expression::physical(all, &columns)?)
}

fn filter(key: &'static str, sql: &str, schema: &DFSchema) -> Result<Vec<(String, Expr)>> {
    let refused = |message: String| {
        refusal(
            key,
            sql,
            message,
            "a condition such as `verdict = 'correct' AND n_tokens < 8192`",
            schema,
        )
    };
    let parsed = parsed(sql, "expression", |parser| {
        match parser.peek_token_ref().token {
            Token::Word(ref word) if COMMANDS.contains(&word.keyword) => Err(
                ParserError::ParserError("Unsupported command in expression".to_owned()),
            ),
            _ => parser.parse_expr_with_alias(),
        }
    })
    .map_err(|error| refused(one_line(&error)))?;
    if let Some(alias) = parsed.alias {
        return Err(refused(format!(
            "ends in a name for the result (`{alias}`)"
        )));
    }
    let mut conjuncts = Vec::new();
    split_and(parsed.expr, &mut conjuncts);
    conjuncts
        .into_iter()
        .map(|conjunct| {
            let text = conjunct.to_string();
            let (expr, kind) = checked(conjunct, schema).map_err(refused)?;
            match kind {
                DataType::Boolean | DataType::Null => Ok((text, expr)),
                kind => Err(refused(format!("`{text}` is {kind} and not a condition"))),
            }
        })
        .collect()
}

fn order_by(sql: &str, schema: &DFSchema) -> Result<Vec<SortExpr>> {
    let refused = |message: String| {
        refusal(
            ORDER_BY,
            sql,
            message,
            "a list such as `n_tokens ASC, repetition DESC`",
            schema,
        )
    };
    let parsed = parsed(sql, "list", |parser| {
        parser.parse_comma_separated(Parser::parse_order_by_expr)
    })
    .map_err(|error| refused(one_line(&error)))?;
    parsed
        .into_iter()
        .map(|item| {
            let (expr, _) = checked(item.expr, schema).map_err(refused)?;
            let ascending = item.options.asc.unwrap_or(true);
            // What has no value is the last choice, in both directions.
            let nulls_first = item.options.nulls_first.unwrap_or(false);
            Ok(expr.sort(ascending, nulls_first))
        })
        .collect()
}

/// All of `sql`, as `parse` reads it; `kind` is what has to end with it.
fn parsed<T>(
    sql: &str,
    kind: &str,
    parse: impl FnOnce(&mut Parser<'_>) -> std::result::Result<T, ParserError>,
) -> std::result::Result<T, ParserError> {
    let mut parser = Parser::new(&GenericDialect).try_with_sql(sql)?;
    let parsed = parse(&mut parser)?;
    match parser.peek_token().token {
        Token::EOF => Ok(parsed),
        token => Err(ParserError::ParserError(format!(
            "Expected: end of {kind}, found: {token}"
        ))),
    }
}

/// The expression and its type, or why it cannot be used.
fn checked(
    sql: ast::Expr,
    schema: &DFSchema,
) -> std::result::Result<(Expr, DataType), expression::Refused> {
    let expr = expression::of_sql(sql, schema)?;
    let kind = expression::physical(expr.clone(), schema)
        .and_then(|physical| physical.data_type(schema.as_arrow()))
        .map_err(|error| one_line(&error))?;
    Ok((expr, kind))
}

fn split_and(expr: ast::Expr, conjuncts: &mut Vec<ast::Expr>) {
    match expr {
        ast::Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            split_and(*left, conjuncts);
            split_and(*right, conjuncts);
        }
        ast::Expr::Nested(inner)
            if matches!(
                *inner,
                ast::Expr::BinaryOp {
                    op: BinaryOperator::And,
                    ..
                }
            ) =>
        {
            split_and(*inner, conjuncts);
        }
        other => conjuncts.push(other),
    }
}

fn refusal(
    key: &'static str,
    sql: &str,
    message: String,
    example: &str,
    schema: &DFSchema,
) -> Error {
    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    Error::config(
        key,
        format!("{message} in \"{sql}\""),
        format!("{example}, over the columns {}", names.join(", ")),
    )
}

/// DataFusion appends its backtrace on further lines.
fn one_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with_filter(filter: &str) -> Result<Selection> {
        parse(&DatasetConfig {
            filter: filter.into(),
            ..DatasetConfig::default()
        })
    }

    fn with_order(order_by: &str) -> Result<Selection> {
        parse(&DatasetConfig {
            order_by: order_by.into(),
            ..DatasetConfig::default()
        })
    }

    #[test]
    fn conjuncts_keep_their_sql() {
        let check = |sql: &str, expected: &[&str]| {
            let found: Vec<_> = with_filter(sql)
                .unwrap()
                .conjuncts
                .into_iter()
                .map(|c| c.0)
                .collect();
            assert_eq!(found, expected, "{sql}");
        };
        check(
            &DatasetConfig::default().filter,
            &[
                "verdict = 'correct'",
                "finish_reason = 'stop'",
                "repetition < 0.3",
            ],
        );
        check("true", &["true"]);
        check(
            "(n_tokens < 10 AND n_tokens > 2) AND (truncated OR verdict IS NULL)",
            &[
                "n_tokens < 10",
                "n_tokens > 2",
                "(truncated OR verdict IS NULL)",
            ],
        );
        check(
            "pass_rate BETWEEN 0.1 AND 0.6 AND source LIKE 'a%' AND upper(teacher) = 'T'",
            &[
                "pass_rate BETWEEN 0.1 AND 0.6",
                "source LIKE 'a%'",
                "upper(teacher) = 'T'",
            ],
        );
    }

    #[test]
    fn texts_are_looked_at_while_annotating() {
        let check = |sql: &str, expected: &[&str], rest: &str| {
            let selection = with_filter(sql).unwrap();
            let found: Vec<_> = selection
                .of_text
                .iter()
                .map(|of| of.expr.to_string())
                .collect();
            assert_eq!(found, expected, "{sql}");
            assert_eq!(selection.conjuncts[0].1.to_string(), rest, "{sql}");
            assert_eq!(selection.conjuncts[0].0, sql);
        };
        check(
            "problem NOT LIKE '%![%'",
            &["problem NOT LIKE Utf8(\"%![%\")"],
            "of_text_0",
        );
        check(
            "length(text) > 9 OR pass_rate < 0.5",
            &["character_length(text) AS length(text) > Int64(9)"],
            "of_text_0 OR pass_rate < Float64(0.5)",
        );
        check(
            "length(answer) < n_tokens",
            &["character_length(answer) AS length(answer)"],
            "of_text_0 < n_tokens",
        );
        check("n_tokens < 9", &[], "n_tokens < Int64(9)");
        let error = with_filter("source = problem").unwrap_err().to_string();
        assert!(
            error.contains("`problem` is compared with another column"),
            "{error}"
        );
        assert!(with_order("length(problem)").is_err());
    }

    #[test]
    fn orders_are_lists_of_expressions() {
        assert_eq!(with_order("n_tokens").unwrap().order_by.len(), 1);
        let order = with_order("abs(n_tokens - 500) DESC, repetition NULLS FIRST")
            .unwrap()
            .order_by;
        assert_eq!(
            order
                .iter()
                .map(|o| (o.asc, o.nulls_first))
                .collect::<Vec<_>>(),
            [(false, false), (true, true)]
        );
    }

    #[test]
    fn what_is_no_condition_over_the_columns_is_refused() {
        let check = |sql: &str, expected: &str| {
            let error = with_filter(sql).unwrap_err().to_string();
            assert!(error.contains(expected), "{sql}: {error}");
            assert!(
                error.starts_with("dataset.filter: ") && error.contains("contaminated_by"),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        };
        check("verdct = 'correct'", "verdct");
        check("n_tokens", "UInt32 and not a condition");
        check("", "Expected");
        check("verdict = ", "Expected");
        check("verdict = 'correct'; DROP TABLE x", "Expected");
        check("SELECT 1", "Expected");
        check("COPY x TO 'y'", "Unsupported command");
        check("verdict = 'correct' AS v", "name for the result");
        check("n_tokens > (SELECT 1)", "is a query");
        check("EXISTS (SELECT * FROM '/etc/passwd')", "is a query");
        check("n_tokens IN (SELECT 1)", "is a query");
        check("avg(n_tokens) > 3", "several rows");
        check("row_number() OVER () < 3", "several rows");
        check("random() < 0.5", "not the same at every run");
        check("now() IS NOT NULL", "not the same at every run");
        check("nonsense(n_tokens)", "nonsense");
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let check = |sql: &str, expected: &str| {
            let error = with_order(sql).unwrap_err().to_string();
            assert!(
                error.starts_with("dataset.order_by: ") && error.contains(expected),
                "{sql}: {error}"
            );
        };
        check("n_tokenz ASC", "n_tokenz");
        check("n_tokens ASC LIMIT 3", "end of list");
        check("", "Expected");
        check("random()", "not the same at every run");
    }
}
