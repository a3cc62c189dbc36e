//! Building and reading typed Arrow columns.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, ListBuilder, PrimitiveArray, PrimitiveBuilder,
    RecordBatch, StringArray, StringBuilder, StructBuilder, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::message::{Message, thought_and_answer};
use crate::{cell, conversation};

pub fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

pub fn message_fields() -> Fields {
    Fields::from(vec![
        Field::new("role", DataType::Utf8, true),
        Field::new("content", DataType::Utf8, true),
    ])
}

pub fn messages_type() -> DataType {
    list_of(DataType::Struct(message_fields()))
}

pub fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub fn primitives<T: ArrowPrimitiveType>(
    values: impl Iterator<Item = Option<T::Native>>,
) -> ArrayRef {
    let mut builder = PrimitiveBuilder::<T>::new();
    values.for_each(|value| builder.append_option(value));
    Arc::new(builder.finish())
}

pub fn lists<'a, T: ArrowPrimitiveType>(
    values: impl Iterator<Item = Option<&'a [T::Native]>>,
) -> ArrayRef {
    let mut builder = ListBuilder::new(PrimitiveBuilder::<T>::new());
    for value in values {
        if let Some(value) = value {
            builder.values().append_slice(value);
        }
        builder.append(value.is_some());
    }
    Arc::new(builder.finish())
}

pub fn string_lists<'a>(values: impl Iterator<Item = &'a [String]>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for value in values {
        builder.append_value(value.iter().map(Some));
    }
    Arc::new(builder.finish())
}

pub fn messages<'a>(values: impl Iterator<Item = &'a [Message]>) -> ArrayRef {
    let turn = StructBuilder::new(
        message_fields(),
        vec![
            Box::new(StringBuilder::new()),
            Box::new(StringBuilder::new()),
        ],
    );
    let mut builder = ListBuilder::new(turn);
    for conversation in values {
        for message in conversation {
            let turn = builder.values();
            // The column has no field for a thought of its own.
            let content = match &message.reasoning {
                None => Cow::Borrowed(message.content.as_str()),
                Some(thought) => Cow::Owned(thought_and_answer(thought, &message.content)),
            };
            for (index, text) in [message.role.as_str(), &content].into_iter().enumerate() {
                if let Some(field) = turn.field_builder::<StringBuilder>(index) {
                    field.append_value(text);
                }
            }
            turn.append(true);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// The batch with exactly the schema's columns: converted where they are of another type, null
/// where they are missing.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = Columns(batch);
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let expected = match field.data_type() {
                DataType::Utf8 => "text",
                DataType::Boolean => "true or false",
                DataType::List(item) if item.data_type().is_nested() => "a list of {role, content}",
                DataType::List(_) => "a list of numbers",
                _ => "a number",
            };
            match columns.column(field.name(), field.data_type(), expected)? {
                Some(column) => Ok(column),
                None if field.is_nullable() => {
                    Ok(new_null_array(field.data_type(), batch.num_rows()))
                }
                None => Err(columns.missing(field.name())),
            }
        })
        .collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// The columns of a batch by name, converted to the type that is asked for.
pub struct Columns<'a>(pub &'a RecordBatch);

