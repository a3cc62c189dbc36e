#!/usr/bin/env python3
"""Writes one shape of the training benchmark: a checkpoint of random weights, rows, an adapter, a recipe.

    pip install torch safetensors numpy pyarrow
    python scripts/bench/make_shape.py NAME OUT_DIR [--dtype f32|bf16] [--steps N]

OUT_DIR then holds

    model/         config.json, model.safetensors, tokenizer.json: what `train-student` and transformers both load
    adapter/       the LoRA pair both sides start from, in PEFT's format; B is not zero, so that the first loss
                   already depends on it
    rows.jsonl     prompt_token_ids and token_ids, uniform over the whole vocabulary
    rows.parquet   the same rows with the columns soft losses need (20 entries per position)
    recipe.toml    for `train-student`; scripts/bench/torch_lora.py reads its settings from there too
    shape.json     written last: the folder is complete

Weights, rows and adapter follow from the shape's name alone, so a folder can be thrown away and made again. The
bf16 checkpoint is the f32 one, rounded.
"""

import argparse
import json
import math
import shutil
import zlib
from pathlib import Path

# Read by the driver as well, which must stay small in memory: no torch at the top of this file.
SPIKE = {
    "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 1408, "vocab_size": 32_000, "max_position_embeddings": 8192, "rope_theta": 10_000.0,
}
# https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json
QWEN = {
    "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "intermediate_size": 4864, "vocab_size": 151_936, "max_position_embeddings": 32_768, "rope_theta": 1e6,
}
GROWTH_TOKENS = 8192


def shape(model, length, batch_size, steps, checkpointing=False):
    return {"model": model, "length": length, "batch_size": batch_size, "steps": steps, "checkpointing": checkpointing}


