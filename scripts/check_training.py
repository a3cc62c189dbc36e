"""Trains the curve fixtures with `train-student` and with PyTorch + PEFT, and compares what both end with.

    python scripts/check_training.py [NAME…]

Needs cargo and what make_training_fixtures.py and check_outputs.py need; run it from the root of the checkout. NAME
is a reference of crates/trainer/tests/fixtures/curve/curves.json; none = every one with whole-vocabulary losses, and
one mixed. For each, over random rows of token ids, the largest difference of logits between

- the exported adapter in PEFT, and the merged checkpoint in transformers, and the PyTorch model trained side by side:
  5e-3;
- the adapter in PEFT and the merged checkpoint in transformers: 1e-4;
- each of them and our own decoder on the same folder: 1e-4.

Prints one line per reference; exits with 1 when a bound is passed or a run fails.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent / "fixtures"))
import make_loss_fixtures  # noqa: E402
import make_training_fixtures as fixtures  # noqa: E402
from check_outputs import our_logits, target_folder, their_logits, worst  # noqa: E402

FOLDER = Path("crates/trainer/tests/fixtures/curve").resolve()
TRAINED, SAME = 5e-3, 1e-4


def toml(value) -> str:
    """An inline TOML value; JSON's strings, numbers and lists are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def train_student(reference: dict, run: Path) -> None:
    train = {**reference["train"], "data": str(FOLDER / reference["rows"])}
    if reference["adapter"]:
        train["lora"] = {**train["lora"], "init_from": str(FOLDER / reference["adapter"])}
    sections = {"student": {"model": str(FOLDER / reference["model"])}, "train": train}
    recipe = run / "check.toml"
    recipe.write_text('name = "check"\n' + "".join(f"{name} = {toml(section)}\n" for name, section in sections.items()))
    command = [target_folder() / "release" / "train-student", recipe, "--run-dir", run / "run", "--quiet"]
    subprocess.run(command, check=True, capture_output=True, text=True)


def compare(reference: dict, rows: list[list[int]]) -> dict[str, tuple[float, float]]:
    """Largest differences with their bounds, by what was compared."""
    model = fixtures.load(FOLDER, reference)
    settings = reference["train"]
    fixtures.train(model, fixtures.read_rows(FOLDER / reference["rows"]), settings, settings["max_grad_norm"])
    trained = their_logits(model.eval(), rows)
    with tempfile.TemporaryDirectory() as folder:
        train_student(reference, Path(folder))
        student = Path(folder, "run", "student")
        base, merged, adapter = str(FOLDER / reference["model"]), str(student / "merged"), str(student / "adapter")
        load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        from_merged = their_logits(load(merged), rows)
        results = {
            "merged - torch": (worst(from_merged, trained), TRAINED),
            "merged - ours": (worst(from_merged, our_logits(merged, rows)), SAME),
        }
        if reference["adapter"]:
            from_adapter = their_logits(PeftModel.from_pretrained(load(base), adapter).eval(), rows)
            results["adapter - torch"] = (worst(from_adapter, trained), TRAINED)
            results["adapter - merged"] = (worst(from_adapter, from_merged), SAME)
            results["adapter - ours"] = (worst(from_adapter, our_logits(base, rows, adapter)), SAME)
            # Where training moved nothing, all of the above would agree just as well.
            start = PeftModel.from_pretrained(load(base), FOLDER / reference["adapter"]).eval()
        else:
            start = load(base)
        assert worst(their_logits(start, rows), trained) > 10 * TRAINED, "training changed nothing to speak of"
    return results


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    make_loss_fixtures.V = fixtures.VOCAB
    # The whole workspace, so that dependencies are built as they were for everything else.
    build = ["cargo", "build", "--release", "--quiet", "--workspace", "--bin", "train-student", "--example", "logits"]
    subprocess.run(build, check=True)
    references = json.loads((FOLDER / "curves.json").read_text())
    default = [name for name, reference in references.items() if "loss" not in reference["train"]]
    names = sys.argv[1:] or [*default, "mixed-tail-forward_kl-t2"]
    generator = torch.Generator().manual_seed(17)
    rows = [torch.randint(fixtures.VOCAB, (3 * n + 1,), generator=generator).tolist() for n in range(20)]
    failed = []
    for name in names:
        try:
            results = compare(references[name], rows)
        except subprocess.CalledProcessError as error:
            print(f"{name}: FAILED, {(error.stderr or str(error)).strip().splitlines()[-1]}", flush=True)
            failed.append(name)
            continue
        # A NaN is above every bound.
        ok = all(difference <= bound for difference, bound in results.values())
        largest = ", ".join(f"{what} {difference:.1e} ({bound:g})" for what, (difference, bound) in results.items())
        print(f"{name}: {'ok' if ok else 'FAILED'}, {largest}", flush=True)
        if not ok:
            failed.append(name)
    print(f"{len(names) - len(failed)} of {len(names)} within bounds")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
