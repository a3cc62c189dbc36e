//! Arrow's values as JSON's, so that a row reads the same from Parquet and from JSON.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Number, Value};

/// The value of a row. Dates, decimals and the like are texts; bytes that are no text are null.
pub fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let list = |items: &dyn Array| (0..items.len()).map(|row| value(items, row)).collect();
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Dictionary(..) => {
            let one = array.slice(row, 1);
            let dictionary = one.as_any_dictionary();
            match dictionary.normalized_keys().first() {
                Some(&key) => value(dictionary.values().as_ref(), key),
                None => Value::Null,
            }
        }
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(row)),
        DataType::ListView(_) => list(&array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => list(&array.as_list_view::<i64>().value(row)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let fields = fields.iter().zip(columns);
            let fields = fields.map(|(field, column)| (field.name().clone(), value(column, row)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let fields = (0..entries.len()).filter_map(|at| match value(keys, at) {
                Value::String(key) => Some((key, value(values, at))),
                Value::Null => None,
                key => Some((key.to_string(), value(values, at))),
            });
            Value::Object(fields.collect())
        }
        kind if kind.is_integer() || kind.is_floating() => number(&array.slice(row, 1)),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let text = cast(&array.slice(row, 1), &DataType::Utf8).ok();
            let text = text.filter(|text| text.is_valid(0));
            text.map_or(Value::Null, |text| text.as_string::<i32>().value(0).into())
        }
        _ => array_value_to_string(array, row).map_or(Value::Null, Value::from),
    }
}

fn number(one: &dyn Array) -> Value {
    let Ok(text) = cast(one, &DataType::Utf8) else {
        return Value::Null;
    };
    let text = text.as_string::<i32>().value(0);
    // What JSON has no number for (infinities, NaN) stays text.
    text.parse::<Number>()
        .map_or_else(|_| text.into(), Value::Number)
}
