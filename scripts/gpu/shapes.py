"""The shapes that are trained to measure a GPU, and what a token of them costs."""

QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "rope_theta": 1e6, "max_position_embeddings": 32_768, "initializer_range": 0.02, "attention_dropout": 0.0,
}


def qwen(hidden, layers, heads, kv_heads, inner, vocab, tied):
    return QWEN | {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab, "tie_word_embeddings": tied,
    }


# The config.json files of Qwen/Qwen2.5-0.5B, -1.5B and -7B and of meta-llama/Llama-3.1-8B; `tiny` is for trying the
# scripts themselves.
SHAPES = {
    "0.5b": qwen(896, 24, 14, 2, 4864, 151_936, True),
    "1.5b": qwen(1536, 28, 12, 2, 8960, 151_936, True),
    "7b": qwen(3584, 28, 28, 4, 18_944, 152_064, False),
    "8b": qwen(4096, 32, 32, 8, 14_336, 128_256, False) | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 5e5, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131_072, "attention_bias": False,
    },
    "tiny": qwen(256, 2, 4, 2, 704, 2048, True),
}


def products(config):
    """Parameters that every token is multiplied with: the projections and the head."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner
    return config["num_hidden_layers"] * layer + hidden * config["vocab_size"]


def flops_per_token(config, tokens):
    """Of one LoRA step over a document of `tokens`, nothing computed twice: 2N forward and 2N for the gradients of
    activations (frozen weights have none), attention's two products over half of the document, and its gradients'
    twice as many."""
    attention = 3 * 4 * (tokens / 2) * config["hidden_size"] * config["num_hidden_layers"]
    return 4 * products(config) + attention


# Dense bf16 rates with f32 sums, in TFLOP/s, from NVIDIA's datasheets; the first name that a card's contains.
PEAKS = [
    ("H100 PCIe", 756.0), ("H100 NVL", 835.0), ("H100", 989.4), ("H200", 989.4), ("GH200", 989.4), ("B200", 2250.0),
    ("A100", 312.0), ("L40S", 362.0), ("L4", 121.0), ("A10G", 70.0), ("RTX 4090", 165.2),
]


def peak_tflops(card):
    return next((rate for name, rate in PEAKS if name in card), None)


def token(step, i, vocab):
    """Token `i` of step `step`, as in crates/trainer/examples/gpu_check/throughput.rs."""
    return (i * 2_654_435_761 + step * 40_503 + 12_345) % 4_294_967_296 % vocab
