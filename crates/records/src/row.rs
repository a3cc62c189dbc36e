//! Row types of tables: each column is written once, as a field of a struct.
//!
//! [`row!`] declares a struct and implements [`Row`] for it. A field's type says what its column holds and whether it may
//! be null; [`kinds`] has the types there are. Where a column is not what the type says by itself, the field names its
//! kind: `created_at: i64 as MicrosUtc`.

mod kinds;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::column::Columns;
use crate::error::Result;

pub(crate) use kinds::{MicrosUtc, OrRowNumber, Set};

/// What a field of a row is in a table: one column, or several.
pub(crate) trait Kind {
    /// The field's type.
    type Value: 'static;

    /// The columns' names, types and whether they may be null. `name` is the field's.
    fn fields(name: &str) -> Vec<Field>;

    /// The columns of [`Self::fields`]. A value is `None` where the struct that it is a field of is null.
    fn columns<'a>(values: impl Iterator<Item = Option<&'a Self::Value>>) -> Result<Vec<ArrayRef>>;

    /// The value of each row. What a missing column or a null means is the kind's.
    fn read(columns: &Columns<'_>, name: &str) -> Result<Vec<Self::Value>>;
}

/// A struct whose fields are columns.
pub(crate) trait Row: Sized + 'static {
    /// In the order of the fields.
    fn fields() -> Vec<Field>;

    /// The columns of [`Self::fields`]; a row is `None` where it is itself a field that is null.
    fn columns(rows: &[Option<&Self>]) -> Result<Vec<ArrayRef>>;

    fn read(columns: &Columns<'_>) -> Result<Vec<Self>>;
}

pub(crate) fn schema<R: Row>() -> SchemaRef {
    Arc::new(Schema::new(R::fields()))
}

pub(crate) fn to_batch<R: Row>(rows: &[R], schema: &SchemaRef) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(schema.clone(), columns(rows)?)?)
}

/// The columns of [`schema`].
pub(crate) fn columns<R: Row>(rows: &[R]) -> Result<Vec<ArrayRef>> {
    R::columns(&rows.iter().map(Some).collect::<Vec<_>>())
}

pub(crate) fn from_batch<R: Row>(batch: &RecordBatch) -> Result<Vec<R>> {
    R::read(&Columns(batch))
}

/// A struct with public fields and its [`Row`].
macro_rules! row {
    // The kind of a field is its type, unless it names one.
    (@kind $type:ty) => { $type };
    (@kind $type:ty, $kind:ty) => { $kind };

    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[$field_about:meta])* pub $field:ident: $type:ty $(as $kind:ty)?,)*
        }
    ) => {
        $(#[$about])*
        pub struct $name {
            $($(#[$field_about])* pub $field: $type,)*
        }

        impl $crate::row::Row for $name {
            fn fields() -> Vec<arrow::datatypes::Field> {
                let fields = [$(
                    <$crate::row::row!(@kind $type $(, $kind)?) as $crate::row::Kind>::fields(
                        stringify!($field),
                    ),
                )*];
                fields.concat()
            }

            fn columns(rows: &[Option<&Self>]) -> $crate::Result<Vec<arrow::array::ArrayRef>> {
                let columns = [$(
                    <$crate::row::row!(@kind $type $(, $kind)?) as $crate::row::Kind>::columns(
                        rows.iter().map(|row| row.map(|row| &row.$field)),
                    )?,
                )*];
                Ok(columns.concat())
            }

            fn read(columns: &$crate::column::Columns<'_>) -> $crate::Result<Vec<Self>> {
                $(
                    let mut $field =
                        <$crate::row::row!(@kind $type $(, $kind)?) as $crate::row::Kind>::read(
                            columns,
                            stringify!($field),
                        )?
                        .into_iter();
                )*
                (0..columns.0.num_rows())
                    .map(|_| {
                        Ok(Self {
                            $($field: $field.next().ok_or($crate::Error::NoRow)?,)*
                        })
                    })
                    .collect()
            }
        }
    };
}

pub(crate) use row;
