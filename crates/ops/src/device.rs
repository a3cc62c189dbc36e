//! Where tensors are worked on.

use std::fmt;
use std::str::FromStr;

use candle_core::{Device, Error, Result};

/// Takes another way where a tensor lies on a GPU.
macro_rules! on_gpu {
    ($tensor:expr => $call:expr) => {
        #[cfg(feature = "cuda")]
        if $tensor.device().is_cuda() {
            return $call;
        }
    };
}
pub(crate) use on_gpu;

/// The CPU, or one of the NVIDIA GPUs that a build with the `cuda` feature can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Cpu,
    Cuda(usize),
}

impl Place {
    /// The first GPU where this build can use one and there is one, else the CPU.
    #[must_use]
    pub fn found() -> Self {
        #[cfg(feature = "cuda")]
        if crate::cuda::device_count().is_ok_and(|count| count > 0) {
            return Place::Cuda(0);
        }
        Place::Cpu
    }

    /// # Errors
    /// Says why, of a GPU that is not there or that this build cannot use.
    pub fn check(self) -> std::result::Result<(), String> {
        match self {
            Place::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            Place::Cuda(ordinal) => match crate::cuda::device_count()? {
                count if ordinal < count => Ok(()),
                0 => Err("the driver finds no GPU".into()),
                count => Err(format!("the driver finds {count} GPUs, numbered from 0")),
            },
            #[cfg(not(feature = "cuda"))]
            Place::Cuda(_) => Err("this build has no GPUs; one with the `cuda` feature has".into()),
        }
    }

    /// # Errors
    /// Those of [`Self::check`] and of the driver.
    pub fn open(self) -> Result<Device> {
        self.check().map_err(Error::msg)?;
        match self {
            #[cfg(feature = "cuda")]
            Place::Cuda(ordinal) => crate::cuda::open(ordinal),
            _ => Ok(Device::Cpu),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let ordinal = match text {
            "cpu" => return Ok(Place::Cpu),
            "cuda" => Some(0),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|ordinal| ordinal.parse().ok()),
        };
        match ordinal {
            Some(ordinal) => Ok(Place::Cuda(ordinal)),
            None => Err(format!("`{text}` is not `cpu`, `cuda` or `cuda:N`")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => write!(f, "cpu"),
            Place::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// The most bytes that this process's tensors took at a time on the GPU that `device` is; none for the CPU.
///
/// # Errors
/// Those of the driver.
pub fn peak_memory(device: &Device) -> Result<Option<u64>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::peak_memory(device).map(Some),
        _ => Ok(None),
    }
}

/// Begins [`peak_memory`] anew, from what is held now.
///
/// # Errors
/// Those of the driver.
pub fn forget_peak(device: &Device) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::forget_peak(device),
        _ => Ok(()),
    }
}

/// Whether a GPU had no memory left for what was asked.
#[must_use]
pub fn is_out_of_memory(error: &Error) -> bool {
    let words = error.to_string();
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_written_as_they_are_read() {
        for (text, place) in [
            ("cpu", Some(Place::Cpu)),
            ("cuda", Some(Place::Cuda(0))),
            ("cuda:3", Some(Place::Cuda(3))),
            ("cuda:", None),
            ("gpu", None),
            ("cuda:-1", None),
        ] {
            assert_eq!(text.parse().ok(), place, "{text}");
        }
        assert_eq!(Place::Cuda(3).to_string(), "cuda:3");
        assert!(Place::Cpu.open().unwrap().is_cpu());
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error() {
        let error = Place::Cuda(99).open().unwrap_err().to_string();
        assert!(error.contains("GPUs"), "{error}");
    }
}
