//! How the allocator deals with the kernel while a model computes.

/// Numbers of `mi_option_t` in mimalloc.h that the bindings leave out.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Asks for pages of 2 MiB: weights and caches of hundreds of MiB are read in every step, and looking up a page of 4 KiB
/// takes as long as reading it. For the first allocations of the process.
pub fn large_pages() {
    // SAFETY: one of the allocator's own functions, which sets a number.
    unsafe { libmimalloc_sys::mi_option_set(libmimalloc_sys::mi_option_large_os_pages, 1) };
}

/// Hands back what reading data and weights has left, and nothing from then on: every step of training or of decoding
/// frees and takes the same memory, which the kernel would clear each time, for 3 to 7 % of the step.
pub fn keep_freed() {
    // SAFETY: the allocator's own functions, which any thread may call; one sets a number.
    unsafe {
        libmimalloc_sys::mi_collect(true);
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}
