//! Powers by repeated squaring.

/// `base` to the power of `exponent` under `times`, from `one` on; `None` as soon as a product is.
pub fn power<T: Clone>(
    one: T,
    base: &T,
    mut exponent: u32,
    mut times: impl FnMut(&T, &T) -> Option<T>,
) -> Option<T> {
    let (mut power, mut square) = (one, base.clone());
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = times(&power, &square)?;
        }
        exponent >>= 1;
        if exponent > 0 {
            square = times(&square, &square)?;
        }
    }
    Some(power)
}
