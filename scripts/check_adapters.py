#!/usr/bin/env python3
"""Checks that PEFT and this project read each other's adapters.

    python scripts/check_adapters.py

Needs cargo, and torch, transformers, peft and safetensors; run it from the root of the repository.
For adapters of many kinds, made by PEFT on the tiny models of tests/fixtures/model:

- ours reads PEFT's folder and writes it again; PEFT loads that with no missing and no unexpected key, and it
  gives the logits of the first adapter;
- the checkpoint that ours merges, cut into small shards, loads in transformers with every weight found, and
  gives PEFT's logits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent / "fixtures"))
from make_model_fixtures import random_adapter  # noqa: E402

MODELS = Path("tests/fixtures/model")
LIMIT = 1e-4  # Largest difference between logits, which are around 10.

CASES = {
    "plain": ("qwen2", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "rslora": ("llama-llama3", dict(r=4, lora_alpha=8, use_rslora=True, target_modules="all-linear")),
    "dora": ("llama-linear-bias", dict(r=4, lora_alpha=8, use_dora=True, target_modules="all-linear")),
    "rsdora": ("qwen2", dict(r=3, lora_alpha=5, use_dora=True, use_rslora=True, target_modules=["o_proj", "down_proj"])),
    "dropout": ("qwen3-yarn", dict(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["gate_proj", "layers.1.self_attn.k_proj"])),
    "patterns": ("qwen3-yarn", dict(
        r=4, lora_alpha=8, target_modules=r".*\.(self_attn\.[qkv]|mlp\.(up|down))_proj",
        rank_pattern={r"layers\.1\.mlp\..*": 2, "q_proj": 6}, alpha_pattern={"1.self_attn.q_proj": 3.5, "q_proj": 2})),
    "saved": ("llama-linear-bias", dict(
        r=4, lora_alpha=8, target_modules="all-linear", modules_to_save=["lm_head", "embed_tokens", "norm", "0.mlp.up_proj"])),
    "saved blocks": ("qwen2", dict(r=4, lora_alpha=8, target_modules="all-linear", modules_to_save=["layers.0.self_attn", "norm"])),
    "saved and dora": ("qwen3-yarn", dict(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "tied head": ("qwen2", dict(r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["lm_head"], ensure_weight_tying=True)),
    "tied embedding": ("llama-llama3", dict(
        r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
}


def logits(model):
    ids = torch.arange(40).reshape(2, 20) % 70
    with torch.no_grad():
        return model.eval()(ids).logits


def base_model(base):
    return AutoModelForCausalLM.from_pretrained(MODELS / base, dtype=torch.float32)


def key_problems(base, folder):
    """What PEFT's own report of loading names; `from_pretrained` throws it away."""
    model = get_peft_model(base_model(base), PeftConfig.from_pretrained(folder))
    result = set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    # The base's weights are missing in every adapter; of those that are kept twice, one is the adapter's.
    missing = [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
    return [f"unexpected {key}" for key in result.unexpected_keys] + [f"missing {key}" for key in missing]


def check(merge, name, base, settings, folder):
    torch.manual_seed(len(name))
    model = random_adapter(MODELS / base, settings)
    theirs = folder / "theirs"
    model.save_pretrained(theirs)
    expected = logits(model)
    moved = (expected - logits(base_model(base))).abs().max().item()
    subprocess.run([merge, MODELS / base, theirs, folder, "40000"], check=True)

    loaded = PeftModel.from_pretrained(base_model(base), folder / "adapter")
    problems = key_problems(base, folder / "adapter")
    ours, original = (load_file(path / "adapter_model.safetensors") for path in (folder / "adapter", theirs))
    if set(ours) != set(original) or any(not torch.equal(ours[key], original[key]) for key in ours):
        problems.append("the file holds other tensors")
    keys = [set(json.loads((path / "adapter_config.json").read_text())) for path in (folder / "adapter", theirs)]
    if keys[0] != keys[1]:
        problems.append(f"adapter_config.json differs in {keys[0] ^ keys[1]}")

    n_shards = len(list((folder / "merged").glob("model-*.safetensors")))
    merged, info = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32, output_loading_info=True)
    problems += [f"merged: {kind} {sorted(names)}" for kind, names in info.items() if names]
    as_adapter = (logits(loaded) - expected).abs().max().item()
    as_merged = (logits(merged) - expected).abs().max().item()
    for what, difference in [("adapter", as_adapter), ("merged", as_merged)]:
        if not difference <= LIMIT:
            problems.append(f"{what} differs by {difference:.1e}")
    if not (n_shards > 1 and moved > 0.1):
        problems.append(f"checks nothing: {n_shards} shards, moved by {moved}")
    print(f"{name:15} moved {moved:6.2f}  adapter {as_adapter:.1e}  merged {as_merged:.1e} in {n_shards} shards  "
          + ("; ".join(problems) or "ok"))
    return not problems


def build():
    """The example's binary, of the workspace's own build."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "--workspace", "--example", "merge"], check=True)
    metadata = subprocess.run(["cargo", "metadata", "--format-version=1", "--no-deps"], check=True, capture_output=True)
    return Path(json.loads(metadata.stdout)["target_directory"]) / "release/examples/merge"


def main():
    merge = build()
    good = []
    for name, (base, settings) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            good.append(check(merge, name, base, settings, Path(folder)))
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
