//! What a field of each type is in a table.
//!
//! | type | column | missing when read |
//! |---|---|---|
//! | `String`, `u32` | never null | an error, as a null is |
//! | `Option` of a text, a number, a flag, or a list of numbers | may be null | null |
//! | `Option<FinishReason>`, `Option<LogprobSpace>` | text, may be null | null |
//! | `Vec<String>` | list of texts, never null | an error, as a null is |
//! | `Vec<Message>` | list of `{role, content}`, never null | no turns, as a null has |
//! | `Option<TopK>` | [`TOP_K_COLUMNS`](crate::trace::TOP_K_COLUMNS), whatever the field's name | null |
//! | `Option` of a [`Row`] | struct of its fields, which should all be `Option`s | null |

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, PrimitiveArray, StructArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, TimeUnit, TimestampMicrosecondType,
    UInt32Type, UInt64Type,
};

use super::{Kind, Row};
use crate::Message;
use crate::column::{self, Columns};
use crate::error::Result;
use crate::top_k::{TOP_K_COLUMNS, TopK, read_top_k, top_k_columns};
use crate::word::{FinishReason, LogprobSpace};

/// A kind of one column: the kind's name, the field's type, the column's type, whether it may be null, how values become
/// a column, and how a column becomes values.
macro_rules! kind {
    (
        $kind:ty, $value:ty, $type:expr, null: $null:literal,
        write: |$values:ident| $write:expr,
        read: |$columns:ident, $name:ident| $read:expr $(,)?
    ) => {
        impl Kind for $kind {
            type Value = $value;

            fn fields(name: &str) -> Vec<Field> {
                vec![Field::new(name, $type, $null)]
            }

            fn columns<'a>(
                $values: impl Iterator<Item = Option<&'a $value>>,
            ) -> Result<Vec<ArrayRef>> {
                Ok(vec![$write])
            }

            fn read($columns: &Columns<'_>, $name: &str) -> Result<Vec<$value>> {
                $read
            }
        }
    };
}

kind! {
    String, String, DataType::Utf8, null: false,
    write: |values| column::strings(values.map(|value| value.map(String::as_str))),
    read: |columns, name| columns.strings(name),
}

kind! {
    Option<String>, Self, DataType::Utf8, null: true,
    write: |values| column::strings(values.map(|value| value?.as_deref())),
    read: |columns, name| columns.optional_strings(name),
}

/// A word, in a column of texts.
macro_rules! words {
    ($($word:ty),*) => {$(
        kind! {
            Option<$word>, Self, DataType::Utf8, null: true,
            write: |values| column::strings(values.map(|value| value?.as_deref())),
            read: |columns, name| {
                let words = columns.optional_strings(name)?.into_iter();
                Ok(words.map(|word| word.map(<$word>::from)).collect())
            },
        }
    )*};
}

words!(FinishReason, LogprobSpace);

kind! {
    Option<bool>, Self, DataType::Boolean, null: true,
    write: |values| {
        let column: BooleanArray = values.map(|value| value.copied().flatten()).collect();
        Arc::new(column)
    },
    read: |columns, name| columns.optional_bools(name),
}

kind! {
    u32, u32, DataType::UInt32, null: false,
    write: |values| column::primitives::<UInt32Type>(values.map(|value| value.copied())),
    read: |columns, name| columns.primitives::<UInt32Type>(name),
}

/// Numbers, and lists of them that are copied in one piece.
macro_rules! numbers {
    ($($native:ty => $arrow:ty),*) => {$(
        kind! {
            Option<$native>, Self, <$arrow>::DATA_TYPE, null: true,
            write: |values| {
                column::primitives::<$arrow>(values.map(|value| value.copied().flatten()))
            },
            read: |columns, name| columns.optional_primitives::<$arrow>(name),
        }

        kind! {
            Option<Vec<$native>>, Self, column::list_of(<$arrow>::DATA_TYPE), null: true,
            write: |values| column::lists::<$arrow>(values.map(|value| value?.as_deref())),
            read: |columns, name| columns.optional_lists::<$arrow>(name),
        }
    )*};
}

