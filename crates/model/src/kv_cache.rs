//! Keys and values of the sequences being decoded.

use ops::cached_attention::LayerCache;

use crate::config::ModelConfig;

/// Tokens for which a cache that is full makes room. Copying it then costs a hundredth of reading it for each of them.
const GROWTH_TOKENS: usize = 64;

/// One growing cache per slot and layer. Slots are independent: a sequence may be cleared and
/// another started in its place while the others go on.
pub struct KvCache {
    slots: Vec<Slot>,
    n_layers: usize,
}

#[derive(Clone, Default)]
struct Slot {
    n_tokens: usize,
    layers: Vec<LayerCache>,
}

impl KvCache {
    pub fn new(config: &ModelConfig, n_slots: usize) -> Self {
        let slot = Slot {
            n_tokens: 0,
            layers: vec![LayerCache::default(); config.n_layers],
        };
        Self {
            slots: vec![slot; n_slots],
            n_layers: config.n_layers,
        }
    }

    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// Tokens held in a slot; zero for a slot that does not exist.
    pub fn len(&self, slot: usize) -> usize {
        self.slots.get(slot).map_or(0, |slot| slot.n_tokens)
    }

    pub fn is_empty(&self, slot: usize) -> bool {
        self.len(slot) == 0
    }

    /// Forgets a sequence; its memory is kept for the next one.
    pub fn clear(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.n_tokens = 0;
            for layer in &mut slot.layers {
                layer.keys.clear();
                layer.values.clear();
            }
        }
    }

    /// Makes slot `to` hold the first `n_tokens` of slot `from`, or as many as there are: several samples of one prompt
    /// go on from it.
    pub fn copy_prefix(&mut self, from: usize, to: usize, n_tokens: usize) {
        if from == to || from.max(to) >= self.slots.len() {
            return;
        }
        self.clear(to);
        let n_tokens = n_tokens.min(self.slots[from].n_tokens);
        let mut target = std::mem::take(&mut self.slots[to]);
        let source = &self.slots[from];
        for (target, layer) in target.layers.iter_mut().zip(&source.layers) {
            // [T, G·C]
            let len = layer.keys.len() / source.n_tokens.max(1) * n_tokens;
            target.keys.extend_from_slice(&layer.keys[..len]);
            target.values.extend_from_slice(&layer.values[..len]);
        }
        target.n_tokens = n_tokens;
        self.slots[to] = target;
    }

    pub(crate) fn n_layers(&self) -> usize {
        self.n_layers
    }

    pub(crate) fn layer(&self, slot: usize, layer: usize) -> &LayerCache {
        &self.slots[slot].layers[layer]
    }

    pub(crate) fn extend(&mut self, slot: usize, layer: usize, keys: &[f32], values: &[f32]) {
        let Slot { n_tokens, layers } = &mut self.slots[slot];
        let cache = &mut layers[layer];
        for (held, new) in [(&mut cache.keys, keys), (&mut cache.values, values)] {
            if held.len() + new.len() > held.capacity() {
                // Twice the room, as a vector takes by itself, would stand empty for half of its tokens.
                let per_token = held.len().checked_div(*n_tokens).unwrap_or_default();
                held.reserve_exact(new.len() + GROWTH_TOKENS * per_token);
            }
            held.extend_from_slice(new);
        }
    }

    pub(crate) fn advance(&mut self, slot: usize, n_tokens: usize) {
        self.slots[slot].n_tokens += n_tokens;
    }
}
