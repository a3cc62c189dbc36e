#!/usr/bin/env python3
"""See scripts/gpu-check.sh."""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "bench")]

from make_shape import SPECIALS, tokenizer  # noqa: E402
from shapes import SHAPES, flops_per_token, peak_tflops, token  # noqa: E402

GIB = 1 << 30
# Of the losses of a run beside the CPU's in f32, relative; bf16 rounds activations and weights to eight bits.
CURVE_BOUNDS = {"f32": 2e-4, "bf16": 2e-2}
CURVE_STEPS = 12


class Runner:
    def __init__(self, args):
        self.binaries, self.out, self.end = args.bin_dir, args.out_dir, time.monotonic() + args.minutes * 60
        self.failures = []

    def left(self):
        return self.end - time.monotonic()

    def run(self, name, command, most=150):
        """stdout of a child, and whether it ended well; it is stopped after `most` seconds, or when the time is up."""
        log = self.out / f"{name}.log"
        with open(log, "wb") as err:
            child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=err, text=True)
            try:
                stdout, _ = child.communicate(timeout=max(1.0, min(most, self.left())))
            except subprocess.TimeoutExpired:
                child.kill()
                stdout, _ = child.communicate()
                print(f"{name}: stopped, its time is up", flush=True)
                return stdout, False
        if child.returncode != 0:
            tail = log.read_text(errors="replace").strip().splitlines()[-3:]
            print(f"{name}: ended with {child.returncode}: {' | '.join(tail)}", flush=True)
        return stdout, child.returncode == 0


def objects(text):
    """The JSON objects of a child's lines; the last may be torn."""
    found = []
    for line in text.splitlines():
        try:
            found += [json.loads(line)] if line.startswith("{") else []
        except json.JSONDecodeError:
            pass
    return found


def machine():
    """The card and its driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        line = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return {"card": "none", "driver": "none", "memory": "none"}
    return dict(zip(("card", "driver", "memory"), (word.strip() for word in line.split(","))))


def ops(runner):
    path = runner.out / "ops.json"
    stdout, ended = runner.run("ops", [runner.binaries / "gpu_check", "ops", "--json", path], most=90)
    (runner.out / "ops.out").write_text(stdout)
    far = [line for line in stdout.splitlines() if line.startswith("FAR")]
    results = json.loads(path.read_text()) if path.is_file() else []
    worst = {dtype: max((r["error"] for r in results if r["dtype"] == dtype), default=None) for dtype in ("f32", "bf16")}
    print(f"ops: {len(results)} values compared, {len(far)} too far off; worst {worst}", *far, sep="\n  ", flush=True)
    if not ended or far:
        runner.failures.append("ops")
    return {"compared": len(results), "far": far, "worst": worst}


def curve_shape(folder, changes):
    """A model folder without weights, and rows of many lengths."""
    (folder / "model").mkdir(parents=True)
    config = SHAPES["tiny"] | {"eos_token_id": SHAPES["tiny"]["vocab_size"] - 1} | changes
    vocab = config["vocab_size"]
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "model" / "tokenizer.json").write_text(json.dumps(tokenizer(vocab), ensure_ascii=False))
    template = "{% for message in messages %}{{ message.content }}<|im_end|>{% endfor %}"
    settings = {"eos_token": SPECIALS[-1], "chat_template": template}
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for row in range(32):
            # Mostly a short word over and over, so that there is something to learn.
            ids = [token(row, i % 7 + row, vocab - 8) for i in range(20 + row * 37 % 180)]
            file.write(json.dumps({"id": str(row), "prompt_token_ids": ids[:9], "token_ids": ids[9:]}) + "\n")
    recipe = f"""name = "gpu-curve"
