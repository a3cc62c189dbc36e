//! Reading safetensors checkpoints: one file or shards, mapped into memory and checked before use.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::Metadata, tensor::TensorInfo};

use crate::config::ModelConfig;
use crate::error::{Error, Result, io, read_json};
use crate::parameters::{EMBEDDING, HEAD, parameter_names};

/// Before every name but the head's.
const PREFIX: &str = "model.";

/// In the names of buffers that follow from the configuration.
const ROTARY: &str = "rotary_emb.";

/// A checkpoint's tensors, mapped: nothing is read until it is asked for.
pub struct Weights {
    /// The index where there is one, else the only file: what errors about absence name.
    source: PathBuf,
    files: Vec<MappedFile>,
    names: BTreeMap<String, Place>,
    /// Whether the stored names lack `model.`, which [`names`](Self::names) have.
    bare: bool,
}

/// Where a tensor is.
struct Place {
    /// Its file's number.
    file: usize,
    /// Its name in the file.
    stored: String,
}

struct MappedFile {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    data_start: usize,
}

impl Weights {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// Every header is checked against its file's size, and every indexed tensor against the
    /// file that should hold it.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join("model.safetensors");
        if single.exists() {
            return Ok(Self::open_file(&single)?.with_full_names());
        }
        let index_path = dir.join("model.safetensors.index.json");
        if !index_path.exists() {
            return Err(Error::NoWeights { dir: dir.into() });
        }
        let index = read_json(&index_path)?;
        let Some(weight_map) = index.get("weight_map").and_then(|map| map.as_object()) else {
            return Err(Error::Config {
                path: index_path,
                key: "weight_map".into(),
                problem: "must be an object of tensor names and files".into(),
            });
        };
        let mut numbers = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (name, file) in weight_map {
            // A path in an index could point anywhere; shards lie beside it.
            let Some(file) = file.as_str().filter(|f| !f.contains(['/', '\\'])) else {
                return Err(Error::Config {
                    path: index_path,
                    key: format!("weight_map.{name}"),
                    problem: "must be the name of a file in the same folder".into(),
                });
            };
            let next = numbers.len();
            let file = *numbers.entry(file).or_insert(next);
            let stored = name.clone();
            names.insert(name.clone(), Place { file, stored });
        }
        let mut ordered: Vec<_> = numbers.into_iter().collect();
        ordered.sort_by_key(|(_, number)| *number);
        let files = ordered
            .into_iter()
            .map(|(file, _)| MappedFile::open(&dir.join(file)))
            .collect::<Result<Vec<_>>>()?;
        // Older transformers listed rotary buffers that it did not write.
        names.retain(|name, place| !name.contains(ROTARY) || files[place.file].has(name));
        for (name, place) in &names {
            if !files[place.file].has(name) {
                return Err(Error::MissingTensor {
                    path: files[place.file].path.clone(),
                    name: name.clone(),
                });
            }
        }
        let weights = Self {
            source: index_path,
            files,
            names,
            bare: false,
        };
        Ok(weights.with_full_names())
    }

    /// Gives the names of a decoder that was saved without its head (`AutoModel`) the `model.` they lack.
    fn with_full_names(mut self) -> Self {
        let Some(bare) = EMBEDDING.strip_prefix(PREFIX) else {
            return self;
        };
        self.bare = self.contains(bare) && !self.contains(EMBEDDING);
        if self.bare {
            let names = std::mem::take(&mut self.names).into_iter();
            self.names = names
                .map(|(name, place)| match name.as_str() {
                    HEAD => (name, place),
                    _ => (format!("{PREFIX}{name}"), place),
                })
                .collect();
        }
        self
    }

    /// What people should hear about how the tensors are read, a line each.
    pub(crate) fn notices(&self) -> Vec<String> {
        let path = self.source.display();
        let mut notices = Vec::new();
        if self.bare {
            notices.push(format!(
                "{path}: its tensors' names lack `{PREFIX}`; they are read with it"
            ));
        }
        let places = self.names.keys().filter_map(|name| self.find(name).ok());
        let wide = places.filter(|(_, info)| info.dtype == Dtype::F64).count();
        if wide > 0 {
            notices.push(format!(
                "{path}: {wide} tensors hold F64; they are read as F32"
            ));
        }
        notices
    }

    /// Whether two tensors hold the same numbers.
    pub(crate) fn same(&self, left: &str, right: &str) -> Result<bool> {
        let ((a, first), (b, second)) = (self.find(left)?, self.find(right)?);
        if first.shape != second.shape {
            return Ok(false);
        }
        if first.dtype == second.dtype {
            return Ok(a.bytes(first) == b.bytes(second));
        }
        let values = |name: &str| -> Result<Vec<f32>> {
            Ok(self.tensor(name, DType::F32)?.flatten_all()?.to_vec1()?)
        };
        Ok(values(left)? == values(right)?)
    }

    /// Opens one safetensors file, such as an adapter's.
    pub fn open_file(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let names = file
            .metadata
            .tensors()
            .into_keys()
            .map(|stored| (stored.clone(), Place { file: 0, stored }))
            .collect();
        Ok(Self {
            source: path.into(),
            files: vec![file],
            names,
            bare: false,
        })
    }

    /// The tensors' names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.find(name)?.1.shape)
    }

    /// The stored type that most of the checkpoint's elements have; what an export writes again.
    pub fn dtype(&self) -> Result<DType> {
        let mut elements: BTreeMap<&'static str, (usize, DType)> = BTreeMap::new();
        for name in self.names.keys() {
            let (file, info) = self.find(name)?;
            // Buffers beside the weights hold what they like.
            let dtype = match readable(info.dtype, name, &file.path) {
                Ok(DType::F64) => DType::F32,
                Ok(dtype) => dtype,
                Err(_) => continue,
            };
            let count = info.shape.iter().product::<usize>();
            elements.entry(dtype.as_str()).or_insert((0, dtype)).0 += count;
        }
        Ok(elements
            .into_values()
            .max_by_key(|(count, _)| *count)
            .map_or(DType::F32, |(_, dtype)| dtype))
    }

    /// Checks that every parameter of `config` is there in its shape, before anything is loaded.
    ///
    /// Tensors beyond those are left alone: checkpoints carry rotary buffers and tied heads.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        for (name, shape) in parameter_names(config) {
            if name == HEAD && !self.contains(HEAD) {
                return Err(Error::NoHead {
                    path: self.source.clone(),
                });
            }
            self.check_shape(&name, &shape)?;
        }
        Ok(())
    }

    fn check_shape(&self, name: &str, expected: &[usize]) -> Result<()> {
        let (file, info) = self.find(name)?;
        if info.shape != expected {
            return Err(Error::TensorShape {
                path: file.path.clone(),
                name: name.into(),
                expected: expected.to_vec(),
                found: info.shape.clone(),
            });
        }
        readable(info.dtype, name, &file.path).map(|_| ())
    }

    /// One tensor on the CPU, converted from F64, F32, F16 or BF16 to `dtype`.
    ///
    /// Holds no other copy than the result (and, for a `dtype` other than F32, its F32 form).
    pub fn tensor(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let (file, info) = self.find(name)?;
        let stored = readable(info.dtype, name, &file.path)?;
        let bytes = info.data_offsets.0..info.data_offsets.1;
        let values = match stored {
            DType::F16 => file.widened(bytes, |b: [u8; 2]| f16::from_le_bytes(b).to_f32()),
            DType::BF16 => file.widened(bytes, |b: [u8; 2]| bf16::from_le_bytes(b).to_f32()),
            DType::F64 => file.widened(bytes, |b: [u8; 8]| f64::from_le_bytes(b) as f32),
            _ => file.widened(bytes, f32::from_le_bytes),
        };
        let tensor = Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu)?;
        Ok(tensor.to_dtype(dtype)?)
    }

    /// [`tensor`](Self::tensor), after checking its shape.
    pub fn tensor_of_shape(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        self.check_shape(name, shape)?;
        self.tensor(name, dtype)
    }

    fn find(&self, name: &str) -> Result<(&MappedFile, &TensorInfo)> {
        self.names
            .get(name)
            .and_then(|place| {
                let file = &self.files[place.file];
                Some((file, file.metadata.info(&place.stored)?))
            })
            .ok_or_else(|| Error::MissingTensor {
                path: self.source.clone(),
                name: name.into(),
            })
    }
}