SHAPES = {
    "spike": shape(SPIKE, 256, 4, 12),
    "qwen0.5b": shape(QWEN, 2048, 1, 5),
    "long": shape(QWEN, 16_384, 1, 3, checkpointing=True),
    # The same number of tokens in every pass, in longer and longer documents.
    **{f"growth-{n}": shape(SPIKE, n, GROWTH_TOKENS // n, 4) for n in (512, 1024, 2048, 4096, 8192)},
}

PROMPT = 16
TOP_K = 20
RANK, ALPHA = 16, 32
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def linears(model):
    """(module, out, in) of the seven projections of every layer."""
    hidden, inner = model["hidden_size"], model["intermediate_size"]
    head = hidden // model["num_attention_heads"]
    kv = model["num_key_value_heads"] * head
    for layer in range(model["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.self_attn.q_proj", hidden, hidden
        yield f"{prefix}.self_attn.k_proj", kv, hidden
        yield f"{prefix}.self_attn.v_proj", kv, hidden
        yield f"{prefix}.self_attn.o_proj", hidden, hidden
        yield f"{prefix}.mlp.gate_proj", inner, hidden
        yield f"{prefix}.mlp.up_proj", inner, hidden
        yield f"{prefix}.mlp.down_proj", hidden, inner


def write_model(folder, model, dtype, generator):
    import torch
    from safetensors.torch import save_file

    def normal(*size):
        return torch.empty(size).normal_(0.0, 0.02, generator=generator).to(dtype)

    def scale(size):
        return (1 + torch.empty(size).normal_(0.0, 0.02, generator=generator)).to(dtype)

    hidden = model["hidden_size"]
    tensors = {"model.embed_tokens.weight": normal(model["vocab_size"], hidden), "model.norm.weight": scale(hidden)}
    for layer in range(model["num_hidden_layers"]):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = scale(hidden)
    for module, rows, columns in linears(model):
        tensors[f"{module}.weight"] = normal(rows, columns)
        if module.endswith(("q_proj", "k_proj", "v_proj")):
            tensors[f"{module}.bias"] = normal(rows)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **model, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_dropout": 0.0, "initializer_range": 0.02,
        "use_cache": True, "bos_token_id": model["vocab_size"] - 3, "eos_token_id": model["vocab_size"] - 1,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(model["vocab_size"]), ensure_ascii=False) + "\n")
    # Asked for by train-student; rows of ids alone are not rendered with it.
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    settings = {"eos_token": SPECIALS[-1], "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")


def tokenizer(vocab_size):
    """Byte-level BPE with a token, and for all but the bytes a merge, per id.

    A vocabulary without merges would be smaller in memory than a real one, and its memory is part of what is measured.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) if byte in printable else None for byte in range(256)]
    spare = iter(range(256, 512))
    letters = [letter or chr(next(spare)) for letter in letters]
    tokens, merges = list(letters), []
    n_tokens = vocab_size - len(SPECIALS)
    shorter = letters
    while len(tokens) < n_tokens:
        longer = []
        for left in shorter:
            for right in letters:
                if len(tokens) == n_tokens:
                    break
                longer.append(left + right)
                tokens.append(left + right)
                merges.append([left, right])
        shorter = longer
    added = [
        {"id": n_tokens + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, text in enumerate(SPECIALS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: id for id, token in enumerate(tokens)}, "merges": merges},
    }


def write_adapter(folder, model, generator):
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for module, rows, columns in linears(model):
        bound = 1 / math.sqrt(columns)
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = torch.empty(RANK, columns).uniform_(-bound, bound, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.empty(rows, RANK).normal_(0.0, 0.01, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": RANK, "lora_alpha": ALPHA,
        "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "inference_mode": False,
        "init_lora_weights": True, "use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
        "modules_to_save": None, "target_modules": TARGETS,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_rows(folder, shape, n_rows, rng):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    vocab, n = shape["model"]["vocab_size"], shape["length"] - PROMPT
    columns = {name: [] for name in ("id", "prompt_token_ids", "token_ids", "top_ids", "top_logprobs", "tail_logprobs")}
    for row in range(n_rows):
        ids = rng.integers(0, vocab, shape["length"])
        # Distinct ids per position, the sampled token first: it walks from there in a stride of its own.
        stride = rng.integers(1, vocab // TOP_K, (n, 1))
        top_ids = (ids[PROMPT:, None] + stride * np.arange(TOP_K)) % vocab
        scores = -np.sort(-2.0 * rng.standard_normal((n, TOP_K + 1)), axis=1)
        logprobs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        columns["id"].append(f"row-{row}")
        columns["prompt_token_ids"].append(ids[:PROMPT].tolist())
        columns["token_ids"].append(ids[PROMPT:].tolist())
        columns["top_ids"].append(top_ids.ravel())
        columns["top_logprobs"].append(logprobs[:, :TOP_K].astype(np.float16).ravel())
        columns["tail_logprobs"].append(logprobs[:, TOP_K].astype(np.float32))
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for row in zip(*(columns[name] for name in ("id", "prompt_token_ids", "token_ids"))):
            file.write(json.dumps(dict(zip(("id", "prompt_token_ids", "token_ids"), row))) + "\n")
    ids_type = pa.list_(pa.uint32())
    table = pa.table({
        "id": columns["id"],
        "prompt_token_ids": pa.array(columns["prompt_token_ids"], ids_type),
        "token_ids": pa.array(columns["token_ids"], ids_type),
        "top_k": pa.array([TOP_K] * n_rows, pa.uint16()),
        "top_ids": pa.array(columns["top_ids"], ids_type),
        "top_logprobs": pa.array(columns["top_logprobs"], pa.list_(pa.float16())),
        "tail_logprobs": pa.array(columns["tail_logprobs"], pa.list_(pa.float32())),
        "logprob_space": ["raw"] * n_rows,
    })
    pq.write_table(table, folder / "rows.parquet")


def recipe(folder, name, shape):
    quoted = lambda path: json.dumps(str(path))
    return f"""# Written by scripts/bench/make_shape.py for the training benchmark; the weights and rows are random.
name = "bench-{name}"
seed = 0

[student]
model = {quoted(folder / "model")}

[train]
data = {quoted(folder / "rows.jsonl")}
method = "lora"
max_steps = {shape["steps"]}
learning_rate = 2e-4
batch_size = {shape["batch_size"]}
micro_batch_tokens = {shape["length"] * shape["batch_size"]}
packing = true
shuffle = false
schedule = "constant"
warmup_ratio = 0.0
max_grad_norm = 1.0
weight_decay = 0.01
betas = [0.9, 0.999]
eps = 1e-8
precision = "f32"
activation_checkpointing = false

[train.lora]
rank = {RANK}
alpha = {ALPHA}
init_from = {quoted(folder / "adapter")}

[train.loss]
kind = "hard"
hard_weight = 0.5
divergence = "forward_kl"
temperature = 1.0
missing_mass = "tail"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="of the checkpoint")
    parser.add_argument("--steps", type=int, help="steps there are rows for [default: the shape's]")
    args = parser.parse_args()

    import numpy as np
    import torch

    chosen = dict(SHAPES[args.name])
    chosen["steps"] = args.steps or chosen["steps"]
    folder = args.out_dir.absolute()
    if folder.exists():
        # Only a folder this script made is its to delete.
        if any(folder.iterdir()) and not (folder / "recipe.toml").is_file():
            parser.error(f"{folder} is there and is no shape")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(recipe(folder, args.name, chosen))
    seed = zlib.crc32(args.name.encode())
    generator = torch.Generator().manual_seed(seed)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    write_model(folder / "model", chosen["model"], dtype, generator)
    write_adapter(folder / "adapter", chosen["model"], generator)
    write_rows(folder, chosen, chosen["steps"] * chosen["batch_size"], np.random.default_rng(seed))
    (folder / "shape.json").write_text(json.dumps({"name": args.name, "dtype": args.dtype, **chosen}) + "\n")


if __name__ == "__main__":
    main()
