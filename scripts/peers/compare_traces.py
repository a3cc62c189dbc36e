"""Compares the log-probabilities of traces with transformers on the same token ids.

    python scripts/peers/compare_traces.py runs/x/traces models/teacher

Needs torch, transformers, pyarrow and numpy. For every row without an error, in f32 on the CPU:

- the arrays have the lengths that the token ids ask for, entries descend, and a completion that stopped ends with a
  token that ends one;
- `token_logprobs`, `top_logprobs` (less half a unit of f16) and `tail_logprobs` equal the log-softmax of the logits
  within --bound. Tails are compared above --tail-floor: below e^-12 they are rounding noise of f32, and servers may lose
  more of them;
- the mass that the tails stand for (`tail_mass`) is compared everywhere, by its difference;
- the entries are the likeliest: none is more than --bound below the k-th.

Tokens without an entry (NaN, and no entries) are counted, apart where they are the token that ends the completion.
Prints one JSON object; ends with 1 where something is out of bounds.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM

COLUMNS = [
    "trace_id", "error", "finish_reason", "logprob_space", "n_completion_tokens", "prompt_token_ids", "token_ids",
    "token_logprobs", "top_k", "top_ids", "top_logprobs", "tail_logprobs", "top_counts",
]  # fmt: skip


def ends(checkpoint: Path) -> set[int]:
    """The ids that end a completion."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = checkpoint / name
        ids = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        found.update([ids] if isinstance(ids, int) else ids or [])
    return found


@torch.no_grad()
def reference(model: torch.nn.Module, prompt: list[int], ids: list[int]) -> np.ndarray:
    logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]  # [T, V]
    return torch.log_softmax(logits.double(), -1).numpy()


class Comparison:
    def __init__(self, bound: float, tail_floor: float, end_ids: set[int]):
        self.bound, self.tail_floor, self.end_ids = bound, tail_floor, end_ids
        self.counts: Counter[str] = Counter()
        self.largest = {"token_logprobs": 0.0, "top_logprobs": 0.0, "tail_logprobs": 0.0, "tail_mass": 0.0}
        self.problems: list[str] = []

    def figures(self) -> dict:
        return {"counts": self.counts, "largest_difference": self.largest, "problems": len(self.problems)}

    def check(self, ok: bool, row: dict, problem: str) -> None:
        if not ok:
            self.problems.append(f"{row['trace_id']}: {problem}")

    def differs(self, column: str, row: dict, difference: np.ndarray) -> None:
        largest = float(difference.max(initial=0.0))
        self.largest[column] = max(self.largest[column], largest)
        self.check(largest <= self.bound, row, f"{column} differ by {largest:.2e}")

    def row(self, row: dict, expected: np.ndarray) -> None:
        ids = np.array(row["token_ids"])
        n_tokens = len(ids)
        self.counts["tokens"] += n_tokens
        self.check(row["n_completion_tokens"] == n_tokens, row, f"{row['n_completion_tokens']} tokens counted, {n_tokens} ids")
        self.counts[f"finish_reason {row['finish_reason']}"] += 1
        if row["finish_reason"] == "stop":
            self.check(ids[-1] in self.end_ids, row, f"stopped at {ids[-1]}, which ends nothing")
        self.check(not self.end_ids & set(ids[:-1].tolist()), row, "goes on after its end")
        if row["token_logprobs"] is None:
            self.counts["rows without log-probabilities"] += 1
            return
        self.check(row["logprob_space"] == "raw", row, f"log-probabilities are {row['logprob_space']}")

        token = np.array(row["token_logprobs"], dtype=np.float64)
        self.check(len(token) == n_tokens, row, f"{len(token)} log-probabilities of {n_tokens} tokens")
        known = ~np.isnan(token)
        self.counts["tokens without a log-probability"] += int((~known).sum())
        self.counts["of these the end"] += int(not known[-1] and ids[-1] in self.end_ids)
        self.differs("token_logprobs", row, np.abs(token - expected[np.arange(n_tokens), ids])[known])
        if row["top_ids"] is not None:
            self.top(row, expected, known)

    def top(self, row: dict, expected: np.ndarray, known: np.ndarray) -> None:
        n_tokens, k = len(expected), row["top_k"]
        counts = np.array(row["top_counts"] if row["top_counts"] is not None else [k] * n_tokens)
        tails = np.array(row["tail_logprobs"], dtype=np.float64)
        whole = len(counts) == len(tails) == n_tokens and counts.sum() == len(row["top_ids"]) == len(row["top_logprobs"])
        self.check(whole, row, "the arrays of the likeliest tokens have other lengths")
        if not whole:
            return
        self.check(((counts == 0) == ~known).all(), row, "entries and log-probabilities miss at different tokens")
        self.counts["positions with fewer entries than K"] += int(((counts < k) & known).sum())
        at = np.repeat(np.arange(n_tokens), counts)
        top_ids = np.array(row["top_ids"], dtype=np.int64)
        stored = np.array(row["top_logprobs"], dtype=np.float64)
        self.counts["entries"] += len(top_ids)
        within = at[1:] == at[:-1]
        self.check((np.diff(stored)[within] <= 0).all(), row, "entries do not descend")
        self.check(len({*zip(at.tolist(), top_ids.tolist())}) == len(top_ids), row, "a token is two entries")

        wanted = expected[at, top_ids]
        rounding = np.spacing(np.abs(wanted).astype(np.float16)).astype(np.float64) / 2
        self.differs("top_logprobs", row, np.abs(stored - wanted) - rounding)
        ordered = np.sort(expected, 1)[:, ::-1]  # [T, V]
        kth = ordered[at, counts[at] - 1]
        self.counts["entries below the k-th, by rounding"] += int((wanted < kth).sum())
        self.check((wanted >= kth - self.bound).all(), row, "these are not the likeliest tokens")

        outside = expected.copy()
        outside[at, top_ids] = -np.inf
        tail = np.logaddexp.reduce(outside, axis=1)
        seen = known & (tail > self.tail_floor)
        self.counts["tails compared"] += int(seen.sum())
        self.differs("tail_logprobs", row, np.abs(tail[seen] - tails[seen]))
        self.differs("tail_mass", row, np.abs(np.exp(tail[known]) - np.exp(tails[known])))


def compare(traces: Path, checkpoint: Path, bound: float = 2e-3, tail_floor: float = -12) -> Comparison:
    parts = sorted(traces.glob("part-*.parquet"))
    if not parts:
        sys.exit(f"error: {traces} has no part-*.parquet")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    found = Comparison(bound, tail_floor, ends(checkpoint))
    for part in parts:
        for row in pq.read_table(part, columns=COLUMNS).to_pylist():
            found.counts["rows"] += 1
            if row["error"] is not None:
                found.counts["rows with an error"] += 1
            else:
                found.row(row, reference(model, row["prompt_token_ids"], row["token_ids"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, metavar="TRACES_DIR")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR")
    parser.add_argument("--bound", type=float, default=2e-3)
    parser.add_argument("--tail-floor", type=float, default=-12)
    args = parser.parse_args()
    found = compare(args.traces, args.checkpoint, args.bound, args.tail_floor)
    print(json.dumps(found.figures(), indent=1))
    for problem in found.problems[:20]:
        print(problem, file=sys.stderr)
    sys.exit(bool(found.problems))


if __name__ == "__main__":
    main()