impl Columns<'_> {
    /// `None` when the batch has no such column; integer widths, string and list
    /// layouts are converted.
    fn column(
        &self,
        name: &str,
        wanted: &DataType,
        expected: &'static str,
    ) -> Result<Option<ArrayRef>> {
        let Some(array) = self.0.column_by_name(name) else {
            return Ok(None);
        };
        if array.data_type() == wanted {
            return Ok(Some(array.clone()));
        }
        let refused = || Error::ColumnType {
            column: name.to_owned(),
            found: array.data_type().to_string(),
            expected,
        };
        // Arrow would write a list out as text.
        if array.data_type().is_nested() && !wanted.is_nested() {
            return Err(refused());
        }
        cast(array, wanted).map(Some).map_err(|_| refused())
    }

    pub(crate) fn missing(&self, name: &str) -> Error {
        let schema = self.0.schema();
        let present: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::MissingColumn {
            column: name.to_owned(),
            present: present.join(", "),
        }
    }

    pub fn optional_strings(&self, name: &str) -> Result<Vec<Option<String>>> {
        let Some(array) = self.column(name, &DataType::Utf8, "text")? else {
            return Ok(vec![None; self.0.num_rows()]);
        };
        Ok(array
            .as_string::<i32>()
            .iter()
            .map(|v| v.map(str::to_owned))
            .collect())
    }

    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        if self.0.column_by_name(name).is_none() {
            return Err(self.missing(name));
        }
        non_null(name, self.optional_strings(name)?)
    }

    pub fn optional_primitives<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<Vec<Option<T::Native>>> {
        let Some(array) = self.column(name, &T::DATA_TYPE, "a number")? else {
            return Ok(vec![None; self.0.num_rows()]);
        };
        Ok(array.as_primitive::<T>().iter().collect())
    }

    pub fn primitives<T: ArrowPrimitiveType>(&self, name: &str) -> Result<Vec<T::Native>> {
        if self.0.column_by_name(name).is_none() {
            return Err(self.missing(name));
        }
        non_null(name, self.optional_primitives::<T>(name)?)
    }

    pub fn optional_bools(&self, name: &str) -> Result<Vec<Option<bool>>> {
        let Some(array) = self.column(name, &DataType::Boolean, "true or false")? else {
            return Ok(vec![None; self.0.num_rows()]);
        };
        Ok(array.as_boolean().iter().collect())
    }

    pub fn optional_lists<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<Vec<Option<Vec<T::Native>>>> {
        let Some(array) = self.column(name, &list_of(T::DATA_TYPE), "a list of numbers")? else {
            return Ok(vec![None; self.0.num_rows()]);
        };
        array
            .as_list::<i32>()
            .iter()
            .map(|value| value.map(|v| flat(name, v.as_primitive::<T>())).transpose())
            .collect()
    }

    /// Lists of texts, of which neither a list nor a text may be null.
    pub fn string_lists(&self, name: &str) -> Result<Vec<Vec<String>>> {
        let Some(array) = self.column(name, &list_of(DataType::Utf8), "a list of texts")? else {
            return Err(self.missing(name));
        };
        let lists = non_null(name, array.as_list::<i32>().iter().collect())?.into_iter();
        lists
            .map(|list| {
                let texts = list.as_string::<i32>().iter();
                non_null(name, texts.map(|text| text.map(str::to_owned)).collect())
            })
            .collect()
    }

    /// Conversations, in every layout of turns that [`conversation`] reads; nulls are absent.
    pub fn optional_messages(&self, name: &str) -> Result<Vec<Option<Vec<Message>>>> {
        let Some(array) = self.0.column_by_name(name) else {
            return Ok(vec![None; self.0.num_rows()]);
        };
        if !holds_turns(array.data_type()) {
            return Err(Error::ColumnType {
                column: name.to_owned(),
                found: array.data_type().to_string(),
                expected: "a list of {role, content}",
            });
        }
        (0..array.len())
            .map(|row| match cell::value(array.as_ref(), row) {
                Value::Null => Ok(None),
                value => conversation::turns(name, &value)
                    .map(Some)
                    .map_err(Error::Conversation),
            })
            .collect()
    }

    /// A struct column as a batch of its fields, and which of its rows are not null.
    pub fn nested(&self, name: &str) -> Result<Option<(RecordBatch, Vec<bool>)>> {
        let Some(array) = self.0.column_by_name(name) else {
            return Ok(None);
        };
        let fields = array.as_struct_opt().ok_or_else(|| Error::ColumnType {
            column: name.to_owned(),
            found: array.data_type().to_string(),
            expected: "a struct",
        })?;
        let valid = (0..fields.len()).map(|row| fields.is_valid(row)).collect();
        let schema = Arc::new(Schema::new(fields.fields().clone()));
        let batch = RecordBatch::try_new(schema, fields.columns().to_vec())?;
        Ok(Some((batch, valid)))
    }
}

fn flat<T: ArrowPrimitiveType>(name: &str, values: &PrimitiveArray<T>) -> Result<Vec<T::Native>> {
    if values.null_count() > 0 {
        return Err(Error::NullValue {
            column: name.to_owned(),
            row: None,
        });
    }
    Ok(values.values().to_vec())
}

/// Whether a column may hold conversations: lists of structs, or texts that are such lists in JSON.
pub fn holds_turns(found: &DataType) -> bool {
    if let Some(item) = item_type(found) {
        return matches!(item, DataType::Struct(_) | DataType::Null);
    }
    match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, value) => holds_turns(value),
        _ => false,
    }
}

/// What the lists of a column are of; `None` where it holds none.
pub fn item_type(found: &DataType) -> Option<&DataType> {
    match found {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => Some(field.data_type()),
        _ => None,
    }
}

/// What `read` makes of each row of a batch: of all at once, or where that fails of each by itself, so that one odd row
/// is one row's fault.
pub fn each_row<T>(
    batch: &RecordBatch,
    read: impl Fn(&RecordBatch) -> Result<Vec<T>>,
) -> Vec<Result<T>> {
    match read(batch) {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) if batch.num_rows() == 1 => vec![Err(error)],
        Err(_) => (0..batch.num_rows())
            .map(|at| {
                let mut rows = read(&batch.slice(at, 1))?;
                rows.pop().ok_or(Error::NoRow)
            })
            .collect(),
    }
}

fn non_null<T>(name: &str, values: Vec<Option<T>>) -> Result<Vec<T>> {
    let null = || Error::NullValue {
        column: name.to_owned(),
        row: None,
    };
    values
        .into_iter()
        .map(|value| value.ok_or_else(null))
        .collect()
}