seed = 3
[student]
config = "{folder / 'model'}"
init = "random"
[train]
data = "{folder / 'rows.jsonl'}"
max_steps = {CURVE_STEPS}
learning_rate = 5e-3
batch_size = 8
micro_batch_tokens = 512
schedule = "constant"
warmup_ratio = 0.0
"""
    (folder / "recipe.toml").write_text(recipe)


# Name, changes of the model, settings.
CURVES = [
    ("lora", {}, {"lora.rank": 16}),
    ("qwen3", {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32}, {"lora.dropout": 0.1}),
    ("full", {"tie_word_embeddings": False}, {"method": "full", "learning_rate": 2e-3}),
]


def train_command(runner, folder, run_dir, settings, device):
    command = [runner.binaries / "train-student", folder / "recipe.toml", "--run-dir", run_dir, "--quiet", "--device", device]
    for key, value in settings.items():
        command += ["--set", f"train.{key}={json.dumps(value)}"]
    return command


def read_curve(run_dir):
    metrics = run_dir / "student" / "metrics.jsonl"
    lines = objects(metrics.read_text()) if metrics.is_file() else []
    return [(line["loss"] or float("nan"), line["grad_norm"]) for line in lines if line["split"] == "train"]


def curve(runner):
    root = (runner.out / "curve").absolute()
    shutil.rmtree(root, ignore_errors=True)
    result = {"losses": {}, "worst": {}}

    def compare(name, found, reference, bound):
        whole = len(found) == len(reference) == CURVE_STEPS
        worst = max((abs(a[0] - b[0]) / b[0] for a, b in zip(found, reference)), default=float("inf"))
        # A NaN is in no order with anything.
        ok = whole and all(abs(a[0] - b[0]) / b[0] <= bound for a, b in zip(found, reference))
        result["losses"][name], result["worst"][name] = found, worst
        ends = f"loss {found[0][0]:.4f} → {found[-1][0]:.4f}" if found else "no steps"
        print(f"curve {name}: {ends}, at most {worst:.1e} from the CPU's (asked {bound:.0e}){'' if ok else '  FAR'}", flush=True)
        if not ok:
            runner.failures.append(f"curve {name}")

    for shape, changes, settings in CURVES:
        folder = root / shape
        curve_shape(folder, changes)

        def run(name, device, **more):
            run_dir = folder / name
            runner.run(f"curve-{shape}-{name}", train_command(runner, folder, run_dir, settings | more, device), most=60)
            return read_curve(run_dir)

        reference = run("cpu", "cpu")
        result["losses"][f"{shape} cpu"] = reference
        found = run("f32", "cuda")
        compare(f"{shape} f32", found, reference, CURVE_BOUNDS["f32"])
        compare(f"{shape} bf16", run("bf16", "cuda", precision="bf16"), reference, CURVE_BOUNDS["bf16"])
        checkpointed = run("checkpointed", "cuda", precision="bf16", activation_checkpointing=True)
        compare(f"{shape} bf16, checkpointing", checkpointed, reference, CURVE_BOUNDS["bf16"])
        if shape == "lora":
            compare("lora f32, stopped and resumed", resumed(runner, folder, settings), found, CURVE_BOUNDS["f32"])
    return result


def resumed(runner, folder, settings):
    """The curve of a run that is stopped in its middle and started again."""
    run_dir = folder / "resumed"
    command = [str(word) for word in train_command(runner, folder, run_dir, settings, "cuda")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(read_curve(run_dir)) < CURVE_STEPS // 3 and runner.left() > 0:
        time.sleep(0.02)
    child.terminate()
    try:
        child.wait(timeout=30)
    except subprocess.TimeoutExpired:
        child.kill()
    if len(read_curve(run_dir)) >= CURVE_STEPS:
        print("curve lora: the run ended before it could be stopped: resuming is not tested", flush=True)
    runner.run("curve-lora-resumed", command, most=60)
    return read_curve(run_dir)


def speed(lines):
    """(median tokens/s after the first step, peak bytes, first loss) of one run's steps."""
    steps = [line for line in lines if "step" in line]
    if len(steps) < 2:
        return None
    seconds = statistics.median(line["seconds"] for line in steps[1:])
    tokens = steps[0].get("tokens") or steps[0]["n_tokens"]
    return {"tokens_per_second": tokens / seconds, "peak_memory_bytes": steps[-1]["peak_memory_bytes"],
            "first_loss": steps[0]["loss"], "steps": len(steps)}


