//! The rows of trace parts or of a dataset, to be looked at: narrowed by a condition, and streamed.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use records::Message;
use records::column::Columns;
use records::parquet_file::Reader;

use crate::condition::Condition;
use crate::error::{Error, Result};

/// The column that says which split a row of a dataset is in.
pub const SPLIT: &str = "split";
/// The column of conversations, which is none of [`schema`]'s.
pub const MESSAGES: &str = "messages";

/// A file, and the split that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub split: Option<&'static str>,
}

/// What is asked for of each row.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// SQL over the columns of [`schema`].
    pub condition: Option<String>,
    /// Of [`schema`]; [`MESSAGES`] may be among them.
    pub columns: Vec<String>,
}

/// One row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The columns that were asked for, in that order, [`MESSAGES`] left out.
    pub values: Vec<(String, Option<String>)>,
    pub messages: Vec<Message>,
}

impl Record {
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.values.iter().find(|(column, _)| column == name);
        value?.1.as_deref()
    }
}

/// What conditions can name: the columns that hold one value, the fields of structs (`quality`), and `split`. Of several
/// files of a split the first one's are taken.
pub fn schema(sources: &[Source]) -> Result<SchemaRef> {
    let mut fields: Vec<Arc<Field>> = Vec::new();
    let mut add = |field: &Arc<Field>| {
        let single = !field.data_type().is_nested();
        if single && !fields.iter().any(|known| known.name() == field.name()) {
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
        }
    };
    let mut splits = Vec::new();
    for source in sources {
        if splits.contains(&source.split) {
            continue;
        }
        splits.push(source.split);
        let file = Reader::open(&source.path)?;
        let columns = file.schema().fields();
        columns.iter().for_each(&mut add);
        for column in columns {
            if let DataType::Struct(inner) = column.data_type() {
                inner.iter().for_each(&mut add);
            }
        }
        if source.split.is_some() {
            add(&Arc::new(Field::new(SPLIT, DataType::Utf8, false)));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The rows of all sources that are asked for, in the order of the sources.
pub struct Rows {
    sources: std::vec::IntoIter<Source>,
    file: Option<(Source, Reader)>,
    /// The columns that the condition reads and those that are asked for.
    columns: SchemaRef,
    condition: Option<Condition>,
    wanted: Vec<String>,
}

/// Opens nothing but one file of each split.
///
/// # Errors
/// [`Error::Config`] with the key `--where` or `--columns` for what is no condition, and for columns that are not there.
pub fn rows(sources: Vec<Source>, wanted: &Wanted) -> Result<Rows> {
    let all = schema(&sources)?;
    let unknown = |name: &&String| *name != MESSAGES && all.column_with_name(name).is_none();
    if let Some(name) = wanted.columns.iter().find(unknown) {
        let names: Vec<_> = all.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Error::config(
            "--columns",
            format!("there is no column `{name}`"),
            names.join(", "),
        ));
    }
    let parse = |schema: &SchemaRef| {
        let sql = wanted.condition.as_deref();
        sql.map(|sql| Condition::parse("--where", sql, schema))
            .transpose()
    };
    let read = parse(&all)?.map(|condition| condition.columns());
    let read = read.unwrap_or_default();
    let needed =
        |field: &&Arc<Field>| read.contains(field.name()) || wanted.columns.contains(field.name());
    let fields: Vec<_> = all.fields().iter().filter(needed).cloned().collect();
    let columns = Arc::new(Schema::new(fields));
    Ok(Rows {
        // Again, since it knows columns by their places.
        condition: parse(&columns)?,
        sources: sources.into_iter(),
        file: None,
        columns,
        wanted: wanted.columns.clone(),
    })
}

impl Iterator for Rows {
    /// The rows of some that were read: none of them may be asked for.
    type Item = Result<Vec<Record>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((source, reader)) = &mut self.file else {
                let source = self.sources.next()?;
                match self.open(&source) {
                    Ok(reader) => self.file = Some((source, reader)),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match reader.next() {
                None => self.file = None,
                Some(batch) => {
                    let (split, path) = (source.split, source.path.clone());
                    let found = batch.map_err(Error::from);
                    let found = found.and_then(|batch| self.records(&batch, split));
                    return Some(found.map_err(|error| match error {
                        Error::Records(error) => error.in_file(&path).into(),
                        other => other,
                    }));
                }
            }
        }
    }
}

impl Rows {
    fn open(&self, source: &Source) -> Result<Reader> {
        let file = Reader::open(&source.path)?;
        let fields = self.columns.fields();
        let reads = |column: &&Arc<Field>| {
            let inner = match column.data_type() {
                DataType::Struct(inner) => inner.iter().collect(),
                _ => vec![*column],
            };
            (column.name() == MESSAGES && self.wanted.iter().any(|name| name == MESSAGES))
                || inner
                    .iter()
                    .any(|field| fields.find(field.name()).is_some())
        };
        let columns = file.schema().fields().iter().filter(reads);
        let names: Vec<_> = columns.map(|column| column.name().as_str()).collect();
        Ok(Reader::open_columns(&source.path, Some(&names))?)
    }

    fn records(&self, batch: &RecordBatch, split: Option<&str>) -> Result<Vec<Record>> {
        let arrow = |error| Error::Records(records::Error::Arrow(error));
        let n_rows = batch.num_rows();
        let fields = self.columns.fields().iter();
        let columns = fields
            .map(|field| match (field.name().as_str(), split) {
                (SPLIT, Some(split)) => {
                    Ok(Arc::new(StringArray::from(vec![split; n_rows])) as ArrayRef)
                }
                (name, _) => match column(batch, name) {
                    Some(column) => cast(&column, field.data_type()).map_err(arrow),
                    None => Ok(new_null_array(field.data_type(), n_rows)),
                },
            })
            .collect::<Result<Vec<_>>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(n_rows));
        let mut narrow = RecordBatch::try_new_with_options(self.columns.clone(), columns, &options)
            .map_err(arrow)?;
        let mut whole = batch.clone();
        if let Some(condition) = &self.condition {
            let mask = condition.select(&narrow)?;
            narrow = filter_record_batch(&narrow, &mask).map_err(arrow)?;
            whole = filter_record_batch(&whole, &mask).map_err(arrow)?;
        }
        let mut found = vec![Record::default(); narrow.num_rows()];
        let options = FormatOptions::default();
        for name in self.wanted.iter().filter(|name| *name != MESSAGES) {
            let Some(column) = narrow.column_by_name(name) else {
                continue;
            };
            let shown = ArrayFormatter::try_new(column, &options).map_err(arrow)?;
            for (row, record) in found.iter_mut().enumerate() {
                let value = column.is_valid(row).then(|| shown.value(row).to_string());
                record.values.push((name.clone(), value));
            }
        }
        if self.wanted.iter().any(|name| name == MESSAGES) {
            let messages = Columns(&whole).optional_messages(MESSAGES)?;
            for (record, messages) in found.iter_mut().zip(messages) {
                record.messages = messages.unwrap_or_default();
            }
        }
        Ok(found)
    }
}

/// A column of that name, or the field of a struct.
fn column(batch: &RecordBatch, name: &str) -> Option<ArrayRef> {
    let single = batch.column_by_name(name);
    if let Some(column) = single.filter(|column| !column.data_type().is_nested()) {
        return Some(column.clone());
    }
    let structs = batch.columns().iter().filter_map(|c| c.as_struct_opt());
    structs
        .filter_map(|fields| fields.column_by_name(name))
        .next()
        .cloned()
}
