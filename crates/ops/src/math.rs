//! Kernels written so that the compiler can vectorise them: no branches, no calls.

/// e^x in f32, within 2 ulp for results in the normal range; 0 below -87.3 and `inf` above 88.7.
///
/// Cephes' `expf`: x = n·ln 2 + r, a degree-5 polynomial in r, and the exponent set by bits.
/// Only multiplications and additions, so a vector lane and a scalar give the same bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.336_54, 88.722_83);
    // Adding and taking away 1.5·2^23 rounds to the nearest integer.
    let n = (clamped * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let value = exp_of_fraction(clamped, n);
    // n reaches 128 at the top, whose bits are infinity's: scale in two steps.
    let half = (n * 0.5) as i32;
    let rest = n as i32 - half;
    let power = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    let scaled = value * power(half) * power(rest);
    if x < -87.336_54 { 0.0 } else { scaled }
}

/// e^(x − n·ln 2), for n the integer nearest to x / ln 2.
#[inline(always)]
fn exp_of_fraction(x: f32, n: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p * r * r + r + 1.0
}

/// e^x for x ≤ 0, in the arithmetic of [`exp`]; 0 below -87.3.
///
/// One half of its range needs one power of two, set without a conversion: a third of the instructions less.
#[inline(always)]
pub fn exp_down(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    /// 1.5·2^23: adding it rounds to the nearest integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // `max` would replace a NaN.
    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let value = exp_of_fraction(clamped, n);
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { value * power }
}

/// log(1 + y) in f32 for y above -1, within 3 ulp.
///
/// Cephes' `logf` of 1 + y, and what rounding that took away.
#[inline(always)]
pub fn log1p(y: f32) -> f32 {
    let sum = 1.0 + y;
    let lost = y - (sum - 1.0);
    let bits = sum.to_bits();
    // A mantissa from √½ to √2.
    let exponent = ((bits as i32) - 0x3f35_04f3) >> 23;
    let mantissa = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let f = mantissa - 1.0;
    let mut p = 7.037_683_6e-2;
    p = p * f - 1.151_461e-1;
    p = p * f + 1.167_699_9e-1;
    p = p * f - 1.242_014_1e-1;
    p = p * f + 1.424_932_3e-1;
    p = p * f - 1.666_805_8e-1;
    p = p * f + 2.000_071_5e-1;
    p = p * f - 2.499_999_4e-1;
    p = p * f + 0.333_333_3;
    let square = f * f;
    let exponent = exponent as f32;
    let log =
        f + (p * f * square - 0.5 * square - exponent * 2.121_944_4e-4) + exponent * 0.693_359_4;
    log + lost / sum
}

/// log Σ e^x over a row, in f32 terms summed in f64; `-inf` for a row of `-inf`.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let max = max(row);
    if max == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(max) + sum.ln()
}

/// The largest; NaNs are passed over, and nothing has `-inf`.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    let larger = |max: f32, x: f32| if x > max { x } else { max };
    let mut maxima = [f32::NEG_INFINITY; 2 * LANES];
    let (chunks, rest) = row.as_chunks::<{ 2 * LANES }>();
    for chunk in chunks {
        for (max, &x) in maxima.iter_mut().zip(chunk) {
            *max = larger(*max, x);
        }
    }
    let all = maxima.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |max, &x| larger(max, x))
}

pub const LANES: usize = 16;

/// Σ f(a_i, b_i), over sixteen running sums folded in a fixed order.
#[inline(always)]
pub fn sum_by<T: Copy>(a: &[T], b: &[T], f: impl Fn(T, T) -> f32) -> f32 {
    let (sums, a, b) = lane_sums(a, b, &f);
    let rest = a.iter().zip(b);
    rest.fold(fold(sums), |sum, (&x, &y)| sum + f(x, y))
}

/// The sixteen running sums of [`sum_by`], and what is left after the last sixteen.
#[inline(always)]
pub fn lane_sums<'a, T: Copy>(
    a: &'a [T],
    b: &'a [T],
    f: impl Fn(T, T) -> f32,
) -> ([f32; LANES], &'a [T], &'a [T]) {
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += f(x[lane], y[lane]);
        }
    }
    (sums, a_rest, b_rest)
}

/// The sum of sixteen, halves first.
#[inline(always)]
pub fn fold(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Defines a function that is compiled once for each instruction set and runs the widest this CPU has.
///
/// A closure would do where it is inlined, but large ones are not, and are then compiled for the oldest CPU. No
/// instruction set contracts multiplications and additions, so all give the same bits.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($element:ident: $bound:ident),+>)? ($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($element: $bound),+>)? ($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body $(<$($element: $bound),+>)? ($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512 $(<$($element: $bound),+>)? ($($argument: $kind),*) $(-> $result)? {
                    body $(::<$($element),+>)? ($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$($element: $bound),+>)? ($($argument: $kind),*) $(-> $result)? {
                    body $(::<$($element),+>)? ($($argument),*)
                }
                match $crate::cpu::vectors() {
                    // SAFETY: these instructions were detected on this CPU.
                    $crate::cpu::Vectors::Avx512 => return unsafe { avx512 $(::<$($element),+>)? ($($argument),*) },
                    // SAFETY: as above.
                    $crate::cpu::Vectors::Avx2 => return unsafe { avx2 $(::<$($element),+>)? ($($argument),*) },
                    $crate::cpu::Vectors::Plain => {}
                }
            }
            body $(::<$($element),+>)? ($($argument),*)
        }
    };
}
pub(crate) use vectorized;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0f64;
        let mut x = -87.0f32;
        while x < 88.5 {
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
            x += 0.003_7;
        }
        assert!(worst < 2.4e-7, "{worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e4), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn it_is_the_exponential_of_what_is_not_positive() {
        let mut x = -87.3f32;
        while x <= 0.0 {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_down(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "{x}: {error}");
            x += 0.001_7;
        }
        assert_eq!(exp_down(0.0), 1.0);
        for x in [f32::NEG_INFINITY, -1e4, -88.0] {
            assert_eq!(exp_down(x), 0.0);
        }
        assert!(exp_down(f32::NAN).is_nan());
    }

    #[test]
    fn log1p_is_within_three_ulp() {
        for i in 1..200_000 {
            let y = -(i as f32) / 200_001.0;
            for y in [y, y * 1e-3, y * 1e-6] {
                let exact = f64::from(y).ln_1p();
                let error = (f64::from(log1p(y)) - exact).abs() / exact.abs();
                assert!(error < 3.6e-7, "{y}: {error}");
            }
        }
        assert_eq!(log1p(0.0), 0.0);
    }

    #[test]
    fn a_sum_takes_what_does_not_fill_a_lane() {
        let a: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(sum_by(&a, &a, |x, y| x * y), 2109.0);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), f64::NEG_INFINITY);
    }
}
