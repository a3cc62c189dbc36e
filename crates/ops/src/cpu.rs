//! What this CPU can do; the standard library remembers it.

/// Whether this CPU multiplies bf16 pairs.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

pub fn has_avx512() -> bool {
    vectors() == Vectors::Avx512
}

/// The vector instructions that `vectorized!` chooses among.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vectors {
    Avx512,
    Avx2,
    Plain,
}

pub fn vectors() -> Vectors {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return Vectors::Avx512;
        }
        if avx2 {
            return Vectors::Avx2;
        }
    }
    Vectors::Plain
}

/// Asks for a line of memory in the second cache; any address will do.
#[inline(always)]
pub fn fetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
