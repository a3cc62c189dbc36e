"""Compares the checkpoint of scripts/real/checkpoint.py with transformers and with llama.cpp's server.

    pip install accelerate gguf torch transformers
    python scripts/real/server.py start models/llama-server models/SmolLM2-135M-Instruct.Q4_1.gguf      # elsewhere
    python scripts/real/check.py models/SmolLM2-135M-Instruct http://127.0.0.1:8089 \\
        --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf

- weights (with --gguf): those that transformers itself reads from the GGUF, bit for bit.
- tokenizer: the ids of some 900 texts are the server's: English, code, numbers, many scripts, white space, control
  characters, special tokens, noise.
- template: a conversation renders as the server renders it.
- greedy: what the checkpoint answers to a question, for a person to read.
- logits: the server answers twelve questions at T = 0.7 and gives the likeliest tokens of each position; transformers
  scores the same ids in f32. The server multiplies 4-bit weights with activations rounded to 8 bits, so the two differ;
  LOG.md has such differences over 15,018 positions: entries median 0.08, 99 of 100 below 0.44.

Prints one JSON object per check; ends with 1 where one fails.
"""

import argparse
import json
import random
import sys
import urllib.error
import urllib.request
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ENTRIES = 20
# Differences of log-probabilities: the median over the entries, and of an entry whose probability is at least 1 %.
MEDIAN_BOUND, LIKELY_BOUND = 0.1, 2.0

TEXTS = [
    "The quick brown fox jumps over the lazy dog.", "It's what they've said; I'm sure we'll see, he'd go.", "DON'T SHOUT'S 'tis",
    "def f(x):\n    return {k: v ** 2 for k, v in x.items()}  # squares\n", "for (int i = 0; i < n; ++i) a[i] += b[i] & 0xFF;",
    "SELECT * FROM t WHERE a <> 'b''c';\r\n\r\n", "<div class=\"x\">&nbsp;</div>", "\\frac{1}{2} + \\boxed{42}$$ \\begin{align*}",
    "0 1 12 123 1234 1,234,567.89 -3.5e-10 1/2 50% $3.00", "2024-11-27T03:56:25Z", "x²+y³=½ Ⅻ ٣٤٥ 一二三 ①②", "๑๒๓ १२३ ߁߂",
    "naïve café Straße ÆØÅ ĳ ſ ﬁ", "e\u0301 vs é, Å vs A\u030a", "Привет, мир! Ёж", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم",
    "नमस्ते दुनिया", "สวัสดีชาวโลก", "你好，世界。", "こんにちは世界カタカナ", "안녕하세요 세계", "😀👍🏽👨‍👩‍👧‍👦🇩🇪 ❤️", "𝒜𝔘𝟙 𐍈", "\u200b\u200d\ufeff\u2060x",
    "", " ", "  ", "   a", "a   ", "a  b", "\n", "\n\n", "\n\n\na", " \n \n", "\t", "\t\tx\t", "\r", "\r\n\r\n", "a\n b\n  c\n   d",
    "\u00a0x\u00a0\u00a0y", "\u3000x", "\u2028x\u2029", "\x0b\x0c", "a\u0085b", "".join(map(chr, range(1, 128))), "".join(map(chr, range(128, 512))),
    "<|im_start|>user\nHi<|im_end|>\n", "<|endoftext|><|endoftext|> x", "a<|im_end|>b", "<|im_end", "<repo_name>r<file_sep>", "<think>no</think>",
    "__init__", "snake_case camelCase HTTPServer2", "a.b.c...d!!!???", "—–-‒…“”‘’«»", "http://x.y/z?a=b&c=%20#d", "ａｂｃ１２３", "\x00",
]  # fmt: skip
NOISE = ["a", "The", "'s", "'", " ", "  ", "\n", "\t", "7", "42", "é", "ß", "Ж", "中", "ा", "😀", "\u200d", "²", "٣", ".", "...", "-", "$", "\\",
         "{", "}", "\u00a0", "\u0301", "<|im_end|>", "_", "\r\n", "ﬀ", "𝟙", "\u0085", "\x7f"]  # fmt: skip
CHARACTERS = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x2000, 0x2C00), (0x3000, 0x3400),
              (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0x1D400, 0x1D800), (0x1F300, 0x1FB00)]  # fmt: skip

QUESTIONS = [
    "What is the capital of France?", "There are 4 cards. 3 cards more are added. How many are there total?",
    "Write a haiku about snow.", "Explain why the sky is blue in two sentences.", "Write a Python function that reverses a list.",
    "List five fruits.", "What is 12 * 12?", "Translate 'good morning' into German.", "Who wrote Hamlet?",
    "Tom has 3 boxes of 12 eggs and breaks 5. How many eggs are left?", "What does HTTP stand for?", "Tell me a joke.",
]  # fmt: skip


def fail(problem: str) -> None:
    sys.exit(f"error: {problem}")


class Server:
    def __init__(self, url: str):
        self.url = url.rstrip("/").removesuffix("/v1")

    def ask(self, route: str, body: dict) -> dict:
        request = urllib.request.Request(
            f"{self.url}{route}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as problem:
            fail(f"{self.url}{route}: {problem.code} {problem.read().decode(errors='replace')[:300]}")
        except OSError as problem:
            fail(f"{self.url}{route}: {problem}; start the server with scripts/real/server.py")


def texts() -> list[str]:
    rng = random.Random(7)
    found = list(TEXTS)
    for _ in range(400):
        found.append("".join(rng.choice(NOISE) for _ in range(rng.randint(1, 30))))
    for _ in range(400):
        low, high = rng.choice(CHARACTERS)
        found.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 40))))
    return found + QUESTIONS


