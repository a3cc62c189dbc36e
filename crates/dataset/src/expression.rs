//! SQL's expressions over the columns of one row, as DataFusion evaluates them.
//!
//! Of DataFusion this takes expressions, functions, coercion and evaluation. Its SQL planner is left out: it brings
//! queries, aggregates and windows, none of which an expression over one row can have.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{InList, ScalarFunction};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{
    Between, Case, Cast, Expr, ExprSchemable, Like, Operator, ScalarUDF, TryCast, Volatility,
    binary_expr, lit,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use sqlparser::ast::{
    self, BinaryOperator, CastKind, CeilFloorKind, DateTimeField, ExactNumberInfo, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart, TimezoneInfo, TrimWhereField,
    UnaryOperator, Value,
};

/// Why an expression cannot be used, in one line.
pub type Refused = String;

/// Functions of one row by every name that they have.
static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = datafusion_functions::all_default_functions();
    let named = functions.into_iter().flat_map(|function| {
        let names = [function.name().to_owned()].into_iter();
        let names = names.chain(function.aliases().iter().cloned());
        names
            .map(|name| (name, function.clone()))
            .collect::<Vec<_>>()
    });
    named.collect()
});

/// Functions of several rows, to be refused as such.
const AGGREGATES: [&str; 14] = [
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "max",
    "mean",
    "median",
    "min",
    "stddev",
    "string_agg",
    "sum",
    "var",
    "variance",
];

/// Functions that cannot be evaluated: they have to be simplified to what they stand for. Nothing else is simplified, since
/// some of DataFusion's rules change what becomes of nulls (`x ~ '.*'` is never null).
const SIMPLIFIED: [&str; 6] = [
    "arrow_cast",
    "arrow_try_cast",
    "cast_to_type",
    "coalesce",
    "nvl2",
    "try_cast_to_type",
];

/// The expression as it is evaluated, with the types made to fit.
///
/// # Errors
/// Types that do not fit, and columns that the schema does not have.
pub fn physical(expr: Expr, schema: &DFSchema) -> datafusion_common::Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone()));
    let simplifier = ExprSimplifier::new(context.build());
    let mut expr = simplifier.coerce(expr, schema)?;
    let is_simplified = |part: &Expr| match part {
        Expr::ScalarFunction(call) => Ok(SIMPLIFIED.contains(&call.name())),
        _ => Ok(false),
    };
    if expr.exists(is_simplified)? {
        expr = simplifier.simplify(expr)?;
    }
    create_physical_expr(&expr, schema, &Default::default(), &Default::default())
}

/// The expression that SQL wrote.
///
/// # Errors
/// Queries, what looks at several rows or is not the same at every run, names that are no columns or functions, and the
/// parts of SQL that rows of numbers and texts have no use for.
pub fn of_sql(sql: ast::Expr, schema: &DFSchema) -> Result<Expr, Refused> {
    Translation { schema }.expr(sql)
}

struct Translation<'a> {
    schema: &'a DFSchema,
}

