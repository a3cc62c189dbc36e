//! Answers of servers in the forms they have on the wire, and the exact arrays that are made of them.
#![allow(clippy::unwrap_used)]

use half::f16;
use model::sampling::SamplingParams;
use records::Message;
use stillroom_generation::config::Dialect;
use stillroom_generation::openai::answer::{Answers, Expected};
use stillroom_generation::openai::dialect::Ask;
use stillroom_generation::openai::dialect_of as of;
use stillroom_generation::teacher::{
    Completion, SampleRequest, SamplingConfig, ScoreRequest, Scored,
};

const EOS: u32 = 151_645;

fn options(top_k_logits: u16) -> SamplingConfig {
    SamplingConfig {
        params: SamplingParams {
            temperature: 0.6,
            top_p: 0.95,
            top_k: Some(40),
            min_p: None,
        },
        max_new_tokens: 32_768,
        top_k_logits,
        concurrency: 8,
        samples_per_request: 1,
    }
}

fn request() -> SampleRequest {
    SampleRequest {
        prompt_id: "p".into(),
        sample_index: 0,
        messages: vec![Message::new("user", "1+1?")],
        prompt_token_ids: vec![5, 6],
        prompt_text_opens_think: true,
        seed: 0xffff_ffff_8000_0007,
    }
}

fn expected(dialect: Dialect, top_k: u16) -> Expected<'static> {
    let dialect = of(dialect);
    Expected {
        top_k,
        logprob_space: dialect.logprob_space(),
        ids: dialect.gives_ids(),
        eos_ids: &[EOS],
        gaps: dialect.leaves_gaps(),
    }
}

/// What a dialect makes of an answer in pieces.
fn read(kind: Dialect, top_k: u16, pieces: &[&str]) -> Result<Completion, String> {
    let mut completions = read_all(kind, top_k, pieces, 1)?;
    Ok(completions.remove(0))
}

/// The same for several completions that were asked for at once.
fn read_all(
    kind: Dialect,
    top_k: u16,
    pieces: &[&str],
    n: usize,
) -> Result<Vec<Completion>, String> {
    let dialect = of(kind);
    let mut answers = Answers::default();
    for piece in pieces {
        dialect
            .reading()
            .read(&mut piece.as_bytes().to_vec(), &mut answers)?;
    }
    if let Some(error) = &answers.error {
        return Err(error.words.clone());
    }
    let answers = answers.exactly(n)?.into_iter();
    let completed = answers.map(|answer| answer.complete(&expected(kind, top_k)));
    completed
        .collect::<Result<_, _>>()
        .map_err(|problem| problem.words)
}

/// What a dialect makes of the scores of a completion.
fn scored(kind: Dialect, body: &str, token_ids: &[u32], top_k: u16) -> Result<Scored, String> {
    let dialect = of(kind);
    let mut answers = Answers::default();
    let reading = dialect.scoring().unwrap().reading();
    reading.read(&mut body.as_bytes().to_vec(), &mut answers)?;
    let answer = answers.exactly(1)?.remove(0);
    answer
        .scored(2, token_ids, top_k)
        .map_err(|problem| problem.words)
}

fn halves(values: &[f64]) -> Vec<f16> {
    values.iter().copied().map(f16::from_f64).collect()
}

fn tail(logprobs: &[f64]) -> f32 {
    (-logprobs
        .iter()
        .map(|logprob| logprob.exp())
        .sum::<f64>()
        .min(1.0))
    .ln_1p() as f32
}

