#!/usr/bin/env python3
"""Measures sampling by our own decoder beside transformers' `generate` and llama.cpp's server, on the CPU in f32.

    pip install torch transformers
    cargo build --release --workspace --bin gen-traces
    python scripts/bench/decode.py CHECKPOINT CHECKPOINT.F32.gguf llama-server [--prompts 16] [--tokens 512] [--pairs 3]

Each side makes the same number of completions of exactly that many tokens at once, from the same prompts, by sampling at
T = 1. No sequence ends by itself: transformers and llama.cpp are told so, our side gets the checkpoint with another end.
Sides run in alternation, as processes
of their own; peak RSS is what the kernel says. The time of loading is measured by itself, with one token, and taken off.
Prints one JSON object per run, and the medians of tokens per second.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PORT = 8351
WORDS = "one two three four five six seven eight nine ten apples pears plums figs dates limes".split()


def prompt(i):
    return f"Count the {WORDS[i % len(WORDS)]} in basket {i}, step by step:"


def process(command, **options):
    """Runs a command; its seconds and its peak RSS in MiB."""
    clock = time.monotonic()
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command} ended with {child.returncode}: {error.decode()[-2000:]}")
    return time.monotonic() - clock, usage.ru_maxrss / 1024


def endless(checkpoint, work):
    """The checkpoint with a chat template that ends no turn, and the last id of the vocabulary as the end of sequence."""
    folder = work / "endless"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in checkpoint.resolve().iterdir():
        if path.name != "generation_config.json":
            (folder / path.name).symlink_to(path)
    config = json.loads((checkpoint / "config.json").read_text())
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast",
                 "chat_template": "{{ messages[-1].content }}{% if add_generation_prompt %}\n{% endif %}"}
    for name, content in (("config.json", config | {"eos_token_id": config["vocab_size"] - 1}), ("tokenizer_config.json", tokenizer)):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def ours(arguments, work, tokens):
    rows = "".join(json.dumps({"problem": prompt(i), "answer": "1"}) + "\n" for i in range(arguments.prompts))
    (work / "problems.jsonl").write_text(rows)
    (work / "recipe.toml").write_text(f"""name = "decode"
[prompts]
source = "{work}/problems.jsonl"
template = "{{problem}}"
[teacher]
model = "{endless(arguments.checkpoint, work)}"
[generate]
samples_per_prompt = 1
temperature = 1.0
top_p = 1.0
max_new_tokens = {tokens}
top_k_logits = 0
concurrency = {arguments.prompts}
""")
    shutil.rmtree(work / "run", ignore_errors=True)
    command = [arguments.gen_traces, work / "recipe.toml", "--run-dir", work / "run", "--quiet"]
    seconds, rss = process(command)
    status = json.loads((work / "run/traces/manifest.json").read_text())
    return seconds, rss, status["tokens"]["completion"]


PEER = """
import sys, torch, transformers
folder, n, tokens, words = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
torch.manual_seed(0)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer.padding_side = "left"
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
batch = tokenizer(words[:n], return_tensors="pt", padding=True)
with torch.inference_mode():
    out = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_new_tokens=tokens, max_new_tokens=tokens)
assert out.shape[1] == batch["input_ids"].shape[1] + tokens
"""


def transformers(arguments, work, tokens):
    prompts = [prompt(i) for i in range(arguments.prompts)]
    command = [sys.executable, "-c", PEER, arguments.checkpoint, arguments.prompts, tokens, *prompts]
    seconds, rss = process(command, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return seconds, rss, arguments.prompts * tokens


def llama(arguments, work, tokens):
    context = arguments.prompts * (arguments.tokens + 64)
    command = [arguments.server, "-m", arguments.gguf, "--port", str(PORT), "-c", str(context), "-np", str(arguments.prompts),
               "-t", "2", "-tb", "2", "-b", "512", "--no-webui"]
    clock = time.monotonic()
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{PORT}"
    try:
        while True:
            try:
                with urllib.request.urlopen(url + "/health", timeout=2) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                if server.poll() is not None:
                    sys.exit(f"llama-server ended with {server.returncode}")
            time.sleep(0.05)

        def ask(i):
            body = {"prompt": prompt(i), "n_predict": tokens, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
                    "ignore_eos": True, "seed": i, "cache_prompt": False}
            request = urllib.request.Request(url + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=3600) as answer:
                return json.loads(answer.read())["tokens_predicted"]

        with ThreadPoolExecutor(arguments.prompts) as pool:
            n = sum(pool.map(ask, range(arguments.prompts)))
        seconds = time.monotonic() - clock
    finally:
        server.terminate()
        _, _, usage = os.wait4(server.pid, 0)
        server.returncode = 0
    return seconds, usage.ru_maxrss / 1024, n


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("server", type=Path)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=3)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--gen-traces", type=Path, default=target / "release/gen-traces")
    parser.add_argument("--work", type=Path, default=Path("decode-work"))
    parser.add_argument("--sides", default="ours,transformers,llama")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = arguments.work.resolve()
    sides = [globals()[name] for name in arguments.sides.split(",")]
    loading = {side.__name__: side(arguments, work, 1)[0] for side in sides}
    rates = {side.__name__: [] for side in sides}
    for pair in range(arguments.pairs):
        for side in sides if pair % 2 == 0 else reversed(sides):
            seconds, rss, tokens = side(arguments, work, arguments.tokens)
            rate = tokens / (seconds - loading[side.__name__])
            rates[side.__name__].append(rate)
            print(json.dumps({"side": side.__name__, "tokens": tokens, "seconds": round(seconds, 2), "loading": round(loading[side.__name__], 2),
                              "tokens_per_second": round(rate, 1), "rss_mib": round(rss)}), flush=True)
    print(json.dumps({name: round(statistics.median(values), 1) for name, values in rates.items()}))


if __name__ == "__main__":
    main()
