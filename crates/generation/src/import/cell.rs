//! Arrow's values as JSON's, so that a row reads the same from Parquet and from JSONL.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use serde_json::{Map, Number, Value};

/// The value of a row. Texts, numbers, lists and structs are what layouts read; what has another type, as further
/// fields of a turn may, is null.
pub fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let list = |items: &dyn Array| (0..items.len()).map(|row| value(items, row)).collect();
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
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
        kind if kind.is_integer() || kind.is_floating() => number(&array.slice(row, 1)),
        _ => Value::Null,
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