#[test]
fn vllm_completions_in_a_stream() {
    // The sampled token of the second position is not among the two likeliest: an entry of its own, the third.
    let completion = read(
        Dialect::Vllm,
        2,
        &[
            r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"r1","choices":[{"index":0,"text":"Two","logprobs":{"text_offset":[0],"token_logprobs":[-0.125],"tokens":["token_id:11613"],"top_logprobs":[{"token_id:11613":-0.125,"token_id:17":-2.5}]},"finish_reason":null,"stop_reason":null,"token_ids":[11613],"prompt_token_ids":[5,6]}]}"#,
            r#"{"id":"cmpl-1","choices":[{"index":0,"text":" of","logprobs":{"text_offset":[3],"token_logprobs":[-6.5],"tokens":["token_id:315"],"top_logprobs":[{"token_id:315":-6.5,"token_id:8":-0.25,"token_id:9":-1.75}]},"finish_reason":null,"token_ids":[315]}]}"#,
            // An undecodable byte token has an empty text and all else; −9999 is how −inf is written.
            r#"{"id":"cmpl-1","choices":[{"index":0,"text":"","logprobs":{"text_offset":[6],"token_logprobs":[-0.5],"tokens":["token_id:224"],"top_logprobs":[{"token_id:224":-0.5,"token_id:3":-9999.0}]},"finish_reason":null,"token_ids":[224]}]}"#,
            r#"{"id":"cmpl-1","choices":[{"index":0,"text":"","logprobs":{"text_offset":[6],"token_logprobs":[-0.0],"tokens":["token_id:151645"],"top_logprobs":[{"token_id:151645":-0.0,"token_id:3":-12.0}]},"finish_reason":"stop","stop_reason":null,"token_ids":[151645]}]}"#,
            r#"{"id":"cmpl-1","choices":[],"usage":{"prompt_tokens":2,"total_tokens":6,"completion_tokens":4}}"#,
        ],
    )
    .unwrap();
    assert_eq!(completion.text, "Two of");
    assert_eq!(completion.finish_reason, "stop");
    assert_eq!(completion.token_ids.unwrap(), [11613, 315, 224, EOS]);
    assert_eq!(
        completion.token_logprobs.unwrap(),
        [-0.125, -6.5, -0.5, 0.0]
    );
    assert_eq!(completion.logprob_space.as_deref(), Some("raw"));
    assert_eq!(
        (completion.n_prompt_tokens, completion.n_completion_tokens),
        (Some(2), Some(4))
    );
    let top = completion.top.unwrap();
    top.validate().unwrap();
    assert_eq!(top.counts.as_deref(), Some(&[2, 2, 1, 2][..]));
    assert_eq!(top.ids, [11613, 17, 8, 9, 224, EOS, 3]);
    assert_eq!(
        top.logprobs,
        halves(&[-0.125, -2.5, -0.25, -1.75, -0.5, 0.0, -12.0])
    );
    let tails = [
        tail(&[-0.125, -2.5]),
        tail(&[-0.25, -1.75]),
        tail(&[-0.5]),
        f32::NEG_INFINITY,
    ];
    assert_eq!(top.tail_logprobs, tails);
}

#[test]
fn several_samples_of_a_prompt_come_side_by_side() {
    let pieces = [
        r#"{"choices":[{"index":1,"text":"b","logprobs":{"tokens":["token_id:2"],"token_logprobs":[-0.5],"top_logprobs":[{"token_id:2":-0.5}]},"finish_reason":null,"token_ids":[2]}]}"#,
        r#"{"choices":[{"index":0,"text":"a","logprobs":{"tokens":["token_id:1"],"token_logprobs":[-0.25],"top_logprobs":[{"token_id:1":-0.25}]},"finish_reason":"length","token_ids":[1]}]}"#,
        r#"{"choices":[{"index":1,"text":"","logprobs":{"tokens":["token_id:151645"],"token_logprobs":[-1.0],"top_logprobs":[{"token_id:151645":-1.0}]},"finish_reason":"stop","token_ids":[151645]}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3}}"#,
    ];
    let [a, b] = &read_all(Dialect::Vllm, 1, &pieces, 2).unwrap()[..] else {
        panic!("two were asked for");
    };
    assert_eq!((a.text.as_str(), b.text.as_str()), ("a", "b"));
    assert_eq!(a.token_ids.as_deref(), Some(&[1][..]));
    assert_eq!(b.token_ids.as_deref(), Some(&[2, EOS][..]));
    assert_eq!(b.token_logprobs.as_deref(), Some(&[-0.5, -1.0][..]));
    // The server counts both together; each is counted by its own ids.
    assert_eq!(
        (
            a.n_completion_tokens,
            b.n_completion_tokens,
            b.n_prompt_tokens
        ),
        (Some(1), Some(2), Some(2))
    );
    let problem = read_all(Dialect::Vllm, 1, &pieces, 3).unwrap_err();
    assert!(problem.contains("2 choices where 3"), "{problem}");
    let chat = [
        r#"{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.5}]},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"index":1,"delta":{"content":"b c"},"logprobs":{"content":[{"token":"b","logprob":-0.5},{"token":" c","logprob":-0.75}]},"finish_reason":"stop"}]}"#,
    ];
    let both = read_all(Dialect::Openai, 1, &chat, 2).unwrap();
    let counts: Vec<_> = both.iter().map(|one| one.n_completion_tokens).collect();
    assert_eq!(counts, [Some(1), Some(2)]);
}

