#!/usr/bin/env python3
"""Measures `train-student` against PyTorch + PEFT on one shape, in alternation, from outside.

    pip install torch transformers peft safetensors numpy pyarrow
    cargo build --release --bin train-student
    python scripts/bench/train.py SHAPE [--runs 5] [--precision bf16] [--checkpointing] [--loss soft] …

SHAPE is a name of scripts/bench/make_shape.py, or `growth` for all of its `growth-N`. Every run is a process of its
own on the same cores with the same number of threads; which side goes first changes from pair to pair. Tokens/s come
from the median step after the first two, peak RSS and CPU time from `wait4`: loading, export and all. Both sides
print the loss of every step, and the first must agree, so that what is compared is the same work.

`--against` names the other side: `torch` (the default), `plain` (this binary without checkpointing, with the hard
loss: what those two cost), `none`, or the path of another binary. Soft and mixed losses have no torch side, so `plain`
is their default. Prints a table to stdout and writes everything to OUTPUT/train-*.json.

This process stays small, and imports nothing large, because a child's peak RSS starts from what its parent held.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from make_shape import SHAPES

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
WARM_UP_STEPS = 2
# |difference| of the first losses. bf16 rounds in other places on the two sides.
FIRST_LOSS = {"f32": 1e-3, "bf16": 2e-2}
# Of other processes, over a run. OpenMP's threads wait for each other at every operation: on two cores shared with a
# compiler, torch's steps took ten times as long. A loaded machine makes the ratio flatter us, so the table says so.
QUIET_CORES = 0.1
# What is left to the rest of the machine before a child is stopped.
RESERVE_BYTES = 1 << 30


def memory(pid):
    """(resident bytes of a process, bytes the machine has left)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        pages = 0
    left = next(line for line in open("/proc/meminfo", encoding="ascii") if line.startswith("MemAvailable"))
    return pages * os.sysconf("SC_PAGE_SIZE"), int(left.split()[1]) * 1024


def busy_seconds():
    """CPU seconds that all cores together have worked, or were kept from working by the host, since boot."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, open("/proc/stat").readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measure(command, threads, memory_limit, log):
    """Runs `command` to its end; what the kernel says it took, and its stdout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "MALLOC_CONF")}
    environment |= {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    cores = set(sorted(os.sched_getaffinity(0))[:threads])
    with open(log.with_suffix(".out"), "wb") as out, open(log.with_suffix(".err"), "wb") as err:
        clock, busy = time.monotonic(), busy_seconds()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        stopped = None
        try:
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                resident, left = memory(child.pid)
                if stopped is None and (resident > memory_limit or left < RESERVE_BYTES):
                    stopped = f"stopped: {resident / MIB:.0f} MiB resident after {time.monotonic() - clock:.0f} s"
                    child.kill()
                time.sleep(0.02)
        except BaseException:
            child.kill()
            raise
        seconds, busy = time.monotonic() - clock, busy_seconds() - busy
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0 and not stopped:
        tail = log.with_suffix(".err").read_text(errors="replace")[-2000:]
        sys.exit(f"{' '.join(map(str, command))}\nended with {child.returncode}:\n{tail}")
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "command": [str(word) for word in command],
        "stopped": stopped,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "other_cores": max(0.0, busy - cpu) / seconds,
    }, log.with_suffix(".out").read_text()


def with_speed(run, steps):
    """Adds the steps, and what they say of speed."""
    run["steps"] = steps
    kept = steps[min(WARM_UP_STEPS, len(steps) - 1):] if steps else []
    run["tokens_per_second"] = statistics.median(s["n_tokens"] / s["seconds"] for s in kept) if kept else None
    return run


def student(binary, shape, settings, args, log):
    run_dir = log.with_suffix(".run")
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [binary, shape / "recipe.toml", "--run-dir", run_dir, "--quiet"]
    for key, value in settings.items():
        command += ["--set", f"train.{key}={json.dumps(value)}"]
    run, _ = measure(command, args.threads, args.memory_limit * (1 << 30), log)
    metrics = run_dir / "student" / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    # It holds a merged checkpoint each.
    shutil.rmtree(run_dir, ignore_errors=True)
    kept = ("step", "loss", "grad_norm", "n_tokens", "seconds")
    return with_speed(run, [{key: line[key] for key in kept} for line in lines if line["split"] == "train"])