impl MappedFile {
    fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.map[self.data_start + start..self.data_start + end]
    }

    /// Little-endian numbers of `W` bytes as f32, converted in parallel: an embedding is hundreds of megabytes.
    ///
    /// The pages they were read from are let go of on the way, and do not count as memory beside the result.
    fn widened<const W: usize>(
        &self,
        bytes: Range<usize>,
        read: impl Fn([u8; W]) -> f32 + Sync,
    ) -> Vec<f32> {
        const CHUNK: usize = 1 << 16;
        const WINDOW: usize = 16 * CHUNK;
        let mut values = vec![0f32; bytes.len() / W];
        let start = self.data_start + bytes.start;
        for (window, values) in values.chunks_mut(WINDOW).enumerate() {
            let start = start + window * WINDOW * W;
            let bytes = &self.map[start..start + values.len() * W];
            values
                .par_chunks_mut(CHUNK)
                .zip(bytes.par_chunks(CHUNK * W))
                .for_each(|(values, bytes)| {
                    for (value, number) in values.iter_mut().zip(bytes.as_chunks::<W>().0) {
                        *value = read(*number);
                    }
                });
            #[cfg(unix)]
            // SAFETY: the map is read-only and shared with the file; what is touched again is read again.
            let _ = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                self.map.unchecked_advise_range(advice, start, bytes.len())
            };
        }
        values
    }

    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io(path))?;
        // SAFETY: the map is read-only. Another process that shortens the file under us would end
        // this one with SIGBUS, as with any reader of safetensors; checkpoints are not edited in place.
        let map = unsafe { Mmap::map(&file) }.map_err(io(path))?;
        match SafeTensors::read_metadata(&map) {
            Ok((header, metadata)) => Ok(Self {
                path: path.into(),
                map,
                metadata,
                data_start: 8 + header,
            }),
            Err(error) => Err(header_error(path, &map, &error)),
        }
    }
}