#[test]
fn completions_are_scored_where_the_prompt_ends() {
    // The sampled token is an entry of its own where it is not among the likeliest; ids come as strings.
    let vllm = r#"{"choices":[{"index":0,"text":"x","finish_reason":"length","prompt_logprobs":[null,{"6":{"logprob":-9.0,"rank":90,"decoded_token":"c"},"4":{"logprob":-0.5,"rank":1,"decoded_token":"d"}},{"7":{"logprob":-0.25,"rank":1,"decoded_token":"a"},"8":{"logprob":-1.75,"rank":2,"decoded_token":"b"}},{"9":{"logprob":-5.0,"rank":40,"decoded_token":"z"},"7":{"logprob":-0.125,"rank":1,"decoded_token":"a"},"8":{"logprob":-2.5,"rank":2,"decoded_token":"b"}}]}],"usage":{"prompt_tokens":4,"completion_tokens":1}}"#;
    let found = scored(Dialect::Vllm, vllm, &[7, 9], 2).unwrap();
    assert_eq!(found.token_logprobs, [-0.25, -5.0]);
    let top = found.top.unwrap();
    top.validate().unwrap();
    assert_eq!((top.k, &top.counts), (2, &None));
    assert_eq!(top.ids, [7, 8, 7, 8]);
    assert_eq!(top.logprobs, halves(&[-0.25, -1.75, -0.125, -2.5]));
    assert_eq!(
        top.tail_logprobs,
        [tail(&[-0.25, -1.75]), tail(&[-0.125, -2.5])]
    );
    let problem = scored(Dialect::Vllm, vllm, &[7, 7, 9, 9, 9], 2).unwrap_err();
    assert!(problem.contains("7 tokens, 5 of them"), "{problem}");
    let problem = scored(Dialect::Vllm, vllm, &[7, 11], 2).unwrap_err();
    assert!(problem.contains("token 11"), "{problem}");
    let none = r#"{"choices":[{"index":0,"text":"x","prompt_logprobs":null}]}"#;
    let problem = scored(Dialect::Vllm, none, &[7], 2).unwrap_err();
    assert!(problem.contains("prompt_logprobs"), "{problem}");

    let sglang = r#"{"text":"x","meta_info":{"prompt_tokens":4,"completion_tokens":1,"input_token_logprobs":[[null,6,null],[-0.25,7,null],[-5.0,9,null]],"input_top_logprobs":[null,[[-0.25,7,null],[-1.75,8,null]],[[-0.125,7,null],[-2.5,8,null]]]}}"#;
    let found = scored(Dialect::Sglang, sglang, &[7, 9], 2).unwrap();
    assert_eq!(found.token_logprobs, [-0.25, -5.0]);
    assert_eq!(found.top.unwrap().ids, [7, 8, 7, 8]);
    assert_eq!(found.logprob_space, "raw");
    let problem = scored(Dialect::Sglang, sglang, &[7, 8], 2).unwrap_err();
    assert!(problem.contains("answered as 9"), "{problem}");

    let request = ScoreRequest {
        part: 0,
        key: String::new(),
        prompt_token_ids: vec![5, 6],
        token_ids: vec![7, 9],
    };
    let body = |kind| of(kind).scoring().unwrap().body("r1", &request, 20);
    let vllm = body(Dialect::Vllm);
    assert_eq!(vllm["prompt"], serde_json::json!([5, 6, 7, 9]));
    assert_eq!(vllm["prompt_logprobs"].as_u64(), Some(20));
    assert_eq!(body(Dialect::Sglang)["logprob_start_len"].as_u64(), Some(1));
    for kind in [Dialect::Llamacpp, Dialect::Deepseek, Dialect::Openai] {
        assert!(of(kind).scoring().is_none());
    }
}