impl Translation<'_> {
    fn boxed(&self, sql: Box<ast::Expr>) -> Result<Box<Expr>, Refused> {
        self.expr(*sql).map(Box::new)
    }

    fn all(&self, list: Vec<ast::Expr>) -> Result<Vec<Expr>, Refused> {
        list.into_iter().map(|sql| self.expr(sql)).collect()
    }

    fn expr(&self, sql: ast::Expr) -> Result<Expr, Refused> {
        Ok(match sql {
            ast::Expr::Nested(inner) => self.expr(*inner)?,
            ast::Expr::Identifier(name) => self.column(&name)?,
            ast::Expr::Value(value) => literal(value.value)?,
            ast::Expr::UnaryOp { op, expr } => self.unary(op, *expr)?,
            ast::Expr::BinaryOp { .. } => self.chain(sql)?,
            ast::Expr::IsDistinctFrom(left, right) => binary_expr(
                self.expr(*left)?,
                Operator::IsDistinctFrom,
                self.expr(*right)?,
            ),
            ast::Expr::IsNotDistinctFrom(left, right) => binary_expr(
                self.expr(*left)?,
                Operator::IsNotDistinctFrom,
                self.expr(*right)?,
            ),
            ast::Expr::IsNull(of) => Expr::IsNull(self.boxed(of)?),
            ast::Expr::IsNotNull(of) => Expr::IsNotNull(self.boxed(of)?),
            ast::Expr::IsTrue(of) => Expr::IsTrue(self.boxed(of)?),
            ast::Expr::IsNotTrue(of) => Expr::IsNotTrue(self.boxed(of)?),
            ast::Expr::IsFalse(of) => Expr::IsFalse(self.boxed(of)?),
            ast::Expr::IsNotFalse(of) => Expr::IsNotFalse(self.boxed(of)?),
            ast::Expr::IsUnknown(of) => Expr::IsUnknown(self.boxed(of)?),
            ast::Expr::IsNotUnknown(of) => Expr::IsNotUnknown(self.boxed(of)?),
            ast::Expr::Between {
                expr,
                negated,
                low,
                high,
            } => Expr::Between(Between::new(
                self.boxed(expr)?,
                negated,
                self.boxed(low)?,
                self.boxed(high)?,
            )),
            ast::Expr::InList {
                expr,
                list,
                negated,
            } => Expr::InList(InList::new(self.boxed(expr)?, self.all(list)?, negated)),
            ast::Expr::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => Expr::Like(self.like(negated, expr, pattern, escape_char, false)?),
            ast::Expr::ILike {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => Expr::Like(self.like(negated, expr, pattern, escape_char, true)?),
            ast::Expr::SimilarTo {
                negated,
                expr,
                pattern,
                escape_char,
            } => Expr::SimilarTo(self.like(negated, expr, pattern, escape_char, false)?),
            ast::Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                let operand = operand.map(|operand| self.boxed(operand)).transpose()?;
                let arm = |when: ast::CaseWhen| {
                    let (condition, result) = (self.expr(when.condition)?, self.expr(when.result)?);
                    Ok((Box::new(condition), Box::new(result)))
                };
                let arms = conditions.into_iter().map(arm);
                let arms = arms.collect::<Result<_, Refused>>()?;
                let otherwise = else_result.map(|otherwise| self.boxed(otherwise));
                Expr::Case(Case::new(operand, arms, otherwise.transpose()?))
            }
            ast::Expr::Cast {
                kind,
                expr,
                data_type,
                array: false,
                format: None,
            } => {
                let (expr, kind_of) = (self.boxed(expr)?, data_type_of(&data_type)?);
                match kind {
                    CastKind::Cast | CastKind::DoubleColon => Expr::Cast(Cast::new(expr, kind_of)),
                    CastKind::TryCast | CastKind::SafeCast => {
                        Expr::TryCast(TryCast::new(expr, kind_of))
                    }
                }
            }
            ast::Expr::Floor {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => call("floor", vec![self.expr(*expr)?])?,
            ast::Expr::Ceil {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => call("ceil", vec![self.expr(*expr)?])?,
            ast::Expr::Position { expr, r#in } => {
                call("strpos", vec![self.expr(*r#in)?, self.expr(*expr)?])?
            }
            ast::Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } if substring_from.is_some() || substring_for.is_some() => {
                let from = substring_from.map_or_else(|| Ok(lit(1i64)), |from| self.expr(*from));
                let mut arguments = vec![self.expr(*expr)?, from?];
                if let Some(length) = substring_for {
                    arguments.push(self.expr(*length)?);
                }
                call("substr", arguments)?
            }
            ast::Expr::Trim {
                expr,
                trim_where,
                trim_what,
                trim_characters,
            } => {
                let function = match trim_where {
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                    Some(TrimWhereField::Both) | None => "btrim",
                };
                let mut arguments = vec![self.expr(*expr)?];
                let what = trim_what.map(|what| vec![*what]).or(trim_characters);
                arguments.extend(self.all(what.unwrap_or_default())?);
                call(function, arguments)?
            }
            ast::Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                let arguments = [
                    Some(expr),
                    Some(overlay_what),
                    Some(overlay_from),
                    overlay_for,
                ];
                let arguments = arguments.into_iter().flatten().map(|sql| self.expr(*sql));
                call("overlay", arguments.collect::<Result<_, _>>()?)?
            }
            ast::Expr::TypedString(typed) => {
                let kind = data_type_of(&typed.data_type)?;
                Expr::Cast(Cast::new(Box::new(literal(typed.value.value)?), kind))
            }
            ast::Expr::Function(function) => self.function(function)?,
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
                return Err(format!(
                    "`{sql}` is a query; only the columns of the row can be used"
                ));
            }
            other => return Err(format!("`{other}` cannot be used here")),
        })
    }

    /// Operators between operands, which the parser nests to the left as deeply as they are many.
    fn chain(&self, sql: ast::Expr) -> Result<Expr, Refused> {
        let (mut first, mut others) = (sql, Vec::new());
        while let ast::Expr::BinaryOp { left, op, right } = first {
            others.push((operator(&op)?, self.expr(*right)?));
            first = *left;
        }
        let others = others.into_iter().rev();
        Ok(others.fold(self.expr(first)?, |left, (op, right)| {
            binary_expr(left, op, right)
        }))
    }

    fn column(&self, name: &Ident) -> Result<Expr, Refused> {
        let column = plain(name);
        match self.schema.has_column_with_unqualified_name(&column) {
            true => Ok(Expr::Column(datafusion_common::Column::new_unqualified(
                column,
            ))),
            false => Err(format!("`{column}` is no column")),
        }
    }

    fn unary(&self, op: UnaryOperator, operand: ast::Expr) -> Result<Expr, Refused> {
        match (op, operand) {
            (UnaryOperator::Minus, ast::Expr::Value(value)) => match value.value {
                Value::Number(digits, _) => number(&format!("-{digits}")),
                other => Ok(Expr::Negative(Box::new(literal(other)?))),
            },
            (UnaryOperator::Minus, operand) => Ok(Expr::Negative(Box::new(self.expr(operand)?))),
            (UnaryOperator::Plus, operand) => {
                let expr = self.expr(operand)?;
                match expr.get_type(self.schema) {
                    Ok(kind) if kind.is_numeric() => Ok(expr),
                    _ => Err(format!("`+{expr}` is no number")),
                }
            }
            (UnaryOperator::Not, operand) => Ok(Expr::Not(Box::new(self.expr(operand)?))),
            (op, operand) => Err(format!("`{op}` cannot be used, as in `{op} {operand}`")),
        }
    }

    fn like(
        &self,
        negated: bool,
        expr: Box<ast::Expr>,
        pattern: Box<ast::Expr>,
        escape: Option<ast::ValueWithSpan>,
        case_insensitive: bool,
    ) -> Result<Like, Refused> {
        let escape = escape
            .map(|escape| {
                let text = escape.value.clone().into_string().unwrap_or_default();
                let mut characters = text.chars();
                match (characters.next(), characters.next()) {
                    (Some(character), None) => Ok(character),
                    _ => Err(format!("ESCAPE {escape} is not one character")),
                }
            })
            .transpose()?;
        let (expr, pattern) = (self.boxed(expr)?, self.boxed(pattern)?);
        Ok(Like::new(negated, expr, pattern, escape, case_insensitive))
    }

    fn function(&self, function: ast::Function) -> Result<Expr, Refused> {
        let text = function.to_string();
        let [ObjectNamePart::Identifier(written)] = function.name.0.as_slice() else {
            return Err(format!("`{text}` is no function"));
        };
        let name = plain(written);
        if function.over.is_some() || AGGREGATES.contains(&name.as_str()) {
            return Err(format!(
                "`{text}` looks at several rows; only the columns of the row can be used"
            ));
        }
        let is_plain = function.filter.is_none()
            && function.null_treatment.is_none()
            && function.within_group.is_empty()
            && matches!(function.parameters, FunctionArguments::None);
        let arguments = match function.args {
            FunctionArguments::List(list)
                if is_plain && list.duplicate_treatment.is_none() && list.clauses.is_empty() =>
            {
                list.args
            }
            // Some of SQL's functions take no parentheses; a column of that name looks the same.
            FunctionArguments::None if is_plain && !FUNCTIONS.contains_key(&name) => {
                return self.column(written);
            }
            FunctionArguments::None if is_plain => Vec::new(),
            _ => return Err(format!("`{text}` cannot be used here")),
        };
        let arguments = arguments.into_iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr),
            other => Err(format!("`{other}` cannot be used in `{text}`")),
        });
        call(&name, arguments.collect::<Result<_, _>>()?)
    }
}

