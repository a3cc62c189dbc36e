#!/usr/bin/env python3
"""Grades the same pairs with Math-Verify and with ours in alternation.

    pip install math-verify latex2sympy2_extended antlr4-python3-runtime==4.13.2
    cargo build --release -p stillroom-verify --example grade_pairs
    python scripts/peers/math_verify_peer.py target/release/examples/grade_pairs

The pairs come from crates/verify/tests/cases, of each shape about as many as MATH-500 has of it, an
answer at the end of a response of 30 kB. Prints
pairs per second of both in each round, their ratio, and the pairs on which they differ.
"""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time

from math_verify import parse, verify

ROUNDS = 3
# Percent of MATH-500's answers.
SHAPES = {
    "integers": 63, "fractions": 12, "surds": 4, "constants": 2, "polynomials": 3, "percent_and_units": 4, "sets": 3,
    "intervals": 2, "text": 2, "decimals": 1, "matrices": 1, "complex": 1, "bases": 1, "equations": 1,
}
PAIRS = 3 * sum(SHAPES.values())


def pairs(seed):
    """(gold, answer, whether it is correct) of the tables."""
    folder = os.path.join(os.path.dirname(__file__), "..", "..", "crates", "verify", "tests", "cases")
    chosen, random_ = [], random.Random(seed)
    for shape, percent in SHAPES.items():
        found, same = [], []
        path = os.path.join(folder, shape + ".txt")
        for line in open(path, encoding="utf-8"):
            kind, answers = line[:1], [part.strip() for part in line[1:].split(" | ")]
            if kind == "=":
                same = answers
                found += [(gold, answer, True) for gold in answers for answer in answers]
            elif kind == "!":
                found += [(gold, answer, False) for gold in same for answer in answers]
        chosen += random_.sample(found, 3 * percent)
    return chosen


def theirs(rows):
    """Verdicts and seconds. Math-Verify is given what follows the thought, as its users do; it is warm, and has not
    seen these pairs, which it would remember."""
    for _ in range(20):
        verify(parse("$\\frac12$"), parse("\\boxed{0.5}"))
    start = time.perf_counter()
    verdicts = [verify(parse(f"${row['gold']}$"), parse(row["response"].split("</think>")[1])) for row in rows]
    return verdicts, time.perf_counter() - start


def main():
    thought = "Let me see: the number $a_{12}$ is at most 3, so that we have to try again. " * 400
    ratios, n_pairs, wrong, different = [], 0, [0, 0], []
    for seed in range(ROUNDS):
        chosen = pairs(seed)
        rows = [
            {"gold": gold, "response": f"<think>\n{thought}\n</think>\n\nSo it is $\\boxed{{{answer}}}$."}
            for gold, answer, _ in chosen
        ]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            their_verdicts, seconds = pool.apply(theirs, (rows,))
        their_rate = len(rows) / seconds
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            output = subprocess.run([sys.argv[1], file.name, "3"], capture_output=True, text=True, check=True)
        lines = output.stdout.splitlines()
        our_rate, our_verdicts = float(lines[0]), [line == "true" for line in lines[1:]]
        ratios.append(our_rate / their_rate)
        print(f"Math-Verify {their_rate:.1f} pairs/s, ours {our_rate:.0f} pairs/s: {ratios[-1]:.0f} times")
        n_pairs += len(chosen)
        for (gold, answer, expected), a, b in zip(chosen, their_verdicts, our_verdicts):
            wrong[0] += a != expected
            wrong[1] += b != expected
            if a != b:
                different.append(f"  gold {gold}  answer {answer}  correct {expected}  Math-Verify {a}  ours {b}")
    print(f"least ratio {min(ratios):.0f}; of {n_pairs} pairs otherwise than the table: Math-Verify {wrong[0]}, ours {wrong[1]}")
    print("\n".join(different))


if __name__ == "__main__":
    main()