def same_weights(checkpoint: Path, path: Path) -> dict:
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(checkpoint)
    left, right = theirs.state_dict(), ours.state_dict()
    assert left.keys() == right.keys(), left.keys() ^ right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, different
    assert theirs.config.rope_parameters == ours.config.rope_parameters, (theirs.config, ours.config)
    return {"tensors": len(left), "weights": sum(tensor.numel() for tensor in ours.parameters())}


def same_ids(tokenizer, server: Server) -> dict:
    problems, count = [], 0
    for text in texts():
        ours = tokenizer(text, add_special_tokens=False).input_ids
        theirs = server.ask("/tokenize", {"content": text, "parse_special": True})["tokens"]
        count += len(ours)
        if ours != theirs:
            problems.append({"text": text, "ours": ours, "theirs": theirs})
    assert not problems, f"{len(problems)} texts of {len(texts())}; the first: {problems[:3]}"
    return {"texts": len(texts()), "ids": count}


def same_template(tokenizer, server: Server) -> dict:
    asked = [{"role": "user", "content": "Hi\n"}, {"role": "assistant", "content": " Yes "}, {"role": "user", "content": "2 + 2?"}]
    for messages in (asked[:1], asked, [{"role": "system", "content": "Be brief."}, *asked]):
        ours = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        theirs = server.ask("/apply-template", {"messages": messages})["prompt"]
        assert ours == theirs, {"ours": ours, "theirs": theirs}
    return {"conversations": 3}


def prompt_ids(tokenizer, question: str) -> list[int]:
    text = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False).input_ids


def greedy(tokenizer, model) -> dict:
    found = {}
    for question in QUESTIONS[:2]:
        ids = torch.tensor([prompt_ids(tokenizer, question)])
        done = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False)
        found[question] = tokenizer.decode(done[0, ids.shape[1] :])
    assert "Paris" in found[QUESTIONS[0]], found
    return found


@torch.no_grad()
def logits(tokenizer, model, server: Server) -> dict:
    sampled, entries, likely, divergences, same_first, same_set, positions = [], [], [], [], 0, 0, 0
    for seed, question in enumerate(QUESTIONS):
        prompt = prompt_ids(tokenizer, question)
        answer = server.ask("/completion", {
            "prompt": prompt, "n_predict": 96, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0,
            "seed": seed, "n_probs": ENTRIES, "return_tokens": True, "post_sampling_probs": False,
        })  # fmt: skip
        ids, places = answer["tokens"], answer["completion_probabilities"]
        if len(ids) != len(places):
            # A token that ends inside a character has no entry.
            continue
        scores = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)  # [T, V]
        for ours, place, id in zip(scores, places, ids, strict=True):
            assert place["id"] == id, (place["id"], id)
            top = [entry["id"] for entry in place["top_logprobs"]]
            theirs = torch.tensor([entry["logprob"] for entry in place["top_logprobs"]], dtype=torch.float64)
            difference = (ours[top] - theirs).abs()
            sampled.append(abs(float(ours[id]) - place["logprob"]))
            entries += difference.tolist()
            likely += difference[theirs >= -4.6].tolist()
            divergences.append(float((theirs.exp() * (theirs - ours[top])).sum()))
            same_first += int(ours.argmax()) == top[0]
            same_set += set(ours.topk(ENTRIES).indices.tolist()) == set(top)
            positions += 1

    def figures(values: list[float]) -> dict:
        values = torch.tensor(values, dtype=torch.float64).sort().values
        at = lambda share: round(float(values[min(len(values) - 1, int(share * len(values)))]), 4)  # noqa: E731
        return {"n": len(values), "median": at(0.5), "99 %": at(0.99), "largest": at(1)}

    found = {
        "positions": positions, "sampled token": figures(sampled), f"top {ENTRIES}": figures(entries),
        "entries of 1 % and more": figures(likely), "KL over the entries": figures(divergences),
        "same likeliest token": round(same_first / positions, 4), f"same set of {ENTRIES}": round(same_set / positions, 4),
    }  # fmt: skip
    assert found[f"top {ENTRIES}"]["median"] <= MEDIAN_BOUND and found["entries of 1 % and more"]["largest"] <= LIKELY_BOUND, found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR")
    parser.add_argument("url", metavar="SERVER_URL")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="compare the weights with those that transformers reads from it")
    args = parser.parse_args()
    if not (args.checkpoint / "config.json").is_file():
        fail(f"{args.checkpoint} is not a checkpoint folder; make it with scripts/real/checkpoint.py")
    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint).eval()
    server = Server(args.url)
    checks = {
        "tokenizer": lambda: same_ids(tokenizer, server),
        "template": lambda: same_template(tokenizer, server),
        "greedy": lambda: greedy(tokenizer, model),
        "logits": lambda: logits(tokenizer, model, server),
    }
    if args.gguf:
        checks["weights"] = lambda: same_weights(args.checkpoint, args.gguf)
    failed = False
    for name, check in checks.items():
        try:
            found = check()
        except AssertionError as problem:
            failed, found = True, {"failed": str(problem)}
        print(json.dumps({"check": name} | found, ensure_ascii=False), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