/// Says what is wrong with a header; for a cut file, how much of it there should be.
fn header_error(path: &Path, bytes: &[u8], error: &SafeTensorError) -> Error {
    let header = |problem: String| Error::WeightsHeader {
        path: path.into(),
        problem,
    };
    if bytes.starts_with(b"version https://git-lfs") {
        return header("it is a Git LFS pointer; fetch the file itself (git lfs pull)".into());
    }
    let Some(length) = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
        return header(format!("it holds {} bytes", bytes.len()));
    };
    let actual = bytes.len() as u64;
    match error {
        SafeTensorError::InvalidHeaderLength if length.saturating_add(8) > actual => {
            Error::WeightsSize {
                path: path.into(),
                expected: length.saturating_add(8),
                actual,
            }
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let end = usize::try_from(length)
                .ok()
                .and_then(|n| bytes.get(8..8 + n))
                .and_then(|json| serde_json::from_slice::<serde_json::Value>(json).ok())
                .and_then(|json| {
                    let ends = json.as_object()?.values();
                    ends.filter_map(|t| t.get("data_offsets")?.get(1)?.as_u64())
                        .max()
                });
            match end {
                Some(end) => Error::WeightsSize {
                    path: path.into(),
                    expected: 8 + length + end,
                    actual,
                },
                None => header(error.to_string()),
            }
        }
        _ => header(error.to_string()),
    }
}

