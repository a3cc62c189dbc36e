#!/usr/bin/env python3
"""A long run in small: `gen-traces` against a server that fails, watched from outside.

    cargo build --release --workspace --bin gen-traces --example fault_server
    python3 scripts/bench/endurance.py [--minutes 30] [--per-minute 6000]

Every ten seconds: the process's RSS, the journal's size, rows kept, and what `gen-traces --status` says, which reads
beside the writer. Prints a line a minute, and at the end the first and the last third of the run against each other.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--per-minute", type=int, default=6000)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "endurance")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    server = subprocess.Popen([target / "examples" / "fault_server", "0.2", str(args.tokens)], stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().strip()
    data = ROOT / "data" / "arithmetic"
    # More than can be asked for: the run is stopped by its time.
    recipe = args.out / "recipe.toml"
    recipe.write_text(f"""name = "endurance"
[prompts]
source = "{data}/train.jsonl"
limit = 512
[teacher]
backend = "openai"
dialect = "vllm"
model = "served"
endpoints = ["{url}"]
tokenizer = "{data}/teacher"
requests_per_minute = {args.per_minute}
[teacher.retry]
pause = 0.05
longest_pause = 1
first_byte = 1
idle = 1
[generate]
samples_per_prompt = {max(1, int(2 * args.minutes * args.per_minute / 512))}
max_new_tokens = 1024
top_k_logits = 20
concurrency = 256
""")
    run = args.out / "run"
    command = [target / "gen-traces", recipe, "--run-dir", run]
    child = subprocess.Popen([*command, "--quiet"])
    traces, points, start = run / "traces", [], time.monotonic()
    try:
        while time.monotonic() - start < args.minutes * 60 and child.poll() is None:
            time.sleep(10)
            status = subprocess.run([*command, "--status"], capture_output=True, text=True)
            try:
                rss = next(line for line in open(f"/proc/{child.pid}/status") if line.startswith("VmRSS"))
                state = json.loads((traces / "status.json").read_text())
            except (OSError, StopIteration, json.JSONDecodeError):
                continue
            journal = sum(path.stat().st_size for path in traces.glob("journal.sqlite*"))
            points.append({"seconds": time.monotonic() - start, "rss_mib": int(rss.split()[1]) / 1024,
                           "journal_mib": journal / (1 << 20), "rows": state["done"] + state["failed"],
                           "status_ok": status.returncode == 0})
            if len(points) % 6 == 0:
                print(json.dumps({key: round(value, 1) for key, value in points[-1].items()}), flush=True)
    finally:
        child.send_signal(signal.SIGTERM)
        code = child.wait()
        server.kill()
    (args.out / "points.json").write_text(json.dumps(points))
    third = len(points) // 3
    for name, part in (("first third", points[:third]), ("last third", points[-third:])):
        rate = (part[-1]["rows"] - part[0]["rows"]) / (part[-1]["seconds"] - part[0]["seconds"])
        print(f"{name}: {rate:.1f} rows/s, RSS {statistics.mean(p['rss_mib'] for p in part):.0f} MiB "
              f"(most {max(p['rss_mib'] for p in part):.0f}), journal {statistics.mean(p['journal_mib'] for p in part):.0f} MiB "
              f"(most {max(p['journal_mib'] for p in part):.0f})")
    print(f"status read {sum(p['status_ok'] for p in points)} of {len(points)} times; ended with {code}")


if __name__ == "__main__":
    main()
