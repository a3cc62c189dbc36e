#!/usr/bin/env python3
"""Pushes a run to a Hub on loopback, and has Python's clients and this project read what the other pushed.

    cargo build --release --bin stillroom --example loopback_hub --example logits
    python scripts/check_hub.py [WORK_FOLDER]

Needs the three programs above, and huggingface_hub, datasets, peft, transformers, torch and pyarrow; run it from the root
of the checkout. It reaches nothing but 127.0.0.1. What is done, each from an empty folder, with Hub ids only:

- the quickstart's recipe is run with `--push`, and pushed again: nothing is sent;
- `huggingface_hub` downloads the three repositories: the bytes are the run's; its cards validate against the same server,
  and its reading of `model-index` gives the scores;
- `datasets` loads the dataset by its id, `transformers` the merged model, PEFT the adapter, whose base it finds by itself;
  all give our logits;
- Python pushes a dataset and a model with `upload_folder`; a second recipe trains on them, a third one on what we
  pushed, and is scored beside it;
- a token in any file that was written, or in anything that was printed, ends the check.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path.cwd()
metadata = subprocess.run(["cargo", "metadata", "--no-deps", "--offline", "--format-version=1"], check=True, capture_output=True)
TARGET = Path(json.loads(metadata.stdout)["target_directory"]) / "release"
WORK = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()).resolve()
WORK.mkdir(parents=True, exist_ok=True)
assert not any(WORK.iterdir()), f"{WORK} is not empty"

inputs = WORK / "inputs"
for name in ("train", "heldout"):
    (inputs / name).mkdir(parents=True)
    (inputs / name / f"{name}.jsonl").write_bytes((ROOT / f"data/arithmetic/{name}.jsonl").read_bytes())
server = subprocess.Popen(
    [TARGET / "examples/loopback_hub", WORK / "store", "0",
     f"models/world/teacher={ROOT}/data/arithmetic/teacher", f"models/world/base={ROOT}/data/arithmetic/student",
     f"datasets/world/problems={inputs}/train", f"datasets/world/heldout={inputs}/heldout"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
endpoint, token = server.stdout.readline().split()
os.environ |= {
    "HF_ENDPOINT": endpoint, "HF_HOME": str(WORK / "python-home"), "HF_TOKEN": token, "NO_PROXY": "127.0.0.1",
    "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}

import datasets  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
from huggingface_hub import DatasetCard, HfApi, ModelCard, snapshot_download  # noqa: E402
from peft import AutoPeftModelForCausalLM  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

printed = []


def stillroom(folder: Path, *arguments: str) -> str:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"HF_HOME": str(folder / "hf"), "XDG_CACHE_HOME": str(folder / "cache")}
    started = time.monotonic()
    done = subprocess.run([TARGET / "stillroom", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    printed.append(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"stillroom {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    print(f"stillroom {' '.join(arguments)}: {time.monotonic() - started:.1f} s")
    return done.stdout + done.stderr


def recipe(folder: Path, name: str, changes: dict[str, str], hub: str) -> None:
    text = (ROOT / "pipelines/quickstart.toml").read_text()
    changes = {'name = "quickstart"': f'name = "{name}"'} | changes
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(text + hub)


HUB = """
[hub]
dataset_repo = "org/{0}-traces"
model_repo = "org/{0}"
dataset_license = "apache-2.0"
model_license = "apache-2.0"
base_license = "apache-2.0"
teacher_license = "apache-2.0"
data_license = "apache-2.0"
"""
IDS = {
    '"data/arithmetic/train.jsonl"': '"hf://datasets/world/problems@main/train.jsonl"',
    '"data/arithmetic/teacher"': '"world/teacher@main"',
    '"data/arithmetic/student"': '"world/base@main"',
    'decontaminate = { against = ["arithmetic"], ngram = 13 }':
        'decontaminate = { against = [{ name = "arithmetic", source = "hf://datasets/world/heldout@main/heldout.jsonl" }], ngram = 13 }',
    'benchmarks = ["arithmetic"]':
        'benchmarks = [{ name = "arithmetic", source = "hf://datasets/world/heldout@main/heldout.jsonl" }]',
}

# 1. From an empty folder, Hub ids only.
first = WORK / "first"
recipe(first, "first", IDS, HUB.format("first"))
said = stillroom(first, "run", "recipe.toml", "--push")
for page in ("datasets/org/first-traces", "org/first", "org/first-lora"):
    assert f"{endpoint}/{page}\n" in said, said
said = stillroom(first, "push-hub", "recipe.toml")
assert said.count("nothing to send") == 3, said
run = first / "runs/first"

# 2. huggingface_hub reads it.
api = HfApi()
folders = {}
for kind, repo, ours, left in (
    ("dataset", "org/first-traces", run / "dataset", {"README.md", "manifest.json"}),
    ("model", "org/first", run / "student/merged", set()),
    ("model", "org/first-lora", run / "student/adapter", set()),
):
    folder = Path(snapshot_download(repo, repo_type=kind))
    folders[repo] = folder
    compared = 0
    for path in sorted(ours.rglob("*")):
        name = str(path.relative_to(ours))
        if path.is_file() and name not in left:
            assert (folder / name).read_bytes() == path.read_bytes(), name
            compared += 1
    card = (DatasetCard if kind == "dataset" else ModelCard).load(folder / "README.md")
    card.validate(repo_type=kind)
    info = api.repo_info(repo, repo_type=kind)
    assert info.private and info.sha
    tags = [tag.name for tag in api.list_repo_refs(repo, repo_type=kind).tags]
    assert len(tags) == 1 and re.fullmatch("stillroom-[0-9a-f]{12}", tags[0]), tags
    print(f"huggingface_hub: {repo}: {compared} files are ours byte for byte, the card validates, tag {tags[0]}")
TAG = tags[0]
scores = json.loads((run / "scores/scores.json").read_text())["benchmarks"][0]
student = next(model for model in scores["models"] if model["role"] == "student")
for repo in ("org/first", "org/first-lora"):
    results = {result.metric_type: result for result in ModelCard.load(folders[repo] / "README.md").data.eval_results}
    assert results["avg@8"].metric_value == round(student["avg_at_k"]["value"] * 100, 2), results
    low, high = results["avg@8"].metric_args["ci95"]
    assert abs(low - student["avg_at_k"]["ci95"][0] * 100) < 0.01 and high > low
    assert set(results) == {"avg@8", "maj@8", "pass@1", "pass@2", "pass@4", "pass@8"}
data = ModelCard.load(folders["org/first-lora"] / "README.md").data
assert (data.base_model, data.library_name, data.license) == ("world/base", "peft", "apache-2.0")
print(f"huggingface_hub: model-index says avg@8 {student['avg_at_k']['value'] * 100:.2f}")

# 3. datasets, transformers, PEFT.
stats = json.loads((run / "dataset/stats.json").read_text())
rows = datasets.load_dataset("org/first-traces")
assert {split: len(rows[split]) for split in rows} == {"train": stats["train"], "validation": stats["validation"]}
assert len(datasets.load_dataset("org/first-traces", "rejected", split="rejected")) == stats["rejected"]
print(f"datasets: {stats['train']} + {stats['validation']} rows, {stats['rejected']} rejected")
merged = AutoModelForCausalLM.from_pretrained("org/first", dtype=torch.float32)
adapter = AutoPeftModelForCausalLM.from_pretrained("org/first-lora", dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("org/first-lora")
ids = [row["prompt_token_ids"] + row["token_ids"] for row in rows["validation"]]
(WORK / "ids.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ids))
subprocess.run([TARGET / "examples/logits", run / "student/merged", WORK / "ids.jsonl", WORK / "logits"], check=True)
ours, worst = load_file(WORK / "logits"), [0.0, 0.0]
with torch.no_grad():
    for index, row in enumerate(ids):
        for at, model in enumerate((merged, adapter)):
            logits = model(torch.tensor([row])).logits[0].float()
            worst[at] = max(worst[at], (logits - ours[f"row-{index}"]).abs().max().item())
assert max(worst) < 1e-3, worst
assert tokenizer.apply_chat_template([{"role": "user", "content": "1"}], tokenize=False)
print(f"transformers and PEFT: logits differ from ours by {worst[0]:.1e} and {worst[1]:.1e} on {len(ids)} rows")

# 4. Python pushes, we read.
theirs = WORK / "theirs"
(theirs / "data").mkdir(parents=True)
pq.write_table(pa.Table.from_pylist([
    {"messages": [{"role": "user", "content": row["problem"]}, {"role": "assistant", "content": row["answer"]}]}
    for row in map(json.loads, (ROOT / "data/arithmetic/train.jsonl").read_text().splitlines()[:200])
]), theirs / "data/train.parquet")
api.create_repo("org/theirs", repo_type="dataset", private=True)
api.upload_folder(repo_id="org/theirs", repo_type="dataset", folder_path=theirs)
api.create_repo("org/their-base", private=True)
api.upload_folder(repo_id="org/their-base", folder_path=ROOT / "data/arithmetic/student")
second = WORK / "second"
second.mkdir()
(second / "recipe.toml").write_text(
    'name = "second"\nstudent = { model = "org/their-base@main" }\n[train]\nmax_steps = 3\nlearning_rate = 1e-3\nbatch_size = 8\n'
    'missing_thought = "template"\ndata = "hf://datasets/org/theirs@main/data/*.parquet"\n[train.lora]\nrank = 4\nalpha = 8\n')
stillroom(second, "train-student", "recipe.toml")
for cached in second.rglob("blobs/*"):
    if cached.stat().st_size == (theirs / "data/train.parquet").stat().st_size:
        assert cached.read_bytes() == (theirs / "data/train.parquet").read_bytes()
print("stillroom: trained on the dataset and the model that Python pushed")

# 5. Another recipe begins with what the first one pushed, and is compared with it.
third = WORK / "third"
changes = {
    'name = "quickstart"': 'name = "third"',
    '"data/arithmetic/student"': f'"org/first@{TAG}"',
    'benchmarks = ["arithmetic"]': IDS['benchmarks = ["arithmetic"]'],
    'compare = ["base", "student", "teacher"]': 'compare = ["base", "student"]',
    "epochs = 3\n": f'epochs = 1\ndata = "hf://datasets/org/first-traces@{TAG}/data/train-*.parquet"\n',
    "learning_rate = 4e-3": "learning_rate = 4e-4",
}
text = (ROOT / "pipelines/quickstart.toml").read_text()
text = re.sub(r"\[prompts\].*?(?=\[student\])", "[prompts]\nsource = \"hf://datasets/world/problems@main/train.jsonl\"\ntemplate = \"{problem}\"\n\n", text, flags=re.S)
for old, new in changes.items():
    assert old in text, old
    text = text.replace(old, new)
third.mkdir()
(third / "recipe.toml").write_text(text)
for job in ("train-student", "eval-aime"):
    said = stillroom(third, job, "recipe.toml")
then = json.loads((third / "runs/third/scores/scores.json").read_text())["benchmarks"][0]
base = next(model for model in then["models"] if model["role"] == "base")
# Another role draws other samples: equal within what sampling moves.
apart = abs(base["avg_at_k"]["value"] - student["avg_at_k"]["value"])
assert apart < 4 * (base["avg_at_k"]["sampling_error"] ** 2 + student["avg_at_k"]["sampling_error"] ** 2) ** 0.5, (base, student)
now = next(model for model in then["models"] if model["role"] == "student")
print(f"stillroom: the pushed model scores {base['avg_at_k']['value'] * 100:.2f}, and trained on {now['avg_at_k']['value'] * 100:.2f}")

# 6. The token is nowhere but where a login would put it.
secret = token.encode()
for path in WORK.rglob("*"):
    if path.is_file() and not path.is_symlink():
        assert secret not in path.read_bytes(), path
assert not any(token in text for text in printed)
server.stdin.close()
server.wait()
print("the token is in no file and in nothing that was printed")
