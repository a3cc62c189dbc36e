//! Activations that a loss looks at beside the logits.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Result, Tensor};

/// A place in the decoder. Layers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tap {
    /// The embedded tokens, [N, D].
    Embedding,
    /// Queries of a layer before rotary embedding, [N, H·C].
    Query(usize),
    /// Keys of a layer before rotary embedding, [N, G·C].
    Key(usize),
    /// Values of a layer, [N, G·C].
    Value(usize),
    /// What the heads of a layer give, before they are projected, [N, H·C].
    Attention(usize),
    /// What a layer adds up to, [N, D]; the last layer's is not normalised yet.
    Output(usize),
    /// The normalised output of the last layer, [N, D].
    Final,
}

/// Activations of a pass, or their gradients, by place.
#[derive(Clone, Debug, Default)]
pub struct Tapped {
    wanted: BTreeSet<Tap>,
    held: BTreeMap<Tap, Tensor>,
}

impl Tapped {
    /// Takes these of what it is shown.
    #[must_use]
    pub fn wanting(taps: impl IntoIterator<Item = Tap>) -> Self {
        Self {
            wanted: taps.into_iter().collect(),
            held: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn get(&self, tap: Tap) -> Option<&Tensor> {
        self.held.get(&tap)
    }

    /// Adds a gradient to what is there.
    ///
    /// # Errors
    /// Those of the addition, of unequal shapes for example.
    pub fn add(&mut self, tap: Tap, gradient: Tensor) -> Result<()> {
        let sum = match self.held.remove(&tap) {
            Some(sum) => ops::rows::sum(&sum, &gradient)?,
            None => gradient,
        };
        self.held.insert(tap, sum);
        Ok(())
    }

    pub(crate) fn show(&mut self, tap: Tap, activation: &Tensor) {
        if self.wanted.contains(&tap) {
            self.held.insert(tap, activation.clone());
        }
    }

    /// What a layer's attention takes and gives.
    pub(crate) fn show_attention(&mut self, layer: usize, [q, k, v]: [&Tensor; 3], out: &Tensor) {
        self.show(Tap::Query(layer), q);
        self.show(Tap::Key(layer), k);
        self.show(Tap::Value(layer), v);
        self.show(Tap::Attention(layer), out);
    }

    /// `gradient` with what is held for `tap` added.
    pub(crate) fn with(&mut self, tap: Tap, gradient: Tensor) -> Result<Tensor> {
        match self.held.remove(&tap) {
            Some(own) => ops::rows::sum(&gradient, &own),
            None => Ok(gradient),
        }
    }
}