def throughput(runner, shapes, card):
    peak = peak_tflops(card)
    rows, versions = [], None
    for shape in shapes:
        config = runner.out / f"{shape}.json"
        config.write_text(json.dumps(SHAPES[shape]))
        lengths = [(64, 3), (128, 3)] if shape == "tiny" else runner.lengths
        sides = [("ours", False), ("ours, checkpointing", True), ("torch, checkpointing", True)]
        for side, checkpointing in sides:
            runs = [(tokens, steps) for tokens, steps in lengths if checkpointing or tokens <= 8192]
            listed = ",".join(f"{tokens}:{steps}" for tokens, steps in runs)
            if side.startswith("ours"):
                command = [runner.binaries / "gpu_check", "throughput", "--config", config, "--runs", listed]
                command += ["--checkpointing"] if checkpointing else []
            else:
                command = [sys.executable, HERE / "torch_peer.py", config, "--runs", listed]
                command += ["--device", "cpu"] if shape == "tiny" else []
            if runner.left() < 20:
                print(f"{shape} {side}: not begun, the time is up", flush=True)
                continue
            stdout, _ = runner.run(f"throughput-{shape}-{side.replace(', ', '-')}", command)
            lines = objects(stdout)
            versions = next((line for line in lines if "torch" in line), versions)
            for tokens, _ in runs:
                found = [line for line in lines if line.get("tokens", line.get("n_tokens")) == tokens]
                row = {"shape": shape, "side": side, "tokens": tokens, **(speed(found) or {})}
                row["out_of_memory"] = any(line.get("out_of_memory") for line in found)
                if "tokens_per_second" in row and peak:
                    flops = flops_per_token(SHAPES[shape], tokens) * row["tokens_per_second"]
                    row["mfu"] = flops / (peak * 1e12)
                rows.append(row)
                print(describe(row), flush=True)
    return {"rows": rows, "versions": versions, "peak_tflops": peak}


def describe(row):
    start = f"{row['shape']:>5} T={row['tokens']:<6} {row['side']:<21}"
    if "tokens_per_second" not in row:
        return f"{start} {'out of memory' if row['out_of_memory'] else 'not measured'}"
    memory = row["peak_memory_bytes"]
    memory = f"{memory / GIB:8.2f} GiB" if memory else "       -    "
    mfu = f"{100 * row['mfu']:5.1f} %" if "mfu" in row else "    -  "
    loss = "NaN" if row["first_loss"] is None else f"{row['first_loss']:.3f}"
    return f"{start} {row['tokens_per_second']:10.0f} tokens/s {memory}  MFU {mfu}  first loss {loss}"


def main():
    parser = argparse.ArgumentParser(description="Checks and measures the GPU build; see scripts/gpu-check.sh.")
    parser.add_argument("bin_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--parts", default="ops,curve,throughput")
    parser.add_argument("--shapes", default="0.5b,1.5b,7b")
    parser.add_argument("--lengths", default="2048:8,8192:5,32768:3", help="TOKENS:STEPS of the throughput part")
    parser.add_argument("--minutes", type=float, default=8.5)
    args = parser.parse_args()
    parts, shapes = args.parts.split(","), args.shapes.split(",")
    if unknown := [part for part in parts if part not in ("ops", "curve", "throughput")]:
        parser.error(f"--parts {unknown[0]}: not ops, curve or throughput")
    if unknown := [shape for shape in shapes if shape not in SHAPES]:
        parser.error(f"--shapes {unknown[0]}: not one of {', '.join(SHAPES)}")
    args.out_dir.mkdir(parents=True, exist_ok=True)
    runner = Runner(args)
    runner.lengths = [tuple(map(int, run.split(":"))) for run in args.lengths.split(",")]
    found = {"machine": machine()}
    print(found["machine"], flush=True)
    work = {
        "ops": ops, "curve": curve,
        "throughput": lambda runner: throughput(runner, shapes, found["machine"]["card"]),
    }
    for part in parts:
        try:
            found[part] = work[part](runner)
        except Exception as error:  # What the other parts find must not be lost with this one.
            print(f"{part}: {error!r}", flush=True)
            runner.failures.append(part)
        (args.out_dir / "gpu-check.json").write_text(json.dumps(found, indent=1) + "\n")
    if "throughput" in found:
        print(f"\n{found['machine']}, {found['throughput']['versions']}")
        print(*map(describe, found["throughput"]["rows"]), sep="\n")
    if runner.failures:
        sys.exit(f"too far off: {', '.join(runner.failures)}")


if __name__ == "__main__":
    main()
