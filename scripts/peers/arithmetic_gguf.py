"""Writes a checkpoint in Hugging Face layout as one F32 GGUF, for llama.cpp's server.

    python scripts/peers/arithmetic_gguf.py data/arithmetic/teacher teacher.gguf

Needs gguf and numpy. llama.cpp's own converter recognises a tokenizer by a hash over what it makes of a sample text, and
knows none that was trained here; this one goes by the pattern that the tokenizer splits text with. It takes Qwen2, Qwen3
and Llama, dense and without scaled rotary embeddings.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

ARCHITECTURES = {
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
}

# How llama.cpp names the ways of splitting text (src/llama-vocab.cpp), by the pattern and by whether a word that is a
# token is taken whole.
PRE_TOKENIZERS = {
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        False,
    ): "qwen2",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        True,
    ): "llama-bpe",
    # GPT-2's own pattern, which a byte-level part applies by itself.
    ("use_regex", False): "gpt-2",
}


def fail(problem: str) -> None:
    sys.exit(f"error: {problem}")


def tensors(checkpoint: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor in f32. safetensors' own numpy reader has no bf16."""
    files = sorted(checkpoint.glob("*.safetensors"))
    if not files:
        fail(f"{checkpoint} has no *.safetensors")
    for path in files:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            start = file.tell()
            for name, tensor in header.items():
                if name == "__metadata__":
                    continue
                begin, end = tensor["data_offsets"]
                file.seek(start + begin)
                raw = file.read(end - begin)
                match tensor["dtype"]:
                    case "F32":
                        values = np.frombuffer(raw, np.float32)
                    case "F16":
                        values = np.frombuffer(raw, np.float16).astype(np.float32)
                    case "BF16":
                        values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
                    case other:
                        fail(f"{name} in {path} is {other}; F32, F16 and BF16 can be written")
                yield name, values.reshape(tensor["shape"])


def interleaved(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a Llama projection in the order that llama.cpp rotates them in: pairs beside each other."""
    shape = (n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape))


def pre_tokenizer(tokenizer: dict) -> str:
    parts = tokenizer["pre_tokenizer"]
    parts = parts.get("pretokenizers", [parts])
    patterns = [part["pattern"].get("Regex") for part in parts if part["type"] == "Split"]
    patterns += ["use_regex" for part in parts if part["type"] == "ByteLevel" and part.get("use_regex", True)]
    key = (patterns[0] if len(patterns) == 1 else None, tokenizer["model"].get("ignore_merges", False))
    if key not in PRE_TOKENIZERS:
        fail(f"the tokenizer splits by {patterns}, for which no tokenizer.ggml.pre is known here")
    return PRE_TOKENIZERS[key]


def add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path, vocab_size: int) -> None:
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    if tokenizer["model"]["type"] != "BPE" or tokenizer["model"].get("byte_fallback"):
        fail("the tokenizer is no byte-level BPE")
    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    types = [gguf.TokenType.UNUSED] * vocab_size
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # Merges, the ids of special tokens, and the chat template.
    gguf.SpecialVocab(checkpoint, load_merges=True, n_vocab=vocab_size).add_to_gguf(writer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR")
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    args = parser.parse_args()

    config = json.loads((args.checkpoint / "config.json").read_text(encoding="utf-8"))
    name = config.get("architectures", [None])[0]
    if name not in ARCHITECTURES:
        fail(f"{args.checkpoint} is a {name}; {', '.join(ARCHITECTURES)} can be written")
    architecture = ARCHITECTURES[name]
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or {}
    if {rope.get("rope_type", "default"), scaling.get("rope_type", scaling.get("type", "default"))} != {"default"}:
        fail("rotary embeddings are scaled, which is not written here")
    if config.get("use_sliding_window"):
        fail("attention slides, which is not written here")

    n_layers, n_heads = config["num_hidden_layers"], config["num_attention_heads"]
    n_kv_heads = config.get("num_key_value_heads", n_heads)
    head_dim = config.get("head_dim") or config["hidden_size"] // n_heads
    writer = gguf.GGUFWriter(args.out, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_name(args.checkpoint.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta") or rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    add_tokenizer(writer, args.checkpoint, config["vocab_size"])

    names = gguf.get_tensor_name_map(architecture, n_layers)
    for ours, values in tensors(args.checkpoint):
        if ours == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        theirs = names.get_name(ours, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            fail(f"llama.cpp has no tensor for {ours}")
        if name == "LlamaForCausalLM" and ".q_proj." in ours:
            values = interleaved(values, n_heads)
        if name == "LlamaForCausalLM" and ".k_proj." in ours:
            values = interleaved(values, n_kv_heads)
        writer.add_tensor(theirs, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
