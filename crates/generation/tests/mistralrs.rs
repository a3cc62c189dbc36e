//! mistral.rs as a teacher, beside our own decoder on the same checkpoint and the same ids.
#![cfg(feature = "mistralrs")]
#![allow(clippy::unwrap_used)]

use records::{FinishReason, LogprobSpace};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use model::sampling::SamplingParams;
use records::Message;
use stillroom_generation::candle::CandleTeacher;
use stillroom_generation::config::TeacherConfig;
use stillroom_generation::mistralrs::MistralRsTeacher;
use stillroom_generation::teacher::{
    Completion, Failure, FailureKind, SampleRequest, SamplingConfig, ScoreRequest, Scored, Teacher,
};

fn folder() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../../data/arithmetic/teacher")
        .display()
        .to_string()
}

fn options(max_new_tokens: u32) -> SamplingConfig {
    SamplingConfig {
        params: SamplingParams {
            temperature: 0.8,
            top_p: 0.95,
            top_k: None,
            min_p: None,
        },
        max_new_tokens,
        top_k_logits: 20,
        concurrency: 3,
        samples_per_request: 1,
    }
}

fn load(max_new_tokens: u32) -> MistralRsTeacher {
    let config = TeacherConfig {
        model: folder().into(),
        ..TeacherConfig::default()
    };
    MistralRsTeacher::load(&config, options(max_new_tokens), "r1".into()).unwrap()
}

fn sample(
    teacher: &MistralRsTeacher,
    requests: Vec<SampleRequest>,
) -> Vec<(SampleRequest, Result<Completion, Failure>)> {
    let mut found = Vec::new();
    let mut done = |request, outcome| {
        found.push((request, outcome));
        Ok(())
    };
    let stop = AtomicBool::new(false);
    teacher
        .sample(&mut requests.into_iter().map(Ok), &mut done, &stop)
        .unwrap();
    found.sort_by_key(|(request, _)| request.sample_index);
    found
}

fn requests(teacher: &MistralRsTeacher, n: u32) -> Vec<SampleRequest> {
    (0..n)
        .map(|index| {
            let question = format!(
                "Start with {}. A: double. B: add 42. What results?",
                100 + index
            );
            let messages = vec![Message::new("user", question)];
            SampleRequest {
                prompt_id: "p".into(),
                sample_index: index,
                prompt_token_ids: teacher.encode(&messages).unwrap().token_ids,
                messages,
                prompt_text_opens_think: false,
                seed: u64::from(index),
            }
        })
        .collect()
}

#[test]
fn its_raw_log_probabilities_are_our_decoder_s() {
    let teacher = load(64);
    let found = sample(&teacher, requests(&teacher, 8));
    assert_eq!(found.len(), 8);
    let candle = CandleTeacher::load(Path::new(&folder()), options(64)).unwrap();
    let eos = candle.tokenizer().eos_ids();
    let mut scores: Vec<Scored> = Vec::new();
    let to_score = found.iter().map(|(request, outcome)| ScoreRequest {
        part: 0,
        key: request.sample_index.to_string(),
        prompt_token_ids: request.prompt_token_ids.clone(),
        token_ids: outcome.as_ref().unwrap().token_ids.clone().unwrap(),
    });
    let stop = AtomicBool::new(false);
    let mut done = |_, outcome: Result<Scored, Failure>| {
        scores.push(outcome.unwrap());
        Ok(())
    };
    candle
        .score(&mut to_score.map(Ok), &mut done, &stop)
        .unwrap();
    let mut worst = 0f32;
    for ((_, outcome), scored) in found.iter().zip(&scores) {
        let completion = outcome.as_ref().unwrap();
        let ids = completion.token_ids.as_ref().unwrap();
        assert_eq!(completion.finish_reason, FinishReason::Stop);
        assert!(eos.contains(ids.last().unwrap()));
        assert_eq!(completion.logprob_space, Some(LogprobSpace::Raw));
        let (top, expected) = (
            completion.top.as_ref().unwrap(),
            scored.top.as_ref().unwrap(),
        );
        top.validate().unwrap();
        assert_eq!((top.len(), top.k), (ids.len(), 20));
        let sampled = completion.token_logprobs.as_ref().unwrap();
        for (a, b) in sampled.iter().zip(&scored.token_logprobs) {
            worst = worst.max((a - b).abs());
        }
        for ((ids_a, a, tail_a), (ids_b, b, tail_b)) in top.positions().zip(expected.positions()) {
            worst = worst.max((tail_a.exp() - tail_b.exp()).abs());
            for (id, logprob) in ids_a.iter().zip(a) {
                if let Some(at) = ids_b.iter().position(|other| other == id) {
                    // Both are rounded to f16.
                    let place = logprob.to_f32().abs().max(1e-5) / 1024.0;
                    worst = worst.max((logprob.to_f32() - b[at].to_f32()).abs() - place);
                }
            }
        }
    }
    println!("at most {worst:e} from our decoder");
    assert!(worst <= 2e-3, "{worst}");
}

#[test]
fn completions_are_cut_and_prompts_without_room_refused() {
    let teacher = load(5);
    let mut asked = requests(&teacher, 3);
    asked[1].prompt_token_ids = vec![5; 512];
    asked[2].prompt_token_ids = vec![5; 509];
    let found = sample(&teacher, asked);
    let cut = found[0].1.as_ref().unwrap();
    assert_eq!(cut.finish_reason, FinishReason::Length);
    assert_eq!(cut.token_ids.as_ref().unwrap().len(), 5);
    assert_eq!(cut.n_completion_tokens, Some(5));
    let refused = found[1].1.as_ref().unwrap_err();
    assert_eq!(refused.kind, FailureKind::PromptTooLong);
    // Of the positions that are left, one for each.
    let short = found[2].1.as_ref().unwrap().token_ids.as_ref().unwrap();
    assert!(short.len() <= 3, "{}", short.len());
}
