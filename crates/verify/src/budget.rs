//! How much work one comparison may take. It stands in place of a timeout: the same input ends
//! the same way on every machine.

/// Steps of one comparison; a step is about a nanosecond's worth of arithmetic on a large number.
pub const STEPS: u64 = 5_000_000;

#[derive(Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    pub fn new() -> Self {
        Self { left: STEPS }
    }

    /// Takes `steps`; `None` when they are used up.
    pub fn spend(&mut self, steps: u64) -> Option<()> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Some(())
            }
            None => {
                self.left = 0;
                None
            }
        }
    }
}
