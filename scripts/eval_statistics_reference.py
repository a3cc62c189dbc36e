#!/usr/bin/env python3
"""Reference values for the statistics of crates/eval, from NumPy, SciPy and Python's integers.

    python scripts/eval_statistics_reference.py > crates/eval/fixtures/statistics.json

Needs numpy and scipy. The fixture names the versions that made it. Random cases are seeded, so
the same versions write the same file.
"""

import json
import math
import sys
from fractions import Fraction

import numpy as np
import scipy
from scipy import stats


def interval(values):
    """Mean, standard error and 95 % interval (t) over questions."""
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return {"value": mean, "error": None, "low": None, "high": None}
    error = float(stats.sem(values))
    if error == 0.0:
        return {"value": mean, "error": 0.0, "low": mean, "high": mean}
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    return {"value": mean, "error": error, "low": float(low), "high": float(high)}


def pass_at_k(n, c, k):
    """1 - C(n-c, k) / C(n, k), in whole numbers (Chen et al. 2021, eq. 1)."""
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def case(n, correct, other):
    p = np.asarray(correct) / n
    q = np.asarray(other) / n
    powers = [k for k in (2**i for i in range(20)) if k <= n]
    sampling = None
    if n > 1:
        sampling = float(np.sqrt((p * (1 - p) / (n - 1)).sum()) / len(p))
    return {
        "n": n,
        "correct": correct,
        "other": other,
        "sampling_error": sampling,
        "avg": interval(p),
        "pass": {str(k): interval([pass_at_k(n, c, k) for c in correct]) for k in powers},
        "paired": interval(q - p),
    }


def main():
    rng = np.random.default_rng(20240607)
    cases = [
        case(1, [1, 0, 1, 1, 0], [0, 0, 1, 1, 1]),
        case(4, [2], [3]),
        case(8, [0, 0, 0], [8, 8, 8]),
        case(8, [8, 3, 0, 5, 1, 7], [8, 4, 1, 5, 0, 8]),
    ]
    for n, questions in [(4, 500), (64, 30), (8, 200), (256, 12)]:
        skill = rng.beta(0.6, 0.8, size=questions)
        draw = lambda p: [int(x) for x in rng.binomial(n, p)]
        cases.append(case(n, draw(skill), draw(np.clip(skill + 0.1, 0, 1))))
    json.dump(
        {
            "made_by": "scripts/eval_statistics_reference.py",
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "t_quantiles": {str(df): float(stats.t.ppf(0.975, df)) for df in [1, 2, 3, 4, 5, 7, 11, 29, 199, 499, 10000]},
            "pass_at_k": [[n, c, k, pass_at_k(n, c, k)] for n, c, k in [
                (1, 0, 1), (1, 1, 1), (10, 3, 1), (10, 3, 5), (10, 6, 5), (64, 1, 32), (200, 5, 64),
                (4096, 1, 1), (4096, 3, 1024), (10000, 2, 4096),
            ]],
            "cases": cases,
        },
        sys.stdout,
        separators=(",", ":"),
    )
    print()


if __name__ == "__main__":
    main()
