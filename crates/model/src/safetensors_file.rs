//! Writing safetensors as a stream: the header first, then one tensor at a time.

use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Writes `tensors` (name, shape) to `path`, taking each from `tensor` when its turn comes.
///
/// Tensors lie in alphabetical order and are converted to `dtype` (F32, F16 or BF16); metadata is
/// `{"format": "pt"}`, which transformers asks for. The same tensors give the same bytes, the file is
/// whole or absent, and no more than one tensor is held.
pub(crate) fn write(
    path: &Path,
    tensors: &[(String, Vec<usize>)],
    dtype: DType,
    tensor: &mut dyn FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    let mut ordered: Vec<_> = tensors.iter().collect();
    ordered.sort();
    let header = header(&ordered, dtype)?;
    // An error in `tensor` has to leave through an io::Error, whose place it takes afterwards.
    let mut failed = None;
    let written = records::atomic::write_with(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (name, shape) in &ordered {
            let bytes = tensor(name).and_then(|found| bytes(&found, name, shape, dtype, path));
            match bytes {
                Ok(bytes) => out.write_all(&bytes)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::Error::other("tensor not available"));
                }
            }
        }
        out.flush()
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

/// Bytes one element takes.
pub(crate) fn element_size(dtype: DType) -> Result<usize> {
    Ok(name_of(dtype)?.1)
}

fn name_of(dtype: DType) -> Result<(&'static str, usize)> {
    match dtype {
        DType::F32 => Ok(("F32", 4)),
        DType::F16 => Ok(("F16", 2)),
        DType::BF16 => Ok(("BF16", 2)),
        other => Err(Error::Setting {
            key: "export_dtype",
            value: other.as_str().into(),
            allowed: "must be f32, bf16 or f16".into(),
        }),
    }
}

fn header(tensors: &[&(String, Vec<usize>)], dtype: DType) -> Result<Vec<u8>> {
    let (dtype, size) = name_of(dtype)?;
    let mut map = Map::new();
    map.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * size;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]});
        map.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(map).to_string().into_bytes();
    // The format's own alignment of the data.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn bytes(
    tensor: &Tensor,
    name: &str,
    shape: &[usize],
    dtype: DType,
    path: &Path,
) -> Result<Vec<u8>> {
    if tensor.dims() != shape {
        return Err(Error::TensorShape {
            path: path.into(),
            name: name.into(),
            expected: shape.to_vec(),
            found: tensor.dims().to_vec(),
        });
    }
    let flat = tensor.detach().to_dtype(DType::F32)?.flatten_all()?;
    let values = flat.to_vec1::<f32>()?;
    Ok(match dtype {
        DType::F16 => narrow(&values, |v| f16::from_f32(v).to_le_bytes()),
        DType::BF16 => narrow(&values, |v| bf16::from_f32(v).to_le_bytes()),
        _ => narrow(&values, f32::to_le_bytes),
    })
}

fn narrow<const W: usize>(values: &[f32], write: impl Fn(f32) -> [u8; W]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * W];
    for (bytes, value) in bytes.as_chunks_mut::<W>().0.iter_mut().zip(values) {
        *bytes = write(*value);
    }
    bytes
}
