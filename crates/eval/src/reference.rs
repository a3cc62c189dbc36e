//! Published results of the models that people distil from and into, each with its protocol, its samples and its source.
//!
//! A score measured with another template, verifier or precision is another score: for one model, open-r1's differ from
//! DeepSeek's by up to 7 points with the same sampling.

use crate::statistics::NORMAL_975;

/// A result of one model on one benchmark, in per cent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    pub model: &'static str,
    pub score: f64,
    /// Per question; none where the source does not say them.
    pub samples: Option<u32>,
    /// The protocol's name, or in a few words.
    pub protocol: &'static str,
    pub source: &'static str,
    /// The standard error, where the source states it.
    pub error: Option<f64>,
    /// Majority of those samples.
    pub majority: Option<f64>,
}

impl Published {
    /// Half the width of the 95 % interval of the score over other samples of the same questions, in per cent: the stated
    /// one, or the widest that such a score over `n_questions` can have, √(p (1 − p) / (n Q)), which it has where every
    /// question is equally hard. None where the samples are not known.
    pub fn half_width(&self, n_questions: u64) -> Option<f64> {
        let widest = |samples: u32| {
            let (p, n) = (self.score / 100.0, f64::from(samples) * n_questions as f64);
            100.0 * (p * (1.0 - p) / n).sqrt()
        };
        let error = self.error.or_else(|| self.samples.map(widest))?;
        Some(NORMAL_975 * error)
    }
}

/// The published results on a benchmark; empty where none are known.
pub fn published(benchmark: &str) -> &'static [Published] {
    match benchmark {
        "aime24" => &AIME24,
        "aime25" => &AIME25,
        "math500" => &MATH500,
        "gpqa_diamond" => &GPQA_DIAMOND,
        "hmmt_feb_2025" => &HMMT_FEB_2025,
        _ => &[],
    }
}

/// Where results come from, and how they were measured.
#[derive(Clone, Copy)]
struct Origin {
    protocol: &'static str,
    source: &'static str,
}

const fn origin(protocol: &'static str, source: &'static str) -> Origin {
    Origin { protocol, source }
}

impl Origin {
    const fn row(self, model: &'static str, score: f64, samples: Option<u32>) -> Published {
        Published {
            model,
            score,
            samples,
            protocol: self.protocol,
            source: self.source,
            error: None,
            majority: None,
        }
    }
}

impl Published {
    const fn with_error(self, error: f64) -> Self {
        Self {
            error: Some(error),
            ..self
        }
    }

    const fn with_majority(self, majority: f64) -> Self {
        Self {
            majority: Some(majority),
            ..self
        }
    }
}

const DEEPSEEK: Origin = origin("r1", "DeepSeek-R1 report");
const OPEN_R1: Origin = origin("lighteval", "open-r1's README");
const NEMO_SKILLS: Origin = origin("avg@64", "NeMo-Skills");
const EVALCHEMY: Origin = origin("evalchemy", "evalchemy");
const CARD_R1_0528: Origin = origin("r1-0528", "model card");
const CARD_LIGHTEVAL: Origin = origin("lighteval", "model card");
const CARD: Origin = origin("not stated", "model card");
const CARD_64_RUNS: Origin = origin("64 runs", "model card");
const AM_THINKING: Origin = origin("not stated", "AM-Thinking-v1-Distilled");
const S1: Origin = origin("greedy", "s1's README");
const LIGHT_R1: Origin = origin("r1", "Light-R1's README");
const CARD_AVG_32: Origin = origin("avg@32", "model card");
const CARD_AVG_64: Origin = origin("avg@64", "model card");

