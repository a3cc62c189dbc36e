//! A GPU: its kernels, its memory, and where tensors lie in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::CudaBlas;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, result, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Shape, Storage, Tensor, bail};
use half::bf16;

use super::staging::Staging;

/// One `.cu` file, compiled.
pub struct Module {
    pub name: &'static str,
    pub image: &'static [u8],
}

/// A GPU on which tensors lie.
pub struct Gpu {
    device: CudaDevice,
    pub stream: Arc<CudaStream>,
    state: Arc<State>,
}

/// What is made once per GPU.
#[derive(Default)]
struct State {
    modules: Mutex<HashMap<&'static str, Arc<CudaModule>>>,
    functions: Mutex<HashMap<(&'static str, Option<&'static str>), CudaFunction>>,
    staging: Mutex<Option<Staging>>,
}

/// How many GPUs the driver sees.
///
/// # Errors
/// The driver's word for what keeps it from looking.
pub fn device_count() -> std::result::Result<usize, String> {
    match CudaContext::device_count() {
        Ok(n) => Ok(n.max(0) as usize),
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
        Err(error) => Err(format!("the driver says {error}")),
    }
}

/// GPU `ordinal`.
///
/// # Errors
/// Those of the driver.
pub fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: all work is in the device's one stream.
    unsafe { cuda.disable_event_tracking() };
    let pool = pool(&cuda.cuda_stream())?;
    let mut all = u64::MAX;
    // Freed memory is kept for the next step.
    // SAFETY: the attribute's value is a u64.
    unsafe {
        sys::cuMemPoolSetAttribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut all).cast(),
        )
    }
    .result()
    .w()?;
    Ok(device)
}

/// See [`crate::device::peak_memory`].
pub fn peak_memory(device: &Device) -> Result<u64> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let mut peak = 0u64;
    // SAFETY: the attribute's value is a u64.
    unsafe {
        sys::cuMemPoolGetAttribute(
            pool(&stream)?,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
            (&raw mut peak).cast(),
        )
    }
    .result()
    .w()?;
    Ok(peak)
}

/// See [`crate::device::forget_peak`].
pub fn forget_peak(device: &Device) -> Result<()> {
    let stream = device.as_cuda_device()?.cuda_stream();
    // Only 0 may be set.
    let mut peak = 0u64;
    // SAFETY: the attribute's value is a u64.
    unsafe {
        sys::cuMemPoolSetAttribute(
            pool(&stream)?,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
            (&raw mut peak).cast(),
        )
    }
    .result()
    .w()
}

fn pool(stream: &CudaStream) -> Result<sys::CUmemoryPool> {
    let mut pool = std::ptr::null_mut();
    // SAFETY: `pool` outlives the call.
    unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, stream.context().cu_device()) }
        .result()
        .w()?;
    Ok(pool)
}

fn states() -> &'static Mutex<HashMap<usize, Arc<State>>> {
    static STATES: OnceLock<Mutex<HashMap<usize, Arc<State>>>> = OnceLock::new();
    STATES.get_or_init(Mutex::default)
}

impl Gpu {
    /// The one that `tensor` lies on.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        Self::on(tensor.device())
    }

    pub fn on(device: &Device) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let ordinal = stream.context().ordinal();
        let mut states = states().lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(ordinal).or_default().clone();
        Ok(Self {
            device,
            stream,
            state,
        })
    }

    pub fn blas(&self) -> Arc<CudaBlas> {
        self.device.cublas_handle()
    }

    /// A kernel of a module, which may have `shared` bytes of dynamic memory.
    pub fn function(
        &self,
        module: &Module,
        name: &'static str,
        variant: Option<&'static str>,
        shared: u32,
    ) -> Result<CudaFunction> {
        let functions = &self.state.functions;
        let mut functions = functions.lock().unwrap_or_else(PoisonError::into_inner);
        let function = match functions.get(&(name, variant)) {
            Some(function) => function.clone(),
            None => {
                let suffix = variant.map(|variant| format!("_{variant}"));
                let full_name = format!("{name}{}", suffix.unwrap_or_default());
                let function = self.module(module)?.load_function(&full_name).w()?;
                functions.insert((name, variant), function.clone());
                function
            }
        };
        // Every kernel may have as much; more is asked for, and too much refused by the driver.
        if shared > 48 << 10 {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function
                .set_attribute(most, i32::try_from(shared).unwrap_or(i32::MAX))
                .w()?;
        }
        Ok(function)
    }

    fn module(&self, module: &Module) -> Result<Arc<CudaModule>> {
        let modules = &self.state.modules;
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = modules.get(module.name) {
            return Ok(loaded.clone());
        }
        let image = Ptx::from_binary(module.image.to_vec());
        let loaded = self.stream.context().load_module(image).w()?;
        modules.insert(module.name, loaded.clone());
        Ok(loaded)
    }

    /// A tensor whose values are for a kernel to write.
    pub fn uninitialised(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let size = shape.elem_count();
        // SAFETY: callers hand it to a kernel that writes every value.
        let storage = unsafe {
            match dtype {
                DType::F32 => self.wrap(self.device.alloc::<f32>(size)?),
                DType::BF16 => self.wrap(self.device.alloc::<bf16>(size)?),
                DType::F64 => self.wrap(self.device.alloc::<f64>(size)?),
                DType::U32 => self.wrap(self.device.alloc::<u32>(size)?),
                other => bail!("no {other:?} on the GPU"),
            }
        };
        Ok(Tensor::from_storage(
            Storage::Cuda(storage),
            shape,
            BackpropOp::none(),
            false,
        ))
    }

    fn wrap<T: candle_core::cuda_backend::CudaDType>(
        &self,
        slice: candle_core::cuda_backend::cudarc::driver::CudaSlice<T>,
    ) -> CudaStorage {
        CudaStorage::wrap_cuda_slice(slice, self.device.clone())
    }

    pub fn with_staging<R>(&self, f: impl FnOnce(&mut Staging) -> Result<R>) -> Result<R> {
        let staging = &self.state.staging;
        let mut staging = staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Staging::new(&self.stream)?);
        }
        match staging.as_mut() {
            Some(staging) => f(staging),
            None => bail!("no staging memory"),
        }
    }

    /// Copies a tensor's values into another of the same size and type.
    pub fn copy(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        let bytes = from.elem_count() * from.dtype().size_in_bytes();
        // SAFETY: `to` is as large.
        unsafe {
            result::memcpy_dtod_async(pointer(to)?, pointer(from)?, bytes, self.stream.cu_stream())
        }
        .w()
    }

    pub fn zero(&self, tensor: &Tensor) -> Result<()> {
        let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
        // SAFETY: the tensor's own bytes.
        unsafe { result::memset_d8_async(pointer(tensor)?, 0, bytes, self.stream.cu_stream()) }.w()
    }
}

/// Where a contiguous tensor's values begin.
pub fn pointer(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        bail!(
            "stillroom ops take contiguous tensors, got strides {:?}",
            tensor.stride()
        );
    };
    let Storage::Cuda(storage) = &*storage else {
        bail!("one operand of a GPU operation is on the CPU");
    };
    let stream = storage.device.cuda_stream();
    let base = match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F64(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        _ => bail!("stillroom ops take f32 and bf16, got {:?}", tensor.dtype()),
    };
    Ok(base + (start * tensor.dtype().size_in_bytes()) as u64)
}
