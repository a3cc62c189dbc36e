#!/usr/bin/env python3
"""The peer of the GPU measurement: LoRA steps of PyTorch + transformers + PEFT on random weights.

    python scripts/gpu/torch_peer.py CONFIG.json --runs TOKENS:STEPS,… [--no-checkpointing]

Written as a user who knows these libraries would: bf16 weights, SDPA attention, gradient checkpointing, the model's
own loss, PEFT's default adapter in f32 under autocast, fused AdamW, no KV cache. Prints one JSON object per line.
"""

import argparse
import json
import time

import peft
import torch
import transformers
from peft.helpers import disable_input_dtype_casting

from shapes import token

PROMPT = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--runs", required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    print(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
        "cuda": torch.version.cuda, "card": torch.cuda.get_device_name() if on_gpu else "cpu",
    }), flush=True)

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**json.load(open(args.config, encoding="utf-8")))
    clock = time.perf_counter()
    with device:
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa",
        )
    model.config.use_cache = False
    if not args.no_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    lora = peft.LoraConfig(
        r=args.rank, lora_alpha=2 * args.rank, task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    model = peft.get_peft_model(model, lora).to(device)
    model.train()
    print(json.dumps({"loaded_seconds": time.perf_counter() - clock}), flush=True)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adamw = torch.optim.AdamW(trainable, lr=1e-4, fused=True)

    for run in args.runs.split(","):
        tokens, steps = map(int, run.split(":"))
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        for step in range(steps):
            ids = torch.tensor([[token(step, i, config.vocab_size) for i in range(tokens)]], device=device)
            labels = ids.clone()
            labels[:, :PROMPT] = -100
            if on_gpu:
                torch.cuda.synchronize()
            clock = time.perf_counter()
            try:
                # Autocast multiplies in bf16 anyway; without it PEFT would copy every input to f32 first.
                with torch.autocast(device.type, dtype=torch.bfloat16), disable_input_dtype_casting(model):
                    loss = model(input_ids=ids, labels=labels).loss
                    loss.backward()
            except torch.OutOfMemoryError:
                print(json.dumps({"tokens": tokens, "out_of_memory": True}), flush=True)
                loss = None
                adamw.zero_grad()
                break
            norm = torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            adamw.step()
            adamw.zero_grad()
            if on_gpu:
                torch.cuda.synchronize()
            print(json.dumps({
                "tokens": tokens, "step": step + 1, "seconds": time.perf_counter() - clock, "loss": loss.item(),
                "grad_norm": norm.item(),
                "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
            }), flush=True)


if __name__ == "__main__":
    main()