static AIME24: [Published; 40] = [
    DEEPSEEK
        .row("R1-Distill-Qwen-1.5B", 28.9, Some(64))
        .with_majority(52.7),
    OPEN_R1.row("R1-Distill-Qwen-1.5B", 30.7, Some(64)),
    DEEPSEEK
        .row("R1-Distill-Qwen-7B", 55.5, Some(64))
        .with_majority(83.3),
    OPEN_R1.row("R1-Distill-Qwen-7B", 50.8, Some(64)),
    DEEPSEEK
        .row("R1-Distill-Qwen-14B", 69.7, Some(64))
        .with_majority(80.0),
    OPEN_R1.row("R1-Distill-Qwen-14B", 65.9, Some(64)),
    DEEPSEEK
        .row("R1-Distill-Qwen-32B", 72.6, Some(64))
        .with_majority(83.3),
    OPEN_R1.row("R1-Distill-Qwen-32B", 69.7, Some(64)),
    DEEPSEEK
        .row("R1-Distill-Llama-8B", 50.4, Some(64))
        .with_majority(80.0),
    OPEN_R1.row("R1-Distill-Llama-8B", 43.9, Some(64)),
    DEEPSEEK
        .row("R1-Distill-Llama-70B", 70.0, Some(64))
        .with_majority(86.7),
    OPEN_R1.row("R1-Distill-Llama-70B", 63.0, Some(64)),
    DEEPSEEK
        .row("QwQ-32B-Preview", 50.0, Some(64))
        .with_majority(60.0),
    DEEPSEEK.row("o1-mini", 63.6, Some(64)).with_majority(80.0),
    DEEPSEEK
        .row("GPT-4o-0513", 9.3, Some(64))
        .with_majority(13.4),
    DEEPSEEK
        .row("Claude-3.5-Sonnet-1022", 16.0, Some(64))
        .with_majority(26.7),
    NEMO_SKILLS
        .row("R1-Distill-Qwen-1.5B", 26.8, Some(64))
        .with_majority(60.0),
    NEMO_SKILLS
        .row("R1-Distill-Qwen-7B", 54.4, Some(64))
        .with_majority(80.0),
    EVALCHEMY
        .row("R1-Distill-Qwen-32B", 73.67, Some(10))
        .with_error(1.29),
    CARD_R1_0528.row("R1-0528-Qwen3-8B", 86.0, Some(16)),
    CARD_LIGHTEVAL.row("OpenR1-Distill-7B", 52.7, Some(64)),
    CARD.row("OpenThinker-7B", 31.3, None),
    CARD.row("OpenThinker2-7B", 50.0, None),
    CARD.row("OpenThinker2-32B", 76.7, None),
    CARD_64_RUNS
        .row("OpenThinker3-7B", 66.98, Some(64))
        .with_error(0.73),
    NEMO_SKILLS
        .row("OpenMath-Nemotron-1.5B", 61.6, Some(64))
        .with_majority(80.0),
    NEMO_SKILLS.row("OpenMath-Nemotron-7B", 74.8, Some(64)),
    NEMO_SKILLS.row("OpenMath-Nemotron-14B", 76.3, Some(64)),
    NEMO_SKILLS.row("OpenMath-Nemotron-32B", 76.5, Some(64)),
    CARD.row("OpenReasoning-Nemotron-1.5B", 55.5, None),
    CARD.row("OpenReasoning-Nemotron-7B", 84.7, None),
    CARD.row("OpenReasoning-Nemotron-14B", 87.8, None),
    CARD.row("OpenReasoning-Nemotron-32B", 89.2, None),
    AM_THINKING.row("AM-Thinking-v1-Distilled-32B", 84.3, None),
    S1.row("s1.1-32B", 56.7, Some(1)),
    LIGHT_R1.row("Light-R1-32B", 76.6, Some(64)),
    LIGHT_R1.row("Light-R1-7B-DS", 59.1, Some(64)),
    CARD_AVG_32.row("Skywork-OR1-7B", 70.2, Some(32)),
    CARD_AVG_32.row("Skywork-OR1-32B", 82.2, Some(32)),
    CARD_AVG_64.row("AceReason-Nemotron-7B", 69.0, Some(64)),
];

static AIME25: [Published; 21] = [
    NEMO_SKILLS.row("R1-Distill-Qwen-1.5B", 21.4, Some(64)),
    NEMO_SKILLS.row("R1-Distill-Qwen-7B", 38.6, Some(64)),
    EVALCHEMY.row("R1-Distill-Qwen-32B", 53.3, Some(10)),
    CARD_R1_0528.row("R1-0528-Qwen3-8B", 76.3, Some(16)),
    CARD.row("OpenThinker2-7B", 33.3, None),
    CARD.row("OpenThinker2-32B", 58.7, None),
    CARD.row("OpenThinker3-7B", 53.0, None),
    NEMO_SKILLS
        .row("OpenMath-Nemotron-1.5B", 49.5, Some(64))
        .with_majority(66.7),
    NEMO_SKILLS.row("OpenMath-Nemotron-7B", 61.2, Some(64)),
    NEMO_SKILLS.row("OpenMath-Nemotron-14B", 63.0, Some(64)),
    NEMO_SKILLS.row("OpenMath-Nemotron-32B", 62.5, Some(64)),
    CARD.row("OpenReasoning-Nemotron-1.5B", 45.6, None),
    CARD.row("OpenReasoning-Nemotron-7B", 78.2, None),
    CARD.row("OpenReasoning-Nemotron-14B", 82.0, None),
    CARD.row("OpenReasoning-Nemotron-32B", 84.0, None),
    AM_THINKING.row("AM-Thinking-v1-Distilled-32B", 72.2, None),
    LIGHT_R1.row("Light-R1-32B", 64.6, Some(64)),
    LIGHT_R1.row("Light-R1-7B-DS", 44.3, Some(64)),
    CARD_AVG_32.row("Skywork-OR1-7B", 54.6, Some(32)),
    CARD_AVG_32.row("Skywork-OR1-32B", 73.3, Some(32)),
    CARD_AVG_64.row("AceReason-Nemotron-7B", 53.6, Some(64)),
];

