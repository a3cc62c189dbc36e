"""Writes the problems of pipelines/real/smollm2.toml.

    python scripts/real/problems.py BENCH_DIR OUT_DIR

BENCH_DIR holds singleop.jsonl, multiarith.jsonl (MAWPS: `input`, and `target` as a number), gsm8k_train_1000.jsonl and
gsm8k_test.jsonl (GSM8K: `question`, and `answer`, which is a whole solution that ends in `#### 18`). A recipe names one
pair of columns for all its prompts, so the two training sets are put into one layout here; OUT_DIR then holds

    train.jsonl           problem, answer, set: both training sets, each spread evenly over the file, so that a
                          `limit` takes from both in proportion
    multiarith.jsonl      problem, answer: all of it
    gsm8k_test_200.jsonl  problem, answer: the first 200

Answers are the bare number: `14` for 14.0, `1080` for `… #### 1,080`. A problem that stands in an earlier row is left out.
"""

import argparse
import json
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path

GSM8K_TEST = 200


def fail(problem: str) -> None:
    sys.exit(f"error: {problem}")


def number(text: str) -> str:
    """A number in its shortest form: no separators, no `.0`."""
    value = Decimal(text.replace(",", "").strip())
    if value == value.to_integral_value():
        return str(int(value))
    return format(value.normalize(), "f")


def read(path: Path, problem: str, answer: str) -> list[dict]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    found: dict[str, dict] = {}
    for row, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            text, gold = str(fields[problem]).strip(), str(fields[answer])
            gold = number(gold.rpartition("####")[2])
        except (ValueError, KeyError, TypeError, InvalidOperation) as error:
            fail(f"{path}, row {row}: no `{problem}` with a number in `{answer}` ({type(error).__name__}: {error})")
        found.setdefault(text, {"problem": text, "answer": gold})
    return list(found.values())


def spread(sets: dict[str, list[dict]]) -> list[dict]:
    """The rows of all sets, each set's rows evenly spaced, in an order that depends on the files alone."""
    placed = [
        ((index + 0.5) / len(rows), name, row | {"set": name}) for name, rows in sets.items() for index, row in enumerate(rows)
    ]
    return [row for _, _, row in sorted(placed, key=lambda place: place[:2])]


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} problems")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, metavar="BENCH_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    args = parser.parse_args()
    singleop = read(args.bench / "singleop.jsonl", "input", "target")
    gsm8k = read(args.bench / "gsm8k_train_1000.jsonl", "question", "answer")
    multiarith = read(args.bench / "multiarith.jsonl", "input", "target")
    gsm8k_test = read(args.bench / "gsm8k_test.jsonl", "question", "answer")
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "train.jsonl", spread({"singleop": singleop, "gsm8k": gsm8k}))
    write(args.out / "multiarith.jsonl", multiarith)
    write(args.out / f"gsm8k_test_{GSM8K_TEST}.jsonl", gsm8k_test[:GSM8K_TEST])


if __name__ == "__main__":
    main()
