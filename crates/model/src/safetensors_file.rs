//! Writing safetensors as a stream: the header first, then one tensor at a time.

use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
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
    let written = records::atomic::write_with_stamped(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (name, shape) in &ordered {
            let found = tensor(name).and_then(|found| checked(found, name, shape, path));
            match found {
                Ok(found) => write_values(&mut out, &found, dtype)?,
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
        None => {
            records::stamps::remember(written?);
            Ok(())
        }
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

/// The tensor as contiguous F32 on the CPU, if it has the shape that the header promises.
fn checked(tensor: Tensor, name: &str, shape: &[usize], path: &Path) -> Result<Tensor> {
    if tensor.dims() != shape {
        return Err(Error::TensorShape {
            path: path.into(),
            name: name.into(),
            expected: shape.to_vec(),
            found: tensor.dims().to_vec(),
        });
    }
    let tensor = tensor.detach().to_device(&Device::Cpu)?;
    Ok(tensor.to_dtype(DType::F32)?.contiguous()?)
}

/// Converts a piece at a time: an embedding in bytes beside itself would double what an export holds.
fn write_values(out: &mut impl Write, tensor: &Tensor, dtype: DType) -> std::io::Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        return Err(std::io::Error::other("tensor is not contiguous F32"));
    };
    for piece in values[start..end].chunks(1 << 18) {
        out.write_all(&match dtype {
            DType::F16 => narrow(piece, |v| f16::from_f32(v).to_le_bytes()),
            DType::BF16 => narrow(piece, |v| bf16::from_f32(v).to_le_bytes()),
            _ => narrow(piece, f32::to_le_bytes),
        })?;
    }
    Ok(())
}

fn narrow<const W: usize>(values: &[f32], write: impl Fn(f32) -> [u8; W]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * W];
    for (bytes, value) in bytes.as_chunks_mut::<W>().0.iter_mut().zip(values) {
        *bytes = write(*value);
    }
    bytes
}
