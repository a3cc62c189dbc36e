#!/usr/bin/env python3
"""Compares what a teacher gave with its samples and what another said of the same ids afterwards.

    pip install pyarrow numpy
    score-traces RECIPE --run-dir RUN            # our own decoder reads RUN/traces and writes RUN/scored
    python scripts/peers/compare_scores.py RUN [--tolerance 2e-3]

Row by row and position by position: the log-probability of every sampled token, those of the stored entries that both
have, the mass outside them, and how often the entries are the same set; of each the median and the largest difference. A
NaN or a position without entries is counted, not compared. Both sides' entries are rounded to f16, by up to 0.004 at −8: half of a last place is taken off for each.
Ends with 1 where a difference is larger than that.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

COLUMNS = ["trace_id", "token_ids", "token_logprobs", "top_k", "top_ids", "top_logprobs", "tail_logprobs", "top_counts",
           "logprob_space", "finish_reason"]


def rows(folder):
    found = {}
    for path in sorted(folder.glob("**/part-*.parquet")):
        for row in pq.read_table(path, columns=COLUMNS).to_pylist():
            found[row["trace_id"]] = row
    return found


def entries(row):
    """Ids and log-probabilities of every position."""
    n = len(row["token_ids"])
    counts = row["top_counts"] or [row["top_k"]] * n
    ends = np.cumsum(counts)
    ids, logprobs = np.array(row["top_ids"]), np.array(row["top_logprobs"], dtype=np.float64)
    return [(ids[end - count:end], logprobs[end - count:end]) for end, count in zip(ends, counts)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tolerance", type=float, default=2e-3)
    args = parser.parse_args()
    sampled, scored = rows(args.run / "traces"), rows(args.run / "scored")
    if sampled.keys() != scored.keys():
        sys.exit(f"{len(sampled)} traces and {len(scored)} scored ones")
    differences = {"token": [], "entry": [], "tail": []}
    tokens = without = same = positions = 0
    for trace_id, a in sampled.items():
        b = scored[trace_id]
        if a["token_ids"] is None:
            continue
        if a["token_ids"] != b["token_ids"]:
            sys.exit(f"{trace_id}: the ids are not the same")
        x, y = np.array(a["token_logprobs"], dtype=np.float64), np.array(b["token_logprobs"], dtype=np.float64)
        tokens += len(x)
        known = np.isfinite(x)
        without += int((~known).sum())
        differences["token"].append(np.abs(x - y)[known])
        for at, ((ids_a, p), (ids_b, q)) in enumerate(zip(entries(a), entries(b))):
            if len(ids_a) == 0:
                continue
            positions += 1
            same += set(ids_a) == set(ids_b)
            _, in_a, in_b = np.intersect1d(ids_a, ids_b, return_indices=True)
            p, q = p[in_a], q[in_b]
            place = np.spacing(np.maximum(np.abs(p), np.abs(q)).astype(np.float16)).astype(np.float64)
            differences["entry"].append(np.maximum(np.abs(p - q) - place, 0.0))
            s, t = np.exp(a["tail_logprobs"][at]), np.exp(b["tail_logprobs"][at])
            differences["tail"].append(np.array([abs(s - t)]))
    print(f"{len(sampled)} traces, {tokens} tokens, {without} of them without a log-probability; "
          f"{positions} positions with entries, {same} with the same set")
    worst = 0.0
    for name, found in differences.items():
        found = np.concatenate(found) if found else np.zeros(1)
        print(f"{name}: median {np.median(found):.2e}, 99 of 100 below {np.quantile(found, 0.99):.2e}, largest {found.max():.2e}")
        worst = max(worst, found.max())
    if not tokens or worst > args.tolerance:
        sys.exit(f"more than {args.tolerance}")


if __name__ == "__main__":
    main()
