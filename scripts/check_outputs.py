"""Opens everything a run wrote with the tools other people use, and compares numbers.

    python scripts/check_outputs.py runs/quickstart

Needs cargo, and datasets, pyarrow, torch, transformers, peft and safetensors; run it from the root
of the checkout. Checks:

- `datasets.load_dataset` reads the dataset folder through its card;
- PEFT loads the adapter on the base model, transformers the merged checkpoint, and both give our
  logits within 1e-3 on 20 held-out rows;
- the teacher's stored log-probabilities equal transformers' log-softmax within 2e-3 (top-k entries:
  2e-3 and half a unit of f16).
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROWS = 20


def target_folder() -> Path:
    metadata = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], check=True, capture_output=True)
    return Path(json.loads(metadata.stdout)["target_directory"])


def our_logits(model: str, rows: list[list[int]], adapter: str | None = None) -> list[torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        ids, out = Path(folder, "ids.jsonl"), Path(folder, "logits.safetensors")
        ids.write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = [model, str(ids), str(out), *([adapter] if adapter else [])]
        subprocess.run([target_folder() / "release" / "examples" / "logits", *arguments], check=True)
        tensors = load_file(out)
        return [tensors[f"row-{index}"] for index in range(len(rows))]


@torch.no_grad()
def their_logits(model, rows: list[list[int]]) -> list[torch.Tensor]:
    return [model(torch.tensor([row])).logits[0].float() for row in rows]


def worst(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def check_teacher(run: Path, teacher: str) -> dict[str, float]:
    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    table = pq.read_table(sorted((run / "traces").glob("part-*.parquet"))[0]).slice(0, ROWS).to_pylist()
    errors = {"token": 0.0, "top": 0.0, "tail": 0.0}
    for row in table:
        prompt, ids, k = row["prompt_token_ids"], row["token_ids"], row["top_k"]
        logits = their_logits(model, [prompt + ids])[0][len(prompt) - 1 : -1].double()
        reference = torch.log_softmax(logits, -1).numpy()
        positions = np.arange(len(ids))
        token = reference[positions, ids]
        errors["token"] = max(errors["token"], np.abs(token - np.array(row["token_logprobs"])).max())
        top_ids = np.array(row["top_ids"]).reshape(-1, k)
        stored = np.array(row["top_logprobs"], dtype=np.float64).reshape(-1, k)
        expected = np.take_along_axis(reference, top_ids, 1)
        rounding = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float64) / 2
        errors["top"] = max(errors["top"], (np.abs(stored - expected) - rounding).max())
        assert (expected.min(1) >= np.sort(reference, 1)[:, -k] - 2e-3).all(), "these are not the top k"
        outside = reference.copy()
        np.put_along_axis(outside, top_ids, -np.inf, 1)
        tail = np.logaddexp.reduce(outside, axis=1)
        # Below e^-12 the mass outside is rounding noise of f32 on either side.
        seen = tail > -12
        if seen.any():
            errors["tail"] = max(errors["tail"], np.abs(tail - np.array(row["tail_logprobs"]))[seen].max())
    return errors


def main() -> None:
    # The whole workspace, so that dependencies are built as they were for the binaries.
    subprocess.run(["cargo", "build", "--release", "--quiet", "--workspace", "--examples"], check=True)
    run = Path(sys.argv[1])
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    base, teacher = recipe["student"]["model"], recipe["teacher"]["model"]

    dataset = datasets.load_dataset(str(run / "dataset"))
    print("datasets:", {split: len(rows) for split, rows in dataset.items()}, sorted(dataset["train"].features))

    samples = pq.read_table(run / "scores" / "samples.parquet").to_pylist()
    held_out = [row["prompt_token_ids"] + row["token_ids"] for row in samples if row["role"] == "student"]
    rows = held_out[:: max(1, len(held_out) // ROWS)][:ROWS]

    adapter, merged = str(run / "student" / "adapter"), str(run / "student" / "merged")
    load = lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    results = {
        "PEFT adapter, logits": (worst(our_logits(base, rows, adapter), their_logits(PeftModel.from_pretrained(load(base), adapter), rows)), 1e-3),
        "transformers merged, logits": (worst(our_logits(merged, rows), their_logits(load(merged), rows)), 1e-3),
    }
    for name, error in check_teacher(run, teacher).items():
        results[f"teacher {name} log-probabilities"] = (error, 2e-3)
    for name, (error, bound) in results.items():
        print(f"{name}: largest difference {error:.2e} (bound {bound:g})")
    assert all(error <= bound for error, bound in results.values())
    print(f"{len(rows)} rows: all within bounds")


if __name__ == "__main__":
    main()