#[test]
fn vllm_without_ids_is_refused_with_the_reason() {
    let body = r#"{"choices":[{"text":"Two","logprobs":{"token_logprobs":[-0.1],"tokens":["Two"],"top_logprobs":[{"Two":-0.1}]},"finish_reason":"stop","token_ids":[11613]}]}"#;
    let problem = read(Dialect::Vllm, 1, &[body]).unwrap_err();
    assert!(problem.contains("return_tokens_as_token_ids"), "{problem}");
    // Two completions where one was asked for (`n` above 1), and one log-probability too few.
    let choice = r#"{"text":"a","token_ids":[1,2],"finish_reason":"stop","logprobs":{"tokens":["token_id:1"],"token_logprobs":[-0.1],"top_logprobs":[{"token_id:1":-0.1}]}}"#;
    let two = format!(r#"{{"choices":[{choice},{choice}]}}"#);
    assert!(
        read(Dialect::Vllm, 1, &[&two])
            .unwrap_err()
            .contains("after its end")
    );
    let one = format!(r#"{{"choices":[{choice}]}}"#);
    assert!(
        read(Dialect::Vllm, 1, &[&one])
            .unwrap_err()
            .contains("2 tokens")
    );
    // Without top-k they are not asked for.
    let plain = r#"{"choices":[{"text":"a","token_ids":[1,151645],"logprobs":null,"finish_reason":"length"}],"usage":null}"#;
    let completion = read(Dialect::Vllm, 0, &[plain]).unwrap();
    assert_eq!(completion.finish_reason, "length");
    assert_eq!(completion.token_ids.unwrap(), [1, EOS]);
    assert_eq!(
        (
            completion.token_logprobs,
            completion.top,
            completion.logprob_space
        ),
        (None, None, None)
    );
}

#[test]
fn sglang_says_everything_again_in_every_event() {
    let completion = read(
        Dialect::Sglang,
        2,
        &[
            r#"{"text":"Tw","meta_info":{"id":"a","finish_reason":null,"prompt_tokens":2,"completion_tokens":1,"output_token_logprobs":[[-0.25,77,null]],"output_top_logprobs":[[[-0.25,77,null],[-1.5,78,null]]]}}"#,
            r#"{"text":"Two","output_ids":[77,79,151645],"meta_info":{"id":"a","finish_reason":{"type":"stop","matched":151645},"prompt_tokens":2,"completion_tokens":3,"output_token_logprobs":[[-0.25,77,null],[-0.5,79,"o"],[-0.125,151645,null]],"output_top_logprobs":[[[-0.25,77,null],[-1.5,78,null]],[[-0.5,79,null],[-3.0,80,null]],[[-0.125,151645,null],[-2.5,3,null]]]}}"#,
        ],
    )
    .unwrap();
    assert_eq!(
        (completion.text.as_str(), completion.finish_reason.as_str()),
        ("Two", "stop")
    );
    assert_eq!(completion.token_ids.unwrap(), [77, 79, EOS]);
    assert_eq!(completion.token_logprobs.unwrap(), [-0.25, -0.5, -0.125]);
    // Tempered unless the server was started otherwise, which it does not say.
    assert_eq!(completion.logprob_space.as_deref(), Some("tempered"));
    let top = completion.top.unwrap();
    assert_eq!((top.k, top.counts), (2, None));
    assert_eq!(top.ids, [77, 78, 79, 80, EOS, 3]);
    let wrong = r#"{"text":"T","meta_info":{"finish_reason":{"type":"length","length":1},"output_token_logprobs":[[-0.25,77,null]],"output_top_logprobs":[[],[]]}}"#;
    assert!(
        read(Dialect::Sglang, 2, &[wrong])
            .unwrap_err()
            .contains("lists of the likeliest")
    );
}

#[test]
fn llama_cpp_tokens_inside_a_character_have_no_entry() {
    // Of llama-server 0.5.0-dev, less `generation_settings` and `timings` (scripts/peers/llama_server.py serves the
    // model). 203 and 160 are bytes of one character: `process_token` gives an entry with the last of them only.
    let body = r#"{"index":0,"content":"ˠ","tokens":[203,160,349],"id_slot":3,"stop":true,"model":"teacher.gguf","tokens_predicted":3,"tokens_evaluated":5,"prompt":"<|im_start|>user\nSt","has_new_line":false,"truncated":false,"stop_type":"eos","stopping_word":"","tokens_cached":7,"completion_probabilities":[{"id":160,"token":"ˠ","bytes":[203,160],"logprob":-14.807987213134766,"top_logprobs":[{"id":10,"token":"\n","bytes":[10],"logprob":-0.7338218092918396},{"id":53,"token":"5","bytes":[53],"logprob":-1.4639062881469727}]},{"id":349,"token":"","bytes":[],"logprob":-13.354218482971191,"top_logprobs":[{"id":10,"token":"\n","bytes":[10],"logprob":-0.0006549714598804712},{"id":52,"token":"4","bytes":[52],"logprob":-8.319519996643066}]}]}"#;
    let mut answers = Answers::default();
    of(Dialect::Llamacpp)
        .reading()
        .read(&mut body.as_bytes().to_vec(), &mut answers)
        .unwrap();
    let completion = answers
        .exactly(1)
        .unwrap()
        .remove(0)
        .complete(&Expected {
            eos_ids: &[349],
            ..expected(Dialect::Llamacpp, 2)
        })
        .unwrap();
    assert_eq!(completion.text, "ˠ");
    assert_eq!(completion.finish_reason, "stop");
    assert_eq!(completion.token_ids.unwrap(), [203, 160, 349]);
    assert_eq!(
        (completion.n_prompt_tokens, completion.n_completion_tokens),
        (Some(5), Some(3))
    );
    let logprobs = completion.token_logprobs.unwrap();
    assert!(logprobs[0].is_nan());
    assert_eq!(logprobs[1..], [-14.807_987, -13.354_218_5]);
    let top = completion.top.unwrap();
    top.validate().unwrap();
    assert_eq!(top.counts.as_deref(), Some(&[0, 2, 2][..]));
    assert_eq!(top.ids, [10, 53, 10, 52]);
    assert_eq!(top.tail_logprobs[0], 0.0);
}

#[test]
fn llama_cpp_gives_drafted_tokens_no_log_probability() {
    // As it writes an accepted draft: probability 1, whatever the token.
    let body = r#"{"content":"3","tokens":[51],"stop":true,"stop_type":"limit","tokens_predicted":1,"tokens_evaluated":5,"completion_probabilities":[{"id":51,"token":"3","bytes":[51],"logprob":0.0,"top_logprobs":[]}]}"#;
    let problem = read(Dialect::Llamacpp, 2, &[body]).unwrap_err();
    assert!(problem.contains("speculative decoding"), "{problem}");
}

#[test]
fn deepseek_tells_thought_and_answer_apart() {
    let whole = r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"It is \\boxed{2}.","reasoning_content":"one and one"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"completion_tokens_details":{"reasoning_tokens":4}}}"#;
    let pieces = [
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":"one and"},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":null,"reasoning_content":" one"},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"It is \\boxed{2}.","reasoning_content":null},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}"#,
    ];
    // Newer servers say `reasoning`.
    let newer = whole.replace("reasoning_content", "reasoning");
    for completion in [
        read(Dialect::Deepseek, 0, &[whole]).unwrap(),
        read(Dialect::Deepseek, 0, &pieces).unwrap(),
        read(Dialect::Openai, 0, &[&newer]).unwrap(),
    ] {
        let (thought, answer) = completion.split.clone().unwrap();
        assert_eq!(
            (thought.as_str(), answer.as_deref()),
            ("one and one", Some("It is \\boxed{2}."))
        );
        assert_eq!(
            completion.text,
            "<think>\none and one\n</think>\n\nIt is \\boxed{2}."
        );
        assert_eq!(
            (completion.n_prompt_tokens, completion.n_completion_tokens),
            (Some(9), Some(12))
        );
        assert_eq!((completion.token_ids, completion.top), (None, None));
    }
}

