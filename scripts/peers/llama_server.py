"""Runs `gen-traces` against llama.cpp's own server, and compares what it wrote with transformers.

    pip install gguf pyarrow torch transformers
    cargo build --release --workspace --bin gen-traces
    python scripts/peers/llama_server.py build/bin/llama-server WORK_DIR [SCENARIO …]

The server is llama.cpp's `llama-server`; its source is also in `vendor/llama.cpp` of the llama-cpp-python source package:

    cmake -B build -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF \\
        -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF && cmake --build build --target llama-server

It serves data/arithmetic/teacher in f32 on loopback. Scenarios, all of them by default:

- sampled: 64 problems twice at T = 0.6 with the top 20, the design case.
- bytes: T = 4, where the teacher writes bytes that are parts of characters.
- greedy: T = 0; the ids are those of the candle teacher.
- plain: without top-k. cut: 16 tokens at most. few-entries: K beyond the vocabulary.
- too-long: a problem longer than the context beside one that fits: a refused row in the server's words.
- drafts: a server with speculative decoding, which gives no likeliest tokens: failed rows that say so.
- restarts: gen-traces starts before the server, which is killed in the middle and started again.

Prints one JSON object per scenario; ends with 1 where one fails.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
from compare_traces import compare

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TEACHER = ROOT / "data" / "arithmetic" / "teacher"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
SLOTS = 4
CONTEXT = 512
BOUND = 2e-3
# llama.cpp sums a softmax in f32 beginning with the likeliest token, to which one below 2^-24 adds nothing: this
# much of the mass outside the entries may be lost, and log-probabilities be as much too high.
LOST_MASS = json.loads((TEACHER / "config.json").read_text())["vocab_size"] * 2**-24


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, binary: Path, model: Path, log: Path):
        self.binary, self.model, self.log = binary, model, log
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *extra: str) -> None:
        """Flash attention sums in another order, and an f16 cache rounds. So small a model gains nothing by more threads."""
        exact = ["-ctk", "f32", "-ctv", "f32", "--flash-attn", "off"]
        size = ["-np", str(SLOTS), "-c", str(CONTEXT * SLOTS), "-t", "1"]
        command = [self.binary, "-m", self.model, "--host", "127.0.0.1", "--port", str(self.port), *size, *exact, *extra]
        with self.log.open("a") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)

    def wait(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            if self.process.poll() is not None:
                sys.exit(f"error: the server ended; see {self.log}")
            time.sleep(0.1)
        sys.exit(f"error: the server is not ready; see {self.log}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None


class Bench:
    def __init__(self, binary: Path, work: Path):
        self.work = work
        self.model = work / "teacher.gguf"
        subprocess.run([sys.executable, HERE / "arithmetic_gguf.py", TEACHER, self.model], check=True)
        (work / "server.log").unlink(missing_ok=True)
        self.server = Server(binary, self.model, work / "server.log")

    def recipe(self, name: str, generate: dict, source: Path | None = None, limit: int = 64, backend: str = "openai") -> Path:
        teacher = f'backend = "candle"\nmodel = "{TEACHER}"'
        if backend == "openai":
            teacher = (
                f'backend = "openai"\ndialect = "llamacpp"\nmodel = "teacher"\ntokenizer = "{TEACHER}"\n'
                f'endpoints = ["{self.server.url}/v1"]\nretry = {{ attempts = 8, pause = 0.2, longest_pause = 2 }}'
            )
        options = {
            "samples_per_prompt": 2, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 128, "top_k_logits": 20, "concurrency": 16,
        } | generate  # fmt: skip
        path = self.work / f"{name}.toml"
        path.write_text(
            f'name = "{name}"\nseed = 7\n[prompts]\nsource = "{source or ROOT / "data/arithmetic/train.jsonl"}"\n'
            f'limit = {limit}\ntemplate = "{{problem}}"\n[teacher]\n{teacher}\n[generate]\n'
            + "".join(f"{key} = {value}\n" for key, value in options.items())
        )
        return path

    def command(self, name: str, recipe: Path) -> tuple[list[str], Path]:
        run = self.work / name
        shutil.rmtree(run, ignore_errors=True)
        return [str(TARGET / "gen-traces"), str(recipe), "--run-dir", str(run), "--quiet"], run / "traces"

    def gen_traces(self, name: str, code: int = 0, **recipe) -> Path:
        command, traces = self.command(name, self.recipe(name, **recipe))
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code, f"gen-traces ended with {done.returncode}, not {code}:\n{done.stderr}"
        return traces


def rows(traces: Path) -> list[dict]:
    return [row for part in sorted(traces.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def compared(traces: Path, expected_rows: int) -> dict:
    found = compare(traces, TEACHER, BOUND, math.log(LOST_MASS / BOUND))
    assert not found.problems, found.problems[:5]
    assert found.largest["tail_mass"] <= 2 * LOST_MASS, found.largest
    assert found.counts["rows"] == expected_rows, found.counts
    return found.figures()


def sampled(bench: Bench) -> dict:
    found = compared(bench.gen_traces("sampled", generate={}), 128)
    assert found["counts"]["tokens without a log-probability"] == 0, found
    return found


def bytes_(bench: Bench) -> dict:
    traces = bench.gen_traces("bytes", generate={"temperature": 4.0, "top_p": 1.0})
    found = compared(traces, 128)
    assert found["counts"]["tokens without a log-probability"] > 0, "no token ended inside a character"
    return found


def greedy(bench: Bench) -> dict:
    options = {"generate": {"temperature": 0.0, "samples_per_prompt": 1}, "limit": 64}
    served = bench.gen_traces("greedy", **options)
    local = bench.gen_traces("greedy-candle", backend="candle", **options)
    ids = [{row["prompt_id"]: row["token_ids"] for row in rows(traces)} for traces in (served, local)]
    same = sum(ids[0][prompt] == ids[1][prompt] for prompt in ids[1])
    return compared(served, 64) | {"completions equal to candle's": f"{same} of {len(ids[1])}"}


def plain(bench: Bench) -> dict:
    traces = bench.gen_traces("plain", generate={"top_k_logits": 0, "samples_per_prompt": 1}, limit=16)
    found = compared(traces, 16)
    assert found["counts"]["rows without log-probabilities"] == 16, found
    assert all(row["top_ids"] is None for row in rows(traces))
    return found


def cut(bench: Bench) -> dict:
    traces = bench.gen_traces("cut", generate={"max_new_tokens": 16, "samples_per_prompt": 1}, limit=16)
    assert all((row["finish_reason"], len(row["token_ids"])) == ("length", 16) for row in rows(traces))
    return compared(traces, 16)


def few_entries(bench: Bench) -> dict:
    traces = bench.gen_traces("few-entries", generate={"top_k_logits": 500, "samples_per_prompt": 1}, limit=16)
    found = compared(traces, 16)
    return found | {"most entries of a position": max(max(row["top_counts"] or [row["top_k"]]) for row in rows(traces))}


def too_long(bench: Bench) -> dict:
    source = bench.work / "too-long.jsonl"
    problems = ["Start with 226. A: add 10. What results?", "Start with 226. " + "A: add 10. " * 200]
    source.write_text("".join(json.dumps({"problem": problem, "answer": "236"}) + "\n" for problem in problems))
    traces = bench.gen_traces("too-long", code=1, generate={"samples_per_prompt": 1}, source=source, limit=2)
    errors = [row["error"] for row in rows(traces)]
    assert errors.count(None) == 1 and any("context size" in (error or "") for error in errors), errors
    return compared(traces, 2) | {"error": next(error for error in errors if error)}


def drafts(bench: Bench) -> dict:
    bench.server.stop()
    sizes = ["--spec-ngram-simple-size-n", "2", "--spec-ngram-simple-size-m", "4", "--spec-ngram-simple-min-hits", "1"]
    bench.server.start("--spec-type", "ngram-simple", *sizes)
    bench.server.wait()
    try:
        recipe = {"generate": {"samples_per_prompt": 1, "temperature": 0.0, "max_new_tokens": 200}, "limit": 8}
        command, traces = bench.command("drafts", bench.recipe("drafts", **recipe))
        done = subprocess.run(command, capture_output=True, text=True)
        errors = [row["error"] for row in rows(traces) if row["error"]]
        assert errors and all("speculative decoding" in error for error in errors), errors
        return compared(traces, 8) | {"exit code": done.returncode, "rows that say so": len(errors)}
    finally:
        bench.server.stop()
        bench.server.start()
        bench.server.wait()


def restarts(bench: Bench) -> dict:
    bench.server.stop()
    command, traces = bench.command("restarts", bench.recipe("restarts", generate={"concurrency": 4}, limit=128))
    generation = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    bench.server.start()
    killed_at: list[int] = []
    while generation.poll() is None:
        status = subprocess.run([*command, "--status"], capture_output=True, text=True)
        found = re.search(r"(\d+) of 256 samples", status.stdout + status.stderr)
        done = int(found[1]) if found else 0
        if done > 64 * (len(killed_at) + 1) and len(killed_at) < 2:
            bench.server.stop(signal.SIGKILL)
            killed_at.append(done)
            time.sleep(1)
            bench.server.start()
        time.sleep(0.1)
    bench.server.wait()
    assert generation.returncode == 0, generation.stderr.read()
    assert len(killed_at) == 2 and killed_at[1] < 256, killed_at
    return compared(traces, 256) | {"done when the server was killed": killed_at}


SCENARIOS = {
    "sampled": sampled, "bytes": bytes_, "greedy": greedy, "plain": plain, "cut": cut, "few-entries": few_entries,
    "too-long": too_long, "drafts": drafts, "restarts": restarts,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", type=Path, metavar="SERVER_BINARY")
    parser.add_argument("work", type=Path, metavar="WORK_DIR")
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.server.resolve(), args.work.resolve())
    bench.server.start()
    failed = False
    try:
        bench.server.wait()
        for name in args.scenarios or SCENARIOS:
            clock = time.monotonic()
            try:
                found = SCENARIOS[name](bench)
            except AssertionError as problem:
                failed, found = True, {"failed": str(problem)}
            print(json.dumps({"scenario": name, "seconds": round(time.monotonic() - clock, 1)} | found), flush=True)
    finally:
        bench.server.stop()
    sys.exit(failed)


if __name__ == "__main__":
    main()