def torch(shape, settings, args, log):
    command = [args.python, HERE / "torch_lora.py", shape, "--steps", str(settings["max_steps"]), "--dtype",
               settings["precision"], "--threads", str(args.threads)]
    if settings["activation_checkpointing"]:
        command.append("--gradient-checkpointing")
    run, stdout = measure(command, args.threads, args.memory_limit * (1 << 30), log)
    lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    run["versions"] = next((line for line in lines if "torch" in line), None)
    return with_speed(run, [line for line in lines if "step" in line])


def make_shape(name, dtype, steps, args):
    """The shape's folder, made where it is not there with rows enough."""
    folder = args.output.absolute() / "shapes" / f"{name}-{dtype}"
    marker = folder / "shape.json"
    if not marker.is_file() or json.loads(marker.read_text())["steps"] < steps:
        command = [args.python, HERE / "make_shape.py", name, folder, "--dtype", dtype, "--steps", str(steps)]
        subprocess.run(command, check=True)
    return folder


def sides(shape, settings, args):
    """(name, run one) of the sides to measure: ours first."""
    plain = settings | {"activation_checkpointing": False, "loss.kind": "hard", "data": str(shape / "rows.jsonl")}
    ours = ("ours", lambda log: student(args.binary, shape, settings, args, log))
    match args.against:
        case "torch":
            return [ours, ("torch", lambda log: torch(shape, settings, args, log))]
        case "torch-only":
            return [("torch", lambda log: torch(shape, settings, args, log))]
        case "plain":
            return [ours, ("plain", lambda log: student(args.binary, shape, plain, args, log))]
        case "none":
            return [ours]
        case binary:
            return [ours, ("other", lambda log: student(binary, shape, settings, args, log))]


def spread(values, digits):
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    text = f"{statistics.median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def compare_losses(runs, tolerance):
    """Largest difference of the first losses and of all; ends the program where the first are not equal."""
    first, largest = 0.0, 0.0
    for ours, other in zip(*runs.values()):
        differences = [abs(a["loss"] - b["loss"]) for a, b in zip(ours["steps"], other["steps"])]
        if differences:
            first, largest = max(first, differences[0]), max(largest, *differences)
    # Not `>`: it would let a NaN pass.
    if not first <= tolerance:
        sys.exit(f"the first losses differ by {first:.2e}: the two sides do not do the same work")
    return first, largest