/// SQL takes a name without quotes as lower-case.
fn plain(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

/// A function of that name. A call by an alias is shown by that alias, as the recipe wrote it.
fn call(name: &str, arguments: Vec<Expr>) -> Result<Expr, Refused> {
    let Some(function) = FUNCTIONS.get(name) else {
        return Err(format!("`{name}` is no function"));
    };
    let call = ScalarFunction::new_udf(function.clone(), arguments);
    // The same traces must give the same dataset.
    if function.signature().volatility != Volatility::Immutable {
        let text = Expr::ScalarFunction(call);
        return Err(format!("`{text}` is not the same at every run"));
    }
    if name == function.name() {
        return Ok(Expr::ScalarFunction(call));
    }
    let arguments: Vec<_> = call.args.iter().map(Expr::to_string).collect();
    let alias = format!("{name}({})", arguments.join(","));
    Ok(Expr::ScalarFunction(call).alias(alias))
}

fn literal(value: Value) -> Result<Expr, Refused> {
    Ok(match value {
        Value::Number(digits, _) => number(&digits)?,
        Value::SingleQuotedString(text)
        | Value::DoubleQuotedString(text)
        | Value::EscapedStringLiteral(text) => lit(text),
        Value::DollarQuotedString(text) => lit(text.value),
        Value::Boolean(value) => lit(value),
        Value::Null => lit(ScalarValue::Null),
        Value::Placeholder(name) => return Err(format!("`{name}` has no value")),
        other => return Err(format!("`{other}` cannot be used here")),
    })
}

/// A whole number where it is one, else one with 53 bits.
fn number(digits: &str) -> Result<Expr, Refused> {
    if let Ok(number) = digits.parse::<i64>() {
        return Ok(lit(number));
    }
    if let Ok(number) = digits.parse::<u64>() {
        return Ok(lit(number));
    }
    let number = digits.parse::<f64>();
    number
        .map(lit)
        .map_err(|_| format!("`{digits}` is no number"))
}

fn operator(op: &BinaryOperator) -> Result<Operator, Refused> {
    Ok(match op {
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Spaceship => Operator::IsNotDistinctFrom,
        BinaryOperator::And => Operator::And,
        BinaryOperator::Or => Operator::Or,
        BinaryOperator::Plus => Operator::Plus,
        BinaryOperator::Minus => Operator::Minus,
        BinaryOperator::Multiply => Operator::Multiply,
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Modulo => Operator::Modulo,
        BinaryOperator::StringConcat => Operator::StringConcat,
        BinaryOperator::PGRegexMatch => Operator::RegexMatch,
        BinaryOperator::PGRegexIMatch => Operator::RegexIMatch,
        BinaryOperator::PGRegexNotMatch => Operator::RegexNotMatch,
        BinaryOperator::PGRegexNotIMatch => Operator::RegexNotIMatch,
        BinaryOperator::PGLikeMatch => Operator::LikeMatch,
        BinaryOperator::PGILikeMatch => Operator::ILikeMatch,
        BinaryOperator::PGNotLikeMatch => Operator::NotLikeMatch,
        BinaryOperator::PGNotILikeMatch => Operator::NotILikeMatch,
        BinaryOperator::BitwiseAnd => Operator::BitwiseAnd,
        BinaryOperator::BitwiseOr => Operator::BitwiseOr,
        BinaryOperator::Xor | BinaryOperator::BitwiseXor | BinaryOperator::PGBitwiseXor => {
            Operator::BitwiseXor
        }
        BinaryOperator::PGBitwiseShiftLeft => Operator::BitwiseShiftLeft,
        BinaryOperator::PGBitwiseShiftRight => Operator::BitwiseShiftRight,
        BinaryOperator::DuckIntegerDivide | BinaryOperator::MyIntegerDivide => {
            Operator::IntegerDivide
        }
        other => return Err(format!("the operator `{other}` cannot be used here")),
    })
}

/// The types that numbers, texts and times can be cast to.
fn data_type_of(sql: &ast::DataType) -> Result<DataType, Refused> {
    use ast::DataType as Sql;
    Ok(match sql {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::TinyIntUnsigned(_) => DataType::UInt8,
        Sql::SmallIntUnsigned(_) | Sql::Int2Unsigned(_) => DataType::UInt16,
        Sql::IntUnsigned(_) | Sql::IntegerUnsigned(_) | Sql::Int4Unsigned(_) => DataType::UInt32,
        Sql::BigIntUnsigned(_) | Sql::Int8Unsigned(_) => DataType::UInt64,
        Sql::Float(_) | Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision | Sql::Float8 => {
            DataType::Float64
        }
        Sql::Text | Sql::String(_) | Sql::Varchar(_) | Sql::Char(_) => DataType::Utf8,
        Sql::Date => DataType::Date32,
        Sql::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Timestamp(TimeUnit::Nanosecond, None)
        }
        other => return Err(format!("the type {other} cannot be used here")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{
        AsArray, BooleanArray, Float32Array, RecordBatch, StringArray, UInt32Array,
    };
    use arrow::compute::cast;
    use arrow::datatypes::{Field, Schema};
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;
    use sqlparser::tokenizer::Token;

    use super::*;

    fn evaluated(sql: &str) -> Result<Vec<Option<String>>, String> {
        let fields = vec![
            Field::new("n", DataType::UInt32, true),
            Field::new("share", DataType::Float32, true),
            Field::new("source", DataType::Utf8, true),
            Field::new("cut", DataType::Boolean, true),
        ];
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(UInt32Array::from(vec![Some(7), Some(20), None])),
                Arc::new(Float32Array::from(vec![Some(0.1), Some(0.5), None])),
                Arc::new(StringArray::from(vec![Some("Math"), Some("a_b"), None])),
                Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            ],
        );
        let mut parser = Parser::new(&GenericDialect).try_with_sql(sql).unwrap();
        let parsed = parser.parse_expr().map_err(|error| error.to_string())?;
        assert_eq!(parser.peek_token().token, Token::EOF, "{sql}");
        let columns = DFSchema::try_from(schema.as_ref().clone()).unwrap();
        let expr = of_sql(parsed, &columns)?;
        let expr = physical(expr, &columns).map_err(|error| error.to_string())?;
        let value = expr.evaluate(&batch.unwrap()).map_err(|e| e.to_string())?;
        let texts = cast(&value.into_array(3).unwrap(), &DataType::Utf8).unwrap();
        let texts = texts.as_string::<i32>().iter();
        Ok(texts.map(|text| text.map(str::to_owned)).collect())
    }

    #[test]
    fn expressions_mean_what_sql_says() {
        let check = |sql: &str, expected: [&str; 3]| {
            let expected = expected.map(|text| (!text.is_empty()).then(|| text.to_owned()));
            assert_eq!(evaluated(sql).unwrap(), expected, "{sql}");
        };
        check("n < 8 AND NOT cut", ["false", "false", ""]);
        check("n < 8 OR cut IS NULL", ["true", "false", "true"]);
        check("n BETWEEN 7 AND 10", ["true", "false", ""]);
        check("n NOT BETWEEN 7 AND 10", ["false", "true", ""]);
        check("n IN (7, 8)", ["true", "false", ""]);
        check("source NOT IN ('Math')", ["false", "true", ""]);
        check("source LIKE 'M%'", ["true", "false", ""]);
        check("source ILIKE 'm%'", ["true", "false", ""]);
        check("source LIKE '%\\_%'", ["false", "true", ""]);
        check("source SIMILAR TO 'M.*'", ["true", "false", ""]);
        check("source ~ '^M'", ["true", "false", ""]);
        check("source !~* '^m'", ["false", "true", ""]);
        check("n IS DISTINCT FROM 7", ["false", "true", "true"]);
        check("(share >= 0.5) IS TRUE", ["false", "true", "false"]);
        check("cut IS NOT UNKNOWN", ["true", "true", "false"]);
        check("n - 2 * 3 % 4", ["5", "18", ""]);
        check("-share < -0.3", ["false", "true", ""]);
        check("+n > 7", ["false", "true", ""]);
        check("n / 2", ["3", "10", ""]);
        check("-1.5e1 < n", ["true", "true", ""]);
        check(
            "CASE WHEN n > 9 THEN 'long' ELSE 'short' END",
            ["short", "long", "short"],
        );
        check("CASE n WHEN 7 THEN 1 END", ["1", "", ""]);
        check("CAST(share AS DOUBLE) > 0.3", ["false", "true", ""]);
        check("n::TEXT || '!'", ["7!", "20!", ""]);
        check("TRY_CAST(source AS INT) IS NULL", ["true", "true", "true"]);
        check("coalesce(n, 3)", ["7", "20", "3"]);
        check("length(source)", ["4", "3", ""]);
        check("UPPER(source)", ["MATH", "A_B", ""]);
        check("position('t' IN source)", ["3", "0", ""]);
        check("substring(source FROM 2 FOR 2)", ["at", "_b", ""]);
        check("trim(both 'M' from source)", ["ath", "a_b", ""]);
        check("ceil(share)", ["1.0", "1.0", ""]);
        check("\"n\" = N", ["true", "true", ""]);
        check("regexp_like(source, 'th$')", ["true", "false", ""]);
        check("NOT (source ~ '.*')", ["false", "false", ""]);
        check(
            "overlay(source PLACING 'X' FROM 2 FOR 1)",
            ["MXth", "aXb", ""],
        );
        check(
            "CAST('2026-01-02' AS TIMESTAMP) > TIMESTAMP '2026-01-01'",
            ["true", "true", "true"],
        );
    }

    #[test]
    fn what_a_row_has_no_use_for_is_refused_by_its_words() {
        let check = |sql: &str, words: &str| {
            let refused = evaluated(sql).unwrap_err();
            assert!(refused.contains(words), "{sql}: {refused}");
        };
        check("m > 3", "`m` is no column");
        check("\"N\" > 3", "`N` is no column");
        check("t.n > 3", "`t.n` cannot be used here");
        check("sum(n) > 3", "several rows");
        check("count(*) > 3", "several rows");
        check("abs(DISTINCT n)", "cannot be used here");
        check("EXTRACT(YEAR FROM source) = 3", "cannot be used here");
        check("n = ANY (SELECT 3)", "cannot be used here");
        check("n > $1", "has no value");
        check("uuid() = source", "not the same at every run");
        check("source LIKE 'a' ESCAPE 'ab'", "is not one character");
        check("CAST(n AS DATE)", "Unsupported CAST");
        check("CAST(n AS INTERVAL)", "type INTERVAL");
        check("source LIKE 'a!_' ESCAPE '!'", "scape");
        check("-n > 3", "egation");
        check("+source = 'x'", "is no number");
        check("substring(source) = 'x'", "cannot be used here");
        check("\"LENGTH\"(source) > 3", "`LENGTH` is no function");
        check("CAST(share AS DOUBLE(10, 2))", "type DOUBLE");
        check("user = 'x'", "`user` is no column");
    }
}
