#![allow(clippy::unwrap_used)]
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use serde_json::json;

use super::*;
use crate::parquet_file::Writer;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn rows(path: &Path, columns: Option<&[&str]>) -> (Vec<(u64, Item)>, Seen) {
    let mut rows = Vec::new();
    let seen = read::<Error>(path, columns, |number, item| {
        rows.push((number, item));
        Ok(true)
    });
    (rows, seen.unwrap())
}

fn row(value: Value) -> Item {
    Item::Row(value.as_object().unwrap().clone())
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_same_rows_come_out_of_every_kind_of_file() {
    let folder = Folder::new();
    let lines = "{\"a\":\"x\",\"b\":\"1\"}\n{\"a\":\"y\",\"b\":\"2\"}\n";
    let array = " [ {\"a\": \"x\", \"b\": \"1\"},\n{\"a\":\"y\",\"b\":\"2\"} ] ";
    let bom = format!("\u{feff}{lines}");
    let zstd = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    let table = folder.0.path().join("t.parquet");
    let columns: [(&str, ArrayRef); 2] = [
        ("a", Arc::new(StringArray::from(vec!["x", "y"]))),
        ("b", Arc::new(StringArray::from(vec!["1", "2"]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = Writer::create(&table, batch.schema(), &[]).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let expected = [
        (1, row(json!({"a": "x", "b": "1"}))),
        (2, row(json!({"a": "y", "b": "2"}))),
    ];
    for path in [
        folder.write("t.jsonl", lines.as_bytes()),
        folder.write("t.json", array.as_bytes()),
        folder.write("bom.jsonl", bom.as_bytes()),
        folder.write("crlf.jsonl", lines.replace('\n', "\r\n").as_bytes()),
        folder.write(
            "t.jsonl.gz",
            &[gzip(&lines[..18]), gzip(&lines[18..])].concat(),
        ),
        folder.write("t.JSON.zst", &zstd),
        folder.write("t.csv", b"a,b\nx,1\ny,2\n"),
        table,
    ] {
        let (found, seen) = rows(&path, None);
        assert_eq!(found, expected, "{}", path.display());
        assert!(seen.whole && seen.mended == 0);
        assert_eq!(self::columns(&path).unwrap(), ["a", "b"]);
        let (found, seen) = rows(&path, Some(&["b"]));
        assert_eq!(found[1].1, row(json!({"b": "2"})));
        assert_eq!(seen.unread.into_iter().collect::<Vec<_>>(), ["a"]);
    }
    let other = folder.write("t.txt", b"x");
    let error = read::<Error>(&other, None, |_, _| Ok(true)).unwrap_err();
    assert!(error.to_string().contains(".parquet, .jsonl"), "{error}");
}

#[test]
fn one_odd_row_is_one_row_and_numbers_are_those_of_the_file() {
    let folder = Folder::new();
    let text = b"{\"a\":1}\n\n{\"a\":\n[1]\n\xff\xfe{}\n{\"a\":2}";
    let (found, _) = rows(&folder.write("t.jsonl", text), None);
    let problems: Vec<_> = found
        .iter()
        .map(|(number, item)| match item {
            Item::Row(row) => format!("{number} {}", row["a"]),
            Item::Unreadable { problem, .. } => format!("{number} {problem}"),
        })
        .collect();
    assert_eq!(
        problems,
        [
            "1 1",
            "3 no JSON: EOF while parsing a value at byte 5",
            "4 no JSON object",
            "5 invalid UTF-8 at byte 1",
            "6 2"
        ]
    );
    let array = br#"[{"a":"],[\"}"}, 3, {"a":nope}, {"a":[{"b":","}]}, {"a":4"#;
    let (found, seen) = rows(&folder.write("t.json", array), None);
    assert_eq!(found[0], (1, row(json!({"a": "],[\"}"}))));
    assert!(matches!(&found[1].1, Item::Unreadable { reason, .. } if *reason == "no JSON object"));
    assert!(matches!(&found[2].1, Item::Unreadable { reason, .. } if *reason == "no JSON"));
    assert_eq!(found[3], (4, row(json!({"a": [{"b": ","}]}))));
    assert!(
        matches!(&found[4].1, Item::Unreadable { reason, .. } if *reason == "the array is not closed")
    );
    assert!(seen.whole);
    for empty in ["[]", "", "\n\n", "[ ]\n"] {
        assert!(
            rows(&folder.write("e.json", empty.as_bytes()), None)
                .0
                .is_empty()
        );
    }
}

#[test]
fn what_python_writes_and_json_has_not_is_mended_and_counted() {
    let folder = Folder::new();
    let lines = concat!(
        r#"{"a":1,"n":NaN,"i":[-Infinity,Infinity],"s":"NaN \"Infinity\""}"#,
        "\n",
        r#"{"a":"x \ud83d y \ud83d\ude00 \udc00","e":1e999}"#,
        "\n",
        r#"{"a":"NaN"}"#
    );
    let path = folder.write("t.jsonl", lines.as_bytes());
    let (found, seen) = rows(&path, Some(&["a", "n", "i", "s"]));
    let first = json!({"a": 1, "n": null, "i": [null, null], "s": "NaN \"Infinity\""});
    assert_eq!(found[0].1, row(first));
    assert_eq!(
        found[1].1,
        row(json!({"a": "x \u{fffd} y \u{1f600} \u{fffd}"}))
    );
    assert_eq!(found[2].1, row(json!({"a": "NaN"})));
    assert_eq!((seen.mended, seen.first_mended), (2, Some(1)));
    assert!(seen.unread.contains("e"));
}

#[test]
fn parquet_cells_of_every_type_have_a_value() {
    let folder = Folder::new();
    let path = folder.0.path().join("t.parquet");
    let columns: [(&str, ArrayRef); 3] = [
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("n", Arc::new(Int64Array::from(vec![7, 8]))),
        (
            "day",
            Arc::new(arrow::array::Date32Array::from(vec![Some(0), None])),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = Writer::create(&path, batch.schema(), &[]).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let (found, _) = rows(&path, None);
    assert_eq!(
        found[0].1,
        row(json!({"flag": true, "n": 7, "day": "1970-01-01"}))
    );
    assert_eq!(found[1].1, row(json!({"flag": null, "n": 8, "day": null})));
}
