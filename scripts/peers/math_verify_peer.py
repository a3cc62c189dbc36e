#!/usr/bin/env python3
"""Grades the same pairs with Math-Verify and with ours in alternation.

    pip install math-verify latex2sympy2_extended antlr4-python3-runtime==4.13.2
    cargo build --release -p stillroom-verify --example grade_pairs
    python scripts/peers/math_verify_peer.py target/release/examples/grade_pairs

The pairs come from crates/verify/tests/cases, an answer at the end of a response of 30 kB. Prints
pairs per second of both in each round, their ratio, and the pairs on which they differ.
"""

import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import time

from math_verify import parse, verify

ROUNDS = 3
PAIRS = 200


def pairs():
    """(gold, answer, whether it is correct) of the tables."""
    folder = os.path.join(os.path.dirname(__file__), "..", "..", "crates", "verify", "tests", "cases")
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "*.txt"))):
        same = []
        for line in open(path, encoding="utf-8"):
            kind, answers = line[:1], [part.strip() for part in line[1:].split(" | ")]
            if kind == "=":
                same = answers
                found += [(gold, answer, True) for gold in answers for answer in answers]
            elif kind == "!":
                found += [(gold, answer, False) for gold in same for answer in answers]
    return random.Random(7).sample(found, PAIRS)


def main():
    thought = "Let me see: the number $a_{12}$ is at most 3, so that we have to try again. " * 400
    chosen = pairs()
    rows = [
        {"gold": gold, "response": f"<think>\n{thought}\n</think>\n\nSo it is $\\boxed{{{answer}}}$."}
        for gold, answer, _ in chosen
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        theirs, ratios = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            # Math-Verify is given what follows the thought, as its users do.
            theirs = [
                verify(parse(f"${row['gold']}$"), parse(row["response"].split("</think>")[1])) for row in rows
            ]
            their_rate = len(rows) / (time.perf_counter() - start)
            output = subprocess.run([sys.argv[1], file.name, "3"], capture_output=True, text=True, check=True)
            lines = output.stdout.splitlines()
            our_rate, ours = float(lines[0]), [line == "true" for line in lines[1:]]
            ratios.append(our_rate / their_rate)
            print(f"Math-Verify {their_rate:.1f} pairs/s, ours {our_rate:.0f} pairs/s: {ratios[-1]:.0f} times")
    wrong = [sum(a != b for a, (_, _, b) in zip(verdicts, chosen)) for verdicts in (theirs, ours)]
    print(f"least ratio {min(ratios):.0f}; other than the table says: Math-Verify {wrong[0]}, ours {wrong[1]} of {PAIRS}")
    for (gold, answer, expected), a, b in zip(chosen, theirs, ours):
        if a != b:
            print(f"  gold {gold}  answer {answer}  correct {expected}  Math-Verify {a}  ours {b}")


if __name__ == "__main__":
    main()
