//! Documents laid end to end in one micro-batch.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

/// The lengths of the documents in a packed micro-batch of N tokens.
///
/// Positions restart at zero in each document and no token attends across a border.
#[derive(Debug, Clone)]
pub struct Segments {
    lengths: Vec<usize>,
    #[cfg(feature = "cuda")]
    bounds: std::sync::OnceLock<cuda::Bounds>,
}

impl PartialEq for Segments {
    fn eq(&self, other: &Self) -> bool {
        self.lengths == other.lengths
    }
}

impl Eq for Segments {}

impl Segments {
    pub fn new(lengths: Vec<usize>) -> Self {
        Self {
            lengths,
            #[cfg(feature = "cuda")]
            bounds: std::sync::OnceLock::new(),
        }
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn bounds(&self, gpu: &crate::cuda::Gpu) -> candle_core::Result<&cuda::Bounds> {
        if let Some(bounds) = self.bounds.get() {
            return Ok(bounds);
        }
        let bounds = cuda::Bounds::new(gpu, self.spans())?;
        Ok(self.bounds.get_or_init(|| bounds))
    }

    /// One document of `length` tokens.
    pub fn single(length: usize) -> Self {
        Self::new(vec![length])
    }

    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// N, the tokens of all documents together.
    pub fn n_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// First token and length of each document.
    pub fn spans(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.lengths.iter().scan(0, |start, &length| {
            let span = (*start, length);
            *start += length;
            Some(span)
        })
    }

    /// The position of every token within its document, [N].
    pub fn positions(&self) -> Vec<usize> {
        self.lengths.iter().flat_map(|&length| 0..length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_restart_in_each_document() {
        let segments = Segments::new(vec![2, 0, 3]);
        assert_eq!(segments.positions(), vec![0, 1, 0, 1, 2]);
        assert_eq!(
            segments.spans().collect::<Vec<_>>(),
            vec![(0, 2), (2, 0), (2, 3)]
        );
        assert_eq!(segments.n_tokens(), 5);
    }
}
