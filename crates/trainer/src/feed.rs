//! Passes made ready ahead of the engine, so that it never waits for the disk.
//!
//! A thread reads the examples of coming passes and lays them out. It runs [`AHEAD`] passes ahead rather than whole
//! steps: a pass is bounded by `micro_batch_tokens`, where a step with stored top-k can be gigabytes.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

use crate::Error;
use crate::batch::{MicroBatch, Packing};
use crate::error::io;
use crate::store::ExampleStore;

/// Passes that may lie ready; one more is in the thread's hands.
const AHEAD: usize = 4;

/// The receiving end. Dropping it ends the thread, whether or not everything was taken.
pub struct Feed {
    receiver: Receiver<Result<Pass, Error>>,
}

struct Pass {
    /// Ends its group.
    last: bool,
    batch: MicroBatch,
}

impl Feed {
    /// Starts to make ready `groups` of examples, in order, each cut into passes of its own.
    ///
    /// The feed must be dropped within `scope`, whose end waits for the thread.
    ///
    /// # Errors
    /// [`Error::Io`] where the system gives no thread.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        store: &'scope ExampleStore,
        groups: impl Iterator<Item = Vec<usize>> + Send + 'scope,
        packing: Packing,
    ) -> Result<Self, Error> {
        let (sender, receiver) = sync_channel(AHEAD);
        Builder::new()
            .name("feed".into())
            .spawn_scoped(scope, move || fill(&sender, store, groups, packing))
            .map_err(io(store.folder()))?;
        Ok(Self { receiver })
    }

    /// The passes of the next group. After it has ended early, by an error or by being dropped, the feed is no more
    /// use: what is left of the group would pass for the next one.
    pub fn group(&mut self) -> Group<'_> {
        Group {
            receiver: &self.receiver,
            ended: false,
        }
    }
}

fn fill(
    sender: &SyncSender<Result<Pass, Error>>,
    store: &ExampleStore,
    groups: impl Iterator<Item = Vec<usize>>,
    packing: Packing,
) {
    for group in groups {
        let passes = packing.passes(|index| store.n_tokens(index), &group);
        let n_passes = passes.len();
        for (i, pass) in passes.into_iter().enumerate() {
            let ready = lay_out(store, &pass).map(|batch| Pass {
                last: i + 1 == n_passes,
                batch,
            });
            let failed = ready.is_err();
            // Nobody takes passes any more: the loop has ended.
            if sender.send(ready).is_err() || failed {
                return;
            }
        }
    }
}

fn lay_out(store: &ExampleStore, pass: &[usize]) -> Result<MicroBatch, Error> {
    let documents = pass
        .iter()
        .map(|&index| Ok((index, store.get(index)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(MicroBatch::new(&documents))
}

/// The passes of one group, ready or waited for.
pub struct Group<'a> {
    receiver: &'a Receiver<Result<Pass, Error>>,
    ended: bool,
}

impl Iterator for Group<'_> {
    type Item = Result<MicroBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        // A thread that is gone without a word has panicked, or was asked for more than it was given.
        match self.receiver.recv().unwrap_or(Err(Error::Thread)) {
            Ok(pass) => {
                self.ended = pass.last;
                Some(Ok(pass.batch))
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::example::TrainingExample;
    use crate::store::StoreWriter;

    const PACKING: Packing = Packing {
        max_tokens: 12,
        packing: true,
    };

    fn store(n: u32) -> ExampleStore {
        let mut writer = StoreWriter::create(&std::env::temp_dir()).unwrap();
        for i in 0..n {
            let example = TrainingExample {
                id: i.to_string(),
                prompt_ids: vec![i; 1 + i as usize % 3],
                completion_ids: vec![i; 2 + i as usize % 5],
                context: Vec::new(),
                top: None,
            };
            writer.push(&example).unwrap();
        }
        writer.finish().unwrap()
    }

    fn groups(n: usize, size: usize) -> impl Iterator<Item = Vec<usize>> + Send {
        (0..n)
            .step_by(size)
            .map(move |start| (start..n.min(start + size)).collect())
    }

    #[test]
    fn groups_come_whole_and_in_order() {
        let store = store(50);
        std::thread::scope(|scope| {
            let mut feed = Feed::start(scope, &store, groups(50, 8), PACKING).unwrap();
            for group in groups(50, 8) {
                let passes: Vec<MicroBatch> = feed.group().map(Result::unwrap).collect();
                let expected = PACKING.passes(|index| store.n_tokens(index), &group);
                let found: Vec<Vec<usize>> =
                    passes.iter().map(|pass| pass.examples.clone()).collect();
                assert_eq!(found, expected);
                assert!(passes.iter().all(|pass| pass.ids.len() <= 12));
            }
            assert!(matches!(feed.group().next(), Some(Err(Error::Thread))));
        });
    }

    #[test]
    fn a_loop_that_ends_early_leaves_no_thread_waiting() {
        let store = store(200);
        for taken in [0, 1, 7] {
            std::thread::scope(|scope| {
                let mut feed = Feed::start(scope, &store, groups(200, 10), PACKING).unwrap();
                let mut left = taken;
                while left > 0 {
                    left -= feed.group().take(left).count();
                }
            });
        }
    }

    #[test]
    fn an_error_arrives_where_its_pass_would_and_ends_the_feed() {
        let store = store(6);
        std::thread::scope(|scope| {
            // Example 6 is not there.
            let apart = Packing {
                packing: false,
                ..PACKING
            };
            let groups = [vec![0, 1], vec![2, 6], vec![3]].into_iter();
            let mut feed = Feed::start(scope, &store, groups, apart).unwrap();
            assert!(feed.group().all(|pass| pass.is_ok()));
            let group: Vec<_> = feed.group().collect();
            assert_eq!(group.len(), 2);
            let message = group[1].as_ref().unwrap_err().to_string();
            assert!(message.contains("no example 6 among 6"), "{message}");
            assert!(matches!(feed.group().next(), Some(Err(Error::Thread))));
        });
    }
}
