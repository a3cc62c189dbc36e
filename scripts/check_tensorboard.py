"""Reads a run's TensorBoard files with TensorBoard's own reader and prints what is in them.

    python scripts/check_tensorboard.py RUN_DIR     (or its student/ folder)

Needs the `tensorboard` package. Every scalar is printed with its number of values and its first and last step. Where
`metrics.jsonl` stands beside the event files, each of its numbers must be there once, at its step: a resumed run's
files say the steps it did again only once. Exits with 1 where they differ.
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main(folder: Path) -> int:
    if (folder / "student").is_dir():
        folder = folder / "student"
    files = sorted(folder.glob("events.out.tfevents.*"))
    if not files:
        print(f"{folder}: no event files", file=sys.stderr)
        return 1
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    print(f"{len(files)} event file{'s' if len(files) > 1 else ''}, {len(tags)} scalars")
    found = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}
    for tag, values in found.items():
        print(f"{tag:34} {len(values):6} values, steps {values[0][0]} to {values[-1][0]}")

    metrics = folder / "metrics.jsonl"
    if not metrics.exists():
        return 0
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in metrics.read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in ("split", "step") and value is not None:
                expected.setdefault(f"{row['split']}/{name}", []).append((row["step"], value))
    wrong = []
    for tag in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get(tag, []), found.get(tag, [])
        same = len(ours) == len(theirs) and all(
            a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-6, abs_tol=1e-37) for a, b in zip(ours, theirs)
        )
        if not same:
            wrong.append(f"{tag}: {len(theirs)} values, {len(ours)} in metrics.jsonl")
    for problem in wrong:
        print(problem, file=sys.stderr)
    print("differs from metrics.jsonl" if wrong else "the same as metrics.jsonl")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
