//! Pinned memory through which small arrays go to the GPU, and come back, without the host waiting for it.

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, result, sys};

/// Bytes of one of the two halves that uploads go through by turns.
const HALF: usize = 8 << 20;

pub struct Staging {
    uploads: Pinned,
    /// Where the next upload goes, within both halves.
    at: usize,
    /// When each half was last left.
    left: [CudaEvent; 2],
    /// What [`Staging::give`] got back.
    free: Vec<Pinned>,
}

/// Page-locked memory of the host.
pub struct Pinned {
    data: *mut u8,
    len: usize,
}

// SAFETY: plain memory, owned.
unsafe impl Send for Pinned {}

impl Pinned {
    pub fn new(len: usize) -> Result<Self> {
        // SAFETY: freed by `drop` alone.
        let data: *mut u8 = unsafe { result::malloc_host(len.max(1), 0) }.w()?.cast();
        // SAFETY: as many bytes.
        unsafe { data.write_bytes(0, len.max(1)) };
        Ok(Self {
            data,
            len: len.max(1),
        })
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes that nothing else owns; any byte is a value.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: from `malloc_host`, and freed once. At exit the driver may be gone already.
        let _ = unsafe { result::free_host(self.data.cast()) };
    }
}

impl Staging {
    pub fn new(stream: &CudaStream) -> Result<Self> {
        let event = || stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING));
        Ok(Self {
            uploads: Pinned::new(2 * HALF)?,
            at: 0,
            left: [event().w()?, event().w()?],
            free: Vec::new(),
        })
    }

    /// Memory of at least `len` bytes for copies from the GPU, of any content.
    pub fn take(&mut self, len: usize) -> Result<Pinned> {
        match self.free.iter().position(|pinned| pinned.len >= len) {
            Some(at) => Ok(self.free.swap_remove(at)),
            None => Pinned::new(len),
        }
    }

    /// Takes back what [`Self::take`] gave, once nothing is copied to it any more.
    pub fn give(&mut self, pinned: Pinned) {
        self.free.push(pinned);
    }

    /// Copies `values` to `to`.
    pub fn upload<T>(
        &mut self,
        stream: &CudaStream,
        values: &[T],
        to: sys::CUdeviceptr,
    ) -> Result<()> {
        // SAFETY: the bytes of plain values.
        let mut bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        let mut to = to;
        while !bytes.is_empty() {
            let half = self.at / HALF % 2;
            let room = (half + 1) * HALF - self.at;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let staged = &mut self.uploads.bytes()[self.at..self.at + now.len()];
            staged.copy_from_slice(now);
            // SAFETY: `to` is as large as `values`, and the staged bytes stay until their half's event.
            unsafe { result::memcpy_htod_async(to, staged, stream.cu_stream()) }.w()?;
            to += now.len() as u64;
            bytes = later;
            self.at += now.len().next_multiple_of(16);
            if self.at >= (half + 1) * HALF {
                self.left[half].record(stream).w()?;
                self.at = (half + 1) % 2 * HALF;
                self.left[1 - half].synchronize().w()?;
            }
        }
        Ok(())
    }
}