#[test]
fn an_end_may_be_said_twice_and_nothing_follows_it() {
    // As a router in front of other servers ends its streams.
    let pieces = [
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"2"},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#,
    ];
    let completion = read(Dialect::Openai, 0, &pieces).unwrap();
    assert_eq!(
        (completion.text.as_str(), completion.n_completion_tokens),
        ("2", Some(1))
    );
    let more = pieces[2].replace(r#""content":"""#, r#""content":"3""#);
    let problem = read(Dialect::Openai, 0, &[pieces[1], &more]).unwrap_err();
    assert!(problem.contains("after its end"), "{problem}");
}

#[test]
fn distributions_that_were_asked_for_and_are_not_there_are_refused() {
    let bare = r#"{"choices":[{"text":"a","token_ids":[1],"finish_reason":"stop","logprobs":{"tokens":["token_id:1"],"token_logprobs":[-0.1],"top_logprobs":null}}]}"#;
    let body = bare.replace("null", "[]");
    let problem = read(Dialect::Vllm, 2, &[&body]).unwrap_err();
    assert!(problem.contains("no likeliest tokens"), "{problem}");
    let scores = r#"{"text":"x","meta_info":{"completion_tokens":1,"input_token_logprobs":[[null,6,null],[-0.25,7,null]]}}"#;
    let problem = scored(Dialect::Sglang, scores, &[7], 2).unwrap_err();
    assert!(problem.contains("no likeliest tokens"), "{problem}");
    // The last piece of an answer whose others were lost.
    let piece = r#"{"text":"o","output_ids":[79],"meta_info":{"finish_reason":{"type":"stop"},"prompt_tokens":2,"completion_tokens":3}}"#;
    let problem = read(Dialect::Sglang, 0, &[piece]).unwrap_err();
    assert!(problem.contains("1 token ids of 3"), "{problem}");
}