def bench(name, args):
    shape = SHAPES[name]
    steps = args.steps or shape["steps"]
    folder = make_shape(name, args.precision, steps, args)
    settings = {
        "max_steps": steps, "precision": args.precision,
        "activation_checkpointing": args.checkpointing or shape["checkpointing"], "loss.kind": args.loss,
        "data": str(folder / ("rows.jsonl" if args.loss == "hard" else "rows.parquet")),
    }
    label = "-".join([name, args.precision, *(["checkpointing"] * args.checkpointing), args.loss,
                      "against", Path(args.against).name])
    logs = args.output.absolute() / "logs" / label
    logs.mkdir(parents=True, exist_ok=True)
    measured = sides(folder, settings, args)
    runs = {side: [] for side, _ in measured}
    for pair in range(args.runs):
        for side, run in measured if pair % 2 == 0 else reversed(measured):
            result = run(logs / f"{side}-{pair}")
            runs[side].append(result)
            speed = spread([result["tokens_per_second"]], 0)
            print(f"{name} {pair + 1}/{args.runs} {side}: {result['stopped'] or speed + ' tokens/s'}, "
                  f"{result['peak_rss_bytes'] / MIB:.0f} MiB, {result['seconds']:.1f} s, "
                  f"others held {result['other_cores']:.2f} cores", file=sys.stderr, flush=True)

    rows = {
        "tokens/s": {side: [run["tokens_per_second"] for run in of] for side, of in runs.items()},
        "peak RSS, MiB": {side: [run["peak_rss_bytes"] / MIB for run in of] for side, of in runs.items()},
        "process, s": {side: [run["seconds"] for run in of] for side, of in runs.items()},
        "others, cores": {side: [run["other_cores"] for run in of] for side, of in runs.items()},
    }
    digits = {"process, s": 1, "others, cores": 2}
    names = list(runs)
    print(f"\n{name}: {steps} steps of {shape['batch_size']} × {shape['length']} tokens, {args.precision}, {args.loss} "
          f"loss{', checkpointing' * settings['activation_checkpointing']}, {args.threads} threads, {args.runs} runs; "
          "median (min–max)")
    print("".join(f"{head:<24}" for head in ["", *names, *(["ratio"] if len(names) == 2 else [])]).rstrip())
    for row, of in rows.items():
        cells = [row, *(spread(values, digits.get(row, 0)) for values in of.values())]
        if len(names) == 2 and row != "others, cores":
            cells.append(spread([a / b for a, b in zip(*of.values()) if a and b], 2))
        print("".join(f"{cell:<24}" for cell in cells).rstrip())
    for side, of in runs.items():
        for stopped in sorted({run["stopped"] for run in of if run["stopped"]}):
            print(f"{side} {stopped}")
    held = max(run["other_cores"] for of in runs.values() for run in of)
    if held > QUIET_CORES:
        print(f"NOT QUIET: other processes held up to {held:.2f} cores; the speeds above and their ratio are no result")
    losses = None
    if len(names) == 2 and args.loss == "hard":
        losses = compare_losses(runs, FIRST_LOSS[args.precision])
        print(f"losses differ by {losses[0]:.1e} in the first step, {losses[1]:.1e} at most")
    report = {
        "shape": name, **shape, "steps": steps, "settings": settings, "threads": args.threads,
        "machine": machine(), "loss_differences": losses, "runs": runs,
    }
    path = args.output / f"train-{label}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {path}", file=sys.stderr)


def machine():
    fields = dict(
        (key.strip(), value.strip())
        for key, _, value in (line.partition(":") for line in open("/proc/cpuinfo", encoding="utf-8"))
    )
    wanted = [flag for flag in fields.get("flags", "").split() if flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")]
    return {
        "cpu": fields.get("model name"), "flags": wanted, "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=[*SHAPES, "growth"])
    parser.add_argument("--runs", type=int, default=5, help="pairs [default: 5]")
    parser.add_argument("--steps", type=int, help="optimizer steps of a run [default: the shape's]")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--checkpointing", action="store_true", help="activation checkpointing (`long` always has it)")
    parser.add_argument("--loss", choices=["hard", "soft", "mixed"], default="hard")
    parser.add_argument("--against", help="torch | plain | none | torch-only | another binary")
    parser.add_argument("--no-torch", dest="against", action="store_const", const="none", help="as `--against none`")
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    parser.add_argument("--binary", type=Path, default=target / "release" / "train-student")
    parser.add_argument("--python", default=sys.executable, help="that has torch [default: this one]")
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    parser.add_argument("--memory-limit", type=float, default=round(0.8 * total, 1), metavar="GIB",
                        help="a child that holds more is stopped, and said to be [default: 0.8 of the machine's]")
    args = parser.parse_args()
    # A driver that is told to end must not leave its child on the cores of the next one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.against = args.against or ("torch" if args.loss == "hard" else "plain")
    if args.loss != "hard" and args.against.startswith("torch"):
        parser.error("the torch side has the hard loss only")
    if args.against != "torch-only" and not os.access(args.binary, os.X_OK):
        parser.error(f"{args.binary} is not there: cargo build --release --bin train-student, or --binary PATH")
    for name in [n for n in SHAPES if n.startswith("growth-")] if args.shape == "growth" else [args.shape]:
        bench(name, args)


if __name__ == "__main__":
    main()
