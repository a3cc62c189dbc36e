//! Buffers that tasks fill together.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A buffer of which every task has elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: `Shared::slice` and `Shared::rows` ask their callers for elements that no other task has.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(buffer: &'a mut [T]) -> Self {
        Self {
            data: buffer.as_mut_ptr(),
            len: buffer.len(),
            lifetime: PhantomData,
        }
    }

    /// # Panics
    /// When the elements do not all lie within the buffer.
    ///
    /// # Safety
    /// No other task touches them while the slice is in use.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the buffer, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// A vector that `fill` writes.
///
/// # Safety
/// `fill` writes every element.
pub(crate) unsafe fn filled<T>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    fill(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the caller vouches for them.
    unsafe { values.set_len(len) };
    values
}

/// [`filled`] for two vectors that are written together.
///
/// # Safety
/// `fill` writes every element of both.
pub(crate) unsafe fn filled_pair<T>(
    len: usize,
    fill: impl FnOnce(&mut [MaybeUninit<T>], &mut [MaybeUninit<T>]),
) -> (Vec<T>, Vec<T>) {
    let mut second = Vec::with_capacity(len);
    // SAFETY: the caller vouches for both.
    unsafe {
        let first = filled(len, |first| {
            fill(first, &mut second.spare_capacity_mut()[..len])
        });
        second.set_len(len);
        (first, second)
    }
}