#[test]
fn chat_without_usage_or_thought_keeps_what_there_is() {
    let body = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"<think>\nhm\n</think>\n\n2"},"logprobs":{"content":[{"token":"<think>","logprob":-0.5,"bytes":null,"top_logprobs":[]},{"token":"\\n","logprob":-0.25,"bytes":[10],"top_logprobs":[]}]},"finish_reason":"length"}]}"#;
    let completion = read(Dialect::Openai, 0, &[body]).unwrap();
    assert_eq!(completion.text, "<think>\nhm\n</think>\n\n2");
    assert_eq!(
        (completion.split, completion.finish_reason.as_str()),
        (None, "length")
    );
    assert_eq!(completion.token_logprobs.unwrap(), [-0.5, -0.25]);
    assert_eq!(completion.logprob_space.as_deref(), Some("server"));
    assert_eq!(
        (completion.n_prompt_tokens, completion.n_completion_tokens),
        (None, Some(2))
    );
}

#[test]
fn requests_say_everything_that_servers_would_fill_in_themselves() {
    let (request, options) = (request(), options(20));
    let ask = Ask {
        model: "r1",
        request: &request,
        n: 1,
        options: &options,
    };
    let body = |dialect| of(dialect).body(&ask);
    let vllm = body(Dialect::Vllm);
    assert_eq!(vllm["prompt"], serde_json::json!([5, 6]));
    assert_eq!(
        (vllm["logprobs"].as_u64(), vllm["max_tokens"].as_u64()),
        (Some(20), Some(32_768))
    );
    for key in [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "return_token_ids",
        "return_tokens_as_token_ids",
    ] {
        assert!(!vllm[key].is_null(), "{key}");
    }
    // The low 31 bits, which every server takes.
    assert_eq!(vllm["seed"].as_u64(), Some(7));
    let sglang = body(Dialect::Sglang);
    assert_eq!(sglang["top_logprobs_num"].as_u64(), Some(20));
    assert_eq!(sglang["sampling_params"]["top_k"].as_i64(), Some(40));
    let llama = body(Dialect::Llamacpp);
    assert_eq!(
        (llama["n_probs"].as_u64(), llama["return_tokens"].as_bool()),
        (Some(20), Some(true))
    );
    // A stream would leave out the ids of tokens that end inside a character.
    assert_eq!(llama["stream"].as_bool(), Some(false));
    let deepseek = body(Dialect::Deepseek);
    assert_eq!(deepseek["messages"][0]["content"], "1+1?");
    // Its reasoner answers a request for log-probabilities with an error.
    assert!(deepseek.get("logprobs").is_none());
}
