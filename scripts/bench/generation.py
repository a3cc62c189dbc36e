#!/usr/bin/env python3
"""Measures `gen-traces` against openai's Python client: the same answers of a server that answers at once.

    pip install openai
    cargo build --release --workspace --bin gen-traces --example loopback_server
    python scripts/bench/generation.py [--requests 2000] [--concurrency 512] [--pairs 3]

Ours keeps every answer durable in the journal and seals it into Parquet; the peer writes lines of JSON. Both are
processes of their own, in alternation; CPU time and peak RSS are what the kernel says. Prints one JSON object per run
and the medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def measure(command):
    clock = time.monotonic()
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command} ended with {child.returncode}")
    return {"seconds": time.monotonic() - clock, "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "rss_mib": usage.ru_maxrss / 1024}


def recipe(folder, url, requests, concurrency):
    samples = -(-requests // 500)
    text = f"""name = "loopback"
[prompts]
source = "{ROOT / 'data/arithmetic/train.jsonl'}"
limit = {requests // samples}
[teacher]
backend = "openai"
dialect = "vllm"
model = "served"
endpoints = ["{url}"]
tokenizer = "{ROOT / 'data/arithmetic/teacher'}"
[generate]
samples_per_prompt = {samples}
max_new_tokens = 2000
top_k_logits = 20
concurrency = {concurrency}
"""
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "generation")
    parser.add_argument("--ours-only", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen([target / "examples" / "loopback_server", str(args.tokens), "20"], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        runs = {"ours": [], "peer": []}
        for pair in range(args.pairs):
            sides = ["ours"] if args.ours_only else ["ours", "peer"]
            for side in sides if pair % 2 == 0 else reversed(sides):
                if side == "ours":
                    run_dir = args.out / "run"
                    shutil.rmtree(run_dir, ignore_errors=True)
                    path = recipe(args.out, url, args.requests, args.concurrency)
                    found = measure([target / "gen-traces", path, "--run-dir", run_dir, "--quiet"])
                    parts = list((run_dir / "traces").glob("part-*.parquet"))
                    rows = json.loads((run_dir / "traces" / "manifest.json").read_text())["counts"]["done"]
                    found["bytes_per_token"] = sum(part.stat().st_size for part in parts) / (rows * args.tokens)
                else:
                    out = args.out / "peer.jsonl"
                    rows = args.requests
                    command = [sys.executable, HERE / "generation_peer.py", url, rows, args.concurrency, out]
                    found = measure(command)
                    found["bytes_per_token"] = out.stat().st_size / (rows * args.tokens)
                    out.unlink()
                found |= {"side": side, "requests": rows, "requests_per_second": rows / found["seconds"],
                          "requests_per_cpu_second": rows / found["cpu_seconds"]}
                runs[side].append(found)
                print(json.dumps(found), flush=True)
    finally:
        server.kill()
    for side, found in runs.items():
        if found:
            print(side, {key: round(statistics.median(run[key] for run in found), 3)
                         for key in ("requests_per_second", "requests_per_cpu_second", "rss_mib", "bytes_per_token")})


if __name__ == "__main__":
    main()
