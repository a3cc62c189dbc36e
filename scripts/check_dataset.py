#!/usr/bin/env python3
"""Reads a dataset folder with `datasets`, `polars` and `pyarrow`, as a stranger to this project would.

    pip install datasets==5.2.0 pyarrow==26.0.1 polars
    python scripts/check_dataset.py DATASET_DIR

Checks that `datasets.load_dataset` finds the splits that stats.json counts, through the card
alone; that lists of float16 survive; that ids, log-probabilities and top-k entries have the
lengths they must have; that every row of the files is one row there; that every column has the name and
type of the documented row. Prints the features and one line per split, and ends with exit code 1 at
the first difference.
"""

import glob
import json
import os
import sys
import tempfile

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset


TEXT, FLOAT, COUNT = pa.string(), pa.float32(), pa.uint32()
ROW = {
    "id": TEXT, "prompt_id": TEXT, "sample_index": COUNT,
    "messages": pa.list_(pa.struct([("role", TEXT), ("content", TEXT)])),
    "prompt_token_ids": pa.list_(COUNT), "token_ids": pa.list_(COUNT), "token_logprobs": pa.list_(FLOAT),
    "top_k": pa.uint16(), "top_ids": pa.list_(COUNT), "top_logprobs": pa.list_(pa.float16()),
    "tail_logprobs": pa.list_(FLOAT), "top_counts": pa.list_(pa.uint16()), "logprob_space": TEXT, "temperature": FLOAT,
    "teacher": TEXT, "finish_reason": TEXT, "n_tokens": COUNT, "source": TEXT, "gold_answer": TEXT, "verdict": TEXT,
    "pass_rate": FLOAT,
    "quality": pa.struct([
        ("repetition", FLOAT), ("truncated", pa.bool_()), ("exact_duplicate", pa.bool_()), ("contaminated_by", TEXT),
        ("loop_repeats", COUNT), ("think_format", TEXT), ("language", TEXT), ("language_mix", FLOAT),
        ("code_blocks", COUNT), ("longest_paragraph", COUNT), ("mean_logprob", FLOAT), ("judge_verdict", TEXT),
        ("near_duplicate_problem", TEXT), ("near_duplicate_of", TEXT),
    ]),
}


def check_schema(name, schema):
    expected = dict(ROW, **({"reject_reason": TEXT} if name == "rejected" else {}))
    check(schema.names == list(expected), f"{name}: the columns are {schema.names}")
    for column, kind in expected.items():
        field = schema.field(column)
        check(field.type.equals(kind), f"{name}: {column} is {field.type}, not {kind}")
        required = column in ("id", "messages", "reject_reason")
        check(field.nullable != required, f"{name}: {column} is nullable: {field.nullable}")


def check_polars(name, files, expected):
    frame = pl.scan_parquet(files)
    rows = frame.group_by("verdict").len().collect()
    check(rows["len"].sum() == expected, f"{name}: polars has {rows['len'].sum()} rows")
    lengths = frame.select(pl.col("messages").list.len().min(), pl.col("quality").struct.field("repetition").max())
    print(f"{name}, polars: {dict(rows.rows())} by verdict; {lengths.collect().rows()[0]} turns, repetition")


def check(condition, message):
    if not condition:
        sys.exit(f"check_dataset: {message}")


def check_row(name, row):
    ids = row["token_ids"]
    if ids is not None and row["token_logprobs"] is not None:
        check(len(row["token_logprobs"]) == len(ids), f"{name} {row['id']}: token_logprobs")
    if row["top_ids"] is not None:
        counts = row["top_counts"]
        entries = sum(counts) if counts is not None else row["top_k"] * len(ids)
        check(len(row["top_ids"]) == entries, f"{name} {row['id']}: {len(row['top_ids'])} top_ids, not {entries}")
        check(len(row["top_logprobs"]) == entries, f"{name} {row['id']}: top_logprobs")
        check(len(row["tail_logprobs"]) == len(ids), f"{name} {row['id']}: tail_logprobs")
        check(all(p <= 1e-3 for p in row["top_logprobs"]), f"{name} {row['id']}: a positive log-probability")
    roles = [message["role"] for message in row["messages"]]
    check("reject_reason" in row or roles[-1] == "assistant", f"{name} {row['id']}: roles {roles}")


def check_split(folder, name, split, expected):
    check(len(split) == expected, f"{name}: {len(split)} rows, stats.json says {expected}")
    folder_of = "rejected" if name == "rejected" else "data"
    files = sorted(glob.glob(os.path.join(folder, folder_of, f"{name}-*.parquet")))
    # float16 lists through pyarrow alone, before `datasets` has cast anything.
    tables = [pq.read_table(file) for file in files]
    check(sum(table.num_rows for table in tables) == expected, f"{name}: rows in the files")
    for table in tables:
        check_schema(name, table.schema.remove_metadata())
    check_polars(name, files, expected)
    kind = str(tables[0].schema.field("top_logprobs").type)
    check("halffloat" in kind, f"{name}: top_logprobs is {kind}")
    keys = [(row["prompt_id"], row["sample_index"]) for row in split.select_columns(["prompt_id", "sample_index"])]
    check(keys == sorted(keys), f"{name}: not sorted by (prompt_id, sample_index)")
    check(len(set(keys)) == len(keys), f"{name}: a trace stands there twice")
    start = 0
    for table in tables:
        for at, row in enumerate(table.select(["id", "token_ids", "top_logprobs"]).to_pylist()):
            there = split[start + at]
            check(there["id"] == row["id"], f"{name}: row {start + at} is {there['id']}, not {row['id']}")
            check(there["token_ids"] == row["token_ids"], f"{name} {row['id']}: other token_ids")
            check(there["top_logprobs"] == row["top_logprobs"], f"{name} {row['id']}: other top_logprobs")
            check_row(name, there)
        start += table.num_rows
    print(f"{name}: {len(split)} rows, {len(files)} files, {sum(len(r or []) for r in split['token_ids'])} token ids")
    return {prompt for prompt, _ in keys}


def main():
    check(len(sys.argv) == 2, "usage: check_dataset.py DATASET_DIR")
    folder = sys.argv[1]
    with open(os.path.join(folder, "stats.json"), encoding="utf-8") as file:
        stats = json.load(file)
    counted = {name: stats[name] for name in ("train", "validation", "rejected")}
    check(sum(counted.values()) == stats["traces"], f"{counted} do not add up to {stats['traces']} traces")
    # A cache of its own: a folder of the same name may have been read before.
    with tempfile.TemporaryDirectory() as cache:
        splits = dict(load_dataset(folder, cache_dir=cache))
        if counted["rejected"]:
            splits.update(load_dataset(folder, "rejected", cache_dir=cache))
        present = {name for name, rows in counted.items() if rows}
        check(set(splits) == present, f"splits {sorted(splits)}, stats.json has rows in {sorted(present)}")
        print("features:", splits["train"].features)
        prompts = {name: check_split(folder, name, split, counted[name]) for name, split in splits.items()}
    shared = prompts.get("train", set()) & prompts.get("validation", set())
    check(not shared, f"{len(shared)} prompts are in train and in validation")
    print("check_dataset: ok")


if __name__ == "__main__":
    main()