fn readable(dtype: Dtype, name: &str, path: &Path) -> Result<DType> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        Dtype::F64 => Ok(DType::F64),
        other => Err(Error::TensorDtype {
            path: path.into(),
            name: name.into(),
            found: format!("{other:?}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use safetensors::tensor::TensorView;

    fn file(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                (
                    *name,
                    TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
                )
            })
            .collect();
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn half_types_are_widened() {
        let dir = tempfile::tempdir().unwrap();
        let halves: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect();
        let f16s: Vec<u8> = [0.25f32, 3.0]
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        file(
            &dir.path().join("model.safetensors"),
            &[
                ("a", Dtype::BF16, vec![2], halves.clone()),
                ("b", Dtype::F16, vec![1, 2], f16s),
                ("c", Dtype::BF16, vec![2], halves),
            ],
        );
        let weights = Weights::open(dir.path()).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(weights.dtype().unwrap(), DType::BF16);
        let a = weights.tensor("a", DType::F32).unwrap();
        assert_eq!(a.to_vec1::<f32>().unwrap(), [1.5, -2.0]);
        let b = weights.tensor("b", DType::F32).unwrap();
        assert_eq!(b.to_vec2::<f32>().unwrap(), [[0.25, 3.0]]);
        assert_eq!(
            weights.tensor("a", DType::BF16).unwrap().dtype(),
            DType::BF16
        );
    }

    #[test]
    fn a_cut_file_says_how_much_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        file(&path, &[("a", Dtype::F32, vec![4], floats(&[1.0; 4]))]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let message = Weights::open(dir.path()).err().unwrap().to_string();
        assert!(message.contains("model.safetensors"), "{message}");
        assert!(
            message.contains(&format!("should hold {} bytes", whole.len())),
            "{message}"
        );
        assert!(
            message.contains(&format!("holds {}", whole.len() - 5)),
            "{message}"
        );

        std::fs::write(&path, &whole[..20]).unwrap();
        let message = Weights::open(dir.path()).err().unwrap().to_string();
        assert!(message.contains("should hold"), "{message}");
        for rubbish in [
            &b"abc"[..],
            b"version https://git-lfs.github.com/spec/v1\n",
            b"<html>...</html>",
        ] {
            std::fs::write(&path, rubbish).unwrap();
            let message = Weights::open(dir.path()).err().unwrap().to_string();
            assert!(message.contains("model.safetensors"), "{message}");
        }
    }

    #[test]
    fn shards_are_found_through_the_index() {
        let dir = tempfile::tempdir().unwrap();
        file(
            &dir.path().join("one.safetensors"),
            &[("a", Dtype::F32, vec![1], floats(&[1.0]))],
        );
        file(
            &dir.path().join("two.safetensors"),
            &[("b", Dtype::F32, vec![1], floats(&[2.0]))],
        );
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(
            &index,
            r#"{"weight_map": {"b": "two.safetensors", "a": "one.safetensors"}}"#,
        )
        .unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        let b = weights.tensor("b", DType::F32).unwrap();
        assert_eq!(b.to_vec1::<f32>().unwrap(), [2.0]);
        let missing = weights.tensor("c", DType::F32).unwrap_err().to_string();
        assert!(
            missing.contains("index.json: tensor `c` is missing"),
            "{missing}"
        );

        std::fs::write(&index, r#"{"weight_map": {"c": "two.safetensors"}}"#).unwrap();
        let missing = Weights::open(dir.path()).err().unwrap().to_string();
        assert!(
            missing.contains("two.safetensors: tensor `c` is missing"),
            "{missing}"
        );
        std::fs::write(&index, r#"{"weight_map": {"c": "../two.safetensors"}}"#).unwrap();
        assert!(Weights::open(dir.path()).is_err());
    }

    #[test]
    fn wide_numbers_bare_names_and_absent_rotary_buffers_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let wide: Vec<u8> = [0.1f64, -2.5]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        file(
            &dir.path().join("one.safetensors"),
            &[
                ("embed_tokens.weight", Dtype::F64, vec![2], wide),
                ("norm.weight", Dtype::F32, vec![1], floats(&[1.0])),
                ("position_ids", Dtype::I64, vec![1], vec![0; 8]),
                ("lm_head.weight", Dtype::F32, vec![1], floats(&[3.0])),
            ],
        );
        let map = [
            "embed_tokens.weight",
            "norm.weight",
            "position_ids",
            "lm_head.weight",
            "layers.0.self_attn.rotary_emb.inv_freq",
        ];
        let map: serde_json::Map<_, _> = map
            .map(|name| (name.into(), "one.safetensors".into()))
            .into_iter()
            .collect();
        let index = serde_json::json!({"weight_map": map});
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(&path, index.to_string()).unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        let embedding = weights.tensor(EMBEDDING, DType::F32).unwrap();
        assert_eq!(embedding.to_vec1::<f32>().unwrap(), [0.1, -2.5]);
        assert!(weights.contains(HEAD) && weights.contains("model.norm.weight"));
        assert_eq!(weights.dtype().unwrap(), DType::F32);
        let notices = weights.notices();
        assert!(notices[0].contains("lack `model.`"), "{notices:?}");
        assert!(notices[1].contains("1 tensors hold F64"), "{notices:?}");
    }

    #[test]
    fn a_wrong_shape_names_the_tensor() {
        let dir = tempfile::tempdir().unwrap();
        file(
            &dir.path().join("model.safetensors"),
            &[("a", Dtype::F32, vec![2], floats(&[1.0, 2.0]))],
        );
        let weights = Weights::open(dir.path()).unwrap();
        let message = weights
            .tensor_of_shape("a", &[1, 2], DType::F32)
            .unwrap_err()
            .to_string();
        assert!(
            message.ends_with("tensor `a` has shape [2], expected [1, 2]"),
            "{message}"
        );
    }

    #[test]
    fn a_folder_without_weights_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let message = Weights::open(dir.path()).err().unwrap().to_string();
        assert!(message.contains("holds no model.safetensors"), "{message}");
    }
}