numbers!(u32 => UInt32Type, u64 => UInt64Type, f32 => Float32Type);

kind! {
    Vec<String>, Self, column::list_of(DataType::Utf8), null: false,
    write: |values| {
        column::string_lists(values.map(|value| value.map_or(&[][..], Vec::as_slice)))
    },
    read: |columns, name| columns.string_lists(name),
}

kind! {
    Vec<Message>, Self, column::messages_type(), null: false,
    write: |values| column::messages(values.map(|value| value.map_or(&[][..], Vec::as_slice))),
    read: |columns, name| {
        let conversations = columns.optional_messages(name)?.into_iter();
        Ok(conversations.map(Option::unwrap_or_default).collect())
    },
}

/// A time in microseconds since the epoch; 0 where it is missing or null when read.
pub(crate) struct MicrosUtc;

kind! {
    MicrosUtc, i64, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), null: false,
    write: |values| {
        let times = values.map(|value| value.copied());
        let times: PrimitiveArray<TimestampMicrosecondType> = times.collect();
        Arc::new(times.with_timezone("UTC"))
    },
    read: |columns, name| {
        let times = columns.optional_primitives::<TimestampMicrosecondType>(name)?;
        Ok(times.into_iter().map(Option::unwrap_or_default).collect())
    },
}

/// A text that is never null; where it is missing or null when read, the row's number in its batch, from 0.
pub(crate) struct OrRowNumber;

kind! {
    OrRowNumber, String, DataType::Utf8, null: false,
    write: |values| column::strings(values.map(|value| value.map(String::as_str))),
    read: |columns, name| {
        let texts = columns.optional_strings(name)?.into_iter().enumerate();
        let texts = texts.map(|(row, text)| text.unwrap_or_else(|| row.to_string()));
        Ok(texts.collect())
    },
}

/// A text that every row of the table has: `None` is an error when written, and what a table without the column gives.
pub(crate) struct Set;

kind! {
    Set, Option<String>, DataType::Utf8, null: false,
    write: |values| column::strings(values.map(|value| value?.as_deref())),
    read: |columns, name| columns.optional_strings(name),
}

impl Kind for Option<TopK> {
    type Value = Self;

    fn fields(_: &str) -> Vec<Field> {
        let types = [
            DataType::UInt16,
            column::list_of(DataType::UInt32),
            column::list_of(DataType::Float16),
            column::list_of(DataType::Float32),
            column::list_of(DataType::UInt16),
        ];
        let named = TOP_K_COLUMNS.into_iter().zip(types);
        named
            .map(|(name, kind)| Field::new(name, kind, true))
            .collect()
    }

    fn columns<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> Result<Vec<ArrayRef>> {
        Ok(top_k_columns(values.map(|v| v?.as_ref())).into())
    }

    fn read(columns: &Columns<'_>, _: &str) -> Result<Vec<Self>> {
        read_top_k(columns)
    }
}

impl<R: Row> Kind for Option<R> {
    type Value = Self;

    fn fields(name: &str) -> Vec<Field> {
        vec![Field::new(name, DataType::Struct(R::fields().into()), true)]
    }

    fn columns<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> Result<Vec<ArrayRef>> {
        let rows: Vec<Option<&R>> = values.map(|v| v?.as_ref()).collect();
        let valid: Vec<bool> = rows.iter().map(Option::is_some).collect();
        let columns = R::columns(&rows)?;
        let column = StructArray::try_new(R::fields().into(), columns, Some(valid.into()))?;
        Ok(vec![Arc::new(column)])
    }

    fn read(columns: &Columns<'_>, name: &str) -> Result<Vec<Self>> {
        let Some((fields, valid)) = columns.nested(name)? else {
            return Ok((0..columns.0.num_rows()).map(|_| None).collect());
        };
        let rows = R::read(&Columns(&fields))?.into_iter().zip(valid);
        Ok(rows.map(|(row, valid)| valid.then_some(row)).collect())
    }
}
