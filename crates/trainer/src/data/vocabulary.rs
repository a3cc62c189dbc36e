//! Which of a file's token ids are the student's, and what becomes of the teacher's mass on those that are not.

use std::collections::BTreeSet;
use std::path::Path;

use records::top_k::TopK;

use super::LoadOptions;
use crate::Error;
use crate::loss::divergence::log_add;

/// Teacher mass at one position that may lie on ids the student does not have; it joins the tail.
const STRAY_MASS: f64 = 1e-4;

/// Which ids a file's teacher and the student agree on.
pub(super) struct Vocabulary {
    /// Ids at or above it are not the student's.
    limit: u32,
    /// By id, where the file's tokenizer is another than the student's.
    shared: Option<Vec<bool>>,
}

impl Vocabulary {
    pub(super) fn own(options: &LoadOptions<'_>) -> Self {
        let limit = options.head_rows.min(options.tokenizer.vocab_size());
        Self {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            shared: None,
        }
    }

    /// For a file whose fingerprint is not the student's.
    pub(super) fn shared_with_teacher(
        path: &Path,
        options: &LoadOptions<'_>,
    ) -> Result<Self, Error> {
        let Some(teacher) = options.teacher_tokenizer else {
            return Err(Error::Tokenizer {
                path: path.to_path_buf(),
                problem: format!(
                    "its token ids come from another tokenizer than {}'s, and the teacher's is not at hand to \
                     compare them; name the teacher in `[teacher] model`, or train on rows with `messages` only",
                    options.tokenizer.dir().display()
                ),
            });
        };
        let own = Self::own(options);
        let shared = (0..own.limit)
            .map(|id| teacher.token_bytes(id) == options.tokenizer.token_bytes(id))
            .collect();
        Ok(Self {
            shared: Some(shared),
            ..own
        })
    }

    fn holds(&self, id: u32) -> bool {
        id < self.limit
            && self
                .shared
                .as_ref()
                .is_none_or(|shared| shared[id as usize])
    }

    /// Refuses the first id that is not the student's.
    pub(super) fn check(&self, ids: &[u32], options: &LoadOptions<'_>) -> Result<(), String> {
        let Some(&id) = ids.iter().find(|&&id| !self.holds(id)) else {
            return Ok(());
        };
        if let (true, Some(teacher)) = (id < self.limit, options.teacher_tokenizer) {
            teacher
                .compatible(options.tokenizer, [id])
                .map_err(|error| error.to_string())?;
        }
        let student = options.tokenizer.dir().display();
        Err(format!(
            "token id {id} is beyond {student}'s vocabulary of {}",
            self.limit
        ))
    }
}

/// `top` without ids the student lacks and without repeated ids; what they carried is the tail's.
pub(super) fn without_strays(top: TopK, vocabulary: &Vocabulary) -> Result<TopK, String> {
    top.validate().map_err(|error| error.to_string())?;
    let mut kept = TopK {
        counts: Some(Vec::with_capacity(top.len())),
        k: top.k,
        ids: Vec::new(),
        logprobs: Vec::new(),
        tail_logprobs: Vec::new(),
    };
    let mut changed = false;
    for (position, (ids, logprobs, tail)) in top.positions().enumerate() {
        let mut seen = BTreeSet::new();
        let (mut stray, mut tail, mut count) = (0.0, f64::from(tail), 0u16);
        for (&id, &logprob) in ids.iter().zip(logprobs) {
            let value = f64::from(logprob.to_f32());
            if value.is_nan() || value > 1e-2 {
                return Err(format!(
                    "position {position}: {value} is no log-probability"
                ));
            }
            if !vocabulary.holds(id) {
                stray += value.exp();
                tail = log_add(tail, value);
            } else if seen.insert(id) {
                kept.ids.push(id);
                kept.logprobs.push(logprob);
                count += 1;
                continue;
            }
            changed = true;
        }
        if stray > STRAY_MASS {
            return Err(format!(
                "position {position}: the teacher puts {stray:.2e} on token ids that are not the student's"
            ));
        }
        if tail.is_nan() {
            return Err(format!(
                "position {position}: `tail_logprobs` is not a number"
            ));
        }
        kept.tail_logprobs.push(tail as f32);
        if let Some(counts) = &mut kept.counts {
            counts.push(count);
        }
    }
    Ok(if changed { kept } else { top })
}
