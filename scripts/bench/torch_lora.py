#!/usr/bin/env python3
"""The peer of the training benchmark: a LoRA run of PyTorch + transformers + PEFT on one shape.

    pip install torch transformers peft safetensors
    python scripts/bench/torch_lora.py SHAPE_DIR [--steps N] [--dtype f32|bf16] [--gradient-checkpointing] [--threads 2]

Weights, initial adapter, rows and settings are those of SHAPE_DIR (scripts/bench/make_shape.py). Written as a user who
knows these libraries would: SDPA attention, the model's own loss with −100 on prompts, fused AdamW, no KV cache, one
plain batch per step, batches built before the clock starts. With `--dtype bf16` the model is loaded in bf16 and PEFT
keeps the adapter in f32, its default. Prints one JSON object per line: first what it ran on, then every step.
"""

import argparse
import json
import time
import tomllib
from pathlib import Path

import peft
import torch
import transformers


def batches(rows, batch_size, steps):
    """(input ids, labels, attention mask or none) of each step, in the order of the rows, over and over."""
    for step in range(steps):
        chosen = [rows[(step * batch_size + i) % len(rows)] for i in range(batch_size)]
        longest = max(len(row["prompt_token_ids"]) + len(row["token_ids"]) for row in chosen)
        ids = torch.zeros(batch_size, longest, dtype=torch.long)
        labels = torch.full((batch_size, longest), -100)
        mask = torch.zeros(batch_size, longest, dtype=torch.long)
        for i, row in enumerate(chosen):
            start = len(row["prompt_token_ids"])
            end = start + len(row["token_ids"])
            ids[i, :end] = torch.tensor(row["prompt_token_ids"] + row["token_ids"])
            labels[i, start:end] = ids[i, start:end]
            mask[i, :end] = 1
        # Without a mask SDPA takes its causal kernel, which never builds [T, T].
        yield ids, labels, None if mask.all() else mask


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape_dir", type=Path)
    parser.add_argument("--steps", type=int, help="[default: the recipe's max_steps]")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="of the frozen model")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    print(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
        "threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(), "onednn": torch.backends.mkldnn.is_available(),
    }), flush=True)

    settings = tomllib.loads((args.shape_dir / "recipe.toml").read_text())["train"]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.shape_dir / "model", dtype={"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype],
        attn_implementation="sdpa",
    )
    model.config.use_cache = False
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = peft.PeftModel.from_pretrained(model, args.shape_dir / "adapter", is_trainable=True)
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adamw = torch.optim.AdamW(
        trainable, lr=settings["learning_rate"], betas=tuple(settings["betas"]), eps=settings["eps"],
        weight_decay=settings["weight_decay"], fused=True,
    )
    steps = args.steps or settings["max_steps"]
    rows = [json.loads(line) for line in open(args.shape_dir / "rows.jsonl", encoding="utf-8")]

    for step, (ids, labels, mask) in enumerate(list(batches(rows, settings["batch_size"], steps)), start=1):
        clock = time.perf_counter()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(trainable, settings["max_grad_norm"])
        adamw.step()
        adamw.zero_grad()
        seconds = time.perf_counter() - clock
        n_tokens = ids.numel() if mask is None else int(mask.sum())
        print(json.dumps({
            "step": step, "loss": loss.item(), "grad_norm": grad_norm.item(), "n_tokens": n_tokens, "seconds": seconds,
        }), flush=True)


if __name__ == "__main__":
    main()
