//! One trace row as bytes: Arrow IPC of the traces' own schema, so that every column, f16 and
//! nulls included, comes back as it was without a second description of a trace.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use records::trace::{self, Trace};

pub fn encode(row: &Trace) -> Result<Vec<u8>, String> {
    let batch = trace::to_batch(std::slice::from_ref(row)).map_err(|error| error.to_string())?;
    encode_batch(&batch)
}

pub fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>, String> {
    // The schema comes first.
    let mut bytes = Vec::with_capacity(batch.get_array_memory_size() + (8 << 10));
    let mut write = || -> Result<(), arrow::error::ArrowError> {
        let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema())?;
        writer.write(batch)?;
        writer.finish()
    };
    write().map_err(|error| error.to_string())?;
    Ok(bytes)
}

pub fn decode(bytes: &[u8]) -> Result<RecordBatch, String> {
    let mut reader = StreamReader::try_new(bytes, None).map_err(|error| error.to_string())?;
    let batch = reader.next().ok_or("a kept completion is empty")?;
    batch.map_err(|error| format!("a kept completion cannot be read: {error}"))
}