static MATH500: [Published; 22] = [
    DEEPSEEK.row("R1-Distill-Qwen-1.5B", 83.9, Some(16)),
    OPEN_R1.row("R1-Distill-Qwen-1.5B", 83.1, Some(4)),
    DEEPSEEK.row("R1-Distill-Qwen-7B", 92.8, Some(16)),
    OPEN_R1.row("R1-Distill-Qwen-7B", 94.5, Some(4)),
    DEEPSEEK.row("R1-Distill-Qwen-14B", 93.9, Some(16)),
    OPEN_R1.row("R1-Distill-Qwen-14B", 94.1, Some(4)),
    DEEPSEEK.row("R1-Distill-Qwen-32B", 94.3, Some(16)),
    OPEN_R1.row("R1-Distill-Qwen-32B", 95.6, Some(4)),
    DEEPSEEK.row("R1-Distill-Llama-8B", 89.1, Some(16)),
    OPEN_R1.row("R1-Distill-Llama-8B", 88.6, Some(4)),
    DEEPSEEK.row("R1-Distill-Llama-70B", 94.5, Some(16)),
    OPEN_R1.row("R1-Distill-Llama-70B", 95.1, Some(4)),
    DEEPSEEK.row("QwQ-32B-Preview", 90.6, Some(16)),
    DEEPSEEK.row("o1-mini", 90.0, Some(16)),
    DEEPSEEK.row("GPT-4o-0513", 74.6, Some(16)),
    DEEPSEEK.row("Claude-3.5-Sonnet-1022", 78.3, Some(16)),
    EVALCHEMY.row("R1-Distill-Qwen-32B", 89.8, Some(1)),
    CARD_LIGHTEVAL.row("OpenR1-Distill-7B", 89.0, Some(4)),
    CARD.row("OpenThinker-7B", 83.0, None),
    CARD.row("OpenThinker2-7B", 88.4, None),
    CARD.row("OpenThinker2-32B", 90.8, None),
    AM_THINKING.row("AM-Thinking-v1-Distilled-32B", 98.4, None),
];

static GPQA_DIAMOND: [Published; 22] = [
    DEEPSEEK.row("R1-Distill-Qwen-1.5B", 33.8, Some(64)),
    OPEN_R1.row("R1-Distill-Qwen-1.5B", 35.8, Some(8)),
    DEEPSEEK.row("R1-Distill-Qwen-7B", 49.1, Some(64)),
    OPEN_R1.row("R1-Distill-Qwen-7B", 50.5, Some(8)),
    DEEPSEEK.row("R1-Distill-Qwen-14B", 59.1, Some(64)),
    OPEN_R1.row("R1-Distill-Qwen-14B", 61.5, Some(8)),
    DEEPSEEK.row("R1-Distill-Qwen-32B", 62.1, Some(64)),
    OPEN_R1.row("R1-Distill-Qwen-32B", 63.1, Some(8)),
    DEEPSEEK.row("R1-Distill-Llama-8B", 49.0, Some(64)),
    OPEN_R1.row("R1-Distill-Llama-8B", 46.7, Some(8)),
    DEEPSEEK.row("R1-Distill-Llama-70B", 65.2, Some(64)),
    OPEN_R1.row("R1-Distill-Llama-70B", 67.4, Some(8)),
    DEEPSEEK.row("QwQ-32B-Preview", 54.5, Some(64)),
    DEEPSEEK.row("o1-mini", 60.0, Some(64)),
    DEEPSEEK.row("GPT-4o-0513", 49.9, Some(64)),
    DEEPSEEK.row("Claude-3.5-Sonnet-1022", 65.0, Some(64)),
    EVALCHEMY.row("R1-Distill-Qwen-32B", 65.2, Some(3)),
    CARD_LIGHTEVAL.row("OpenR1-Distill-7B", 52.8, Some(8)),
    CARD.row("OpenReasoning-Nemotron-1.5B", 31.6, None),
    CARD.row("OpenReasoning-Nemotron-7B", 61.1, None),
    CARD.row("OpenReasoning-Nemotron-14B", 71.6, None),
    CARD.row("OpenReasoning-Nemotron-32B", 73.1, None),
];

static HMMT_FEB_2025: [Published; 4] = [
    CARD.row("OpenReasoning-Nemotron-1.5B", 31.5, None),
    CARD.row("OpenReasoning-Nemotron-7B", 63.5, None),
    CARD.row("OpenReasoning-Nemotron-14B", 71.2, None),
    CARD.row("OpenReasoning-Nemotron-32B", 73.8, None),
];

#[cfg(test)]
mod tests {
    use super::published;

    #[test]
    fn intervals_are_the_stated_or_the_widest() {
        let rows = published("aime24");
        let found = |model: &str, protocol: &str| {
            let row = rows
                .iter()
                .find(|row| row.model == model && row.protocol == protocol);
            row.and_then(|row| row.half_width(30))
        };
        // √(0.555 · 0.445 / 1920) = 1.134 points.
        let half = found("R1-Distill-Qwen-7B", "r1");
        assert!(
            half.is_some_and(|half| (half - 2.223).abs() < 1e-3),
            "{half:?}"
        );
        let half = found("OpenThinker3-7B", "64 runs");
        assert!(
            half.is_some_and(|half| (half - 1.431).abs() < 1e-3),
            "{half:?}"
        );
        assert_eq!(found("OpenThinker-7B", "not stated"), None);
        assert_eq!(published("mine"), []);
    }
}
