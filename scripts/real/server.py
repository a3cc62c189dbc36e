"""Builds llama.cpp's server, and starts it as the teacher of pipelines/real/smollm2.toml.

    pip install cmake ninja
    python scripts/real/server.py build models/llama-server
    python scripts/real/server.py start models/llama-server models/SmolLM2-135M-Instruct.Q4_1.gguf

`build` takes llama.cpp's source from the source package of llama-cpp-python on PyPI (77 MB; `--sdist FILE` names it when
it is here already), compiles llama-server for this CPU and writes that one program: about 10 CPU minutes. It needs a C++
compiler. `--keep DIR` keeps source and objects there, so that an interrupted build goes on.

`start` serves on 127.0.0.1 until it is stopped; it becomes llama-server, so a signal to it reaches the server. The server
answers /health with 200 once it has loaded. What `dialect = "llamacpp"` needs of it:

- the context is divided among the slots: --slots times --context tokens in all, and a prompt with its completion must
  fit into --context. Requests beyond the slots wait in the server.
- no speculative decoding (the default): drafted tokens have no log-probabilities.
- the chat template and the samplers are Stillroom's: it sends token ids, and every sampling setting with each request.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "llama-cpp-python==0.3.36"
TARGET = "llama-server"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    # One program that runs without the libraries beside it.
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
}


def fail(problem: str) -> None:
    sys.exit(f"error: {problem}")


def run(command: list, hint: str) -> None:
    try:
        code = subprocess.run([str(word) for word in command]).returncode
    except FileNotFoundError:
        fail(f"the program {command[0]} is not installed; {hint}")
    if code != 0:
        fail(f"{' '.join(str(word) for word in command)} ended with {code}; {hint}")


def source(work: Path, sdist: Path | None) -> Path:
    """llama.cpp's source tree in `work`, unpacked once."""
    tree = work / "llama.cpp"
    if tree.is_dir():
        return tree
    if sdist is None:
        # pip asks a source package for its metadata, and fetches the package's build tools for that as wheels.
        sources = ["--no-deps", "--no-binary", PACKAGE.split("==")[0]]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *sources, "--dest", work, PACKAGE]
        run(command, "download the source package elsewhere, and name it with --sdist")
        (sdist,) = work.glob("llama_cpp_python-*.tar.gz")
    unpacked = Path(tempfile.mkdtemp(dir=work))
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    found = list(unpacked.glob("*/vendor/llama.cpp"))
    if len(found) != 1:
        fail(f"{sdist} has no vendor/llama.cpp; this script reads the source package of {PACKAGE}")
    os.replace(found[0], tree)
    shutil.rmtree(unpacked)
    return tree


def build(args: argparse.Namespace) -> None:
    binary: Path = args.binary
    if binary.exists():
        fail(f"{binary} exists already; remove it or name another file")
    if args.sdist and not args.sdist.is_file():
        fail(f"{args.sdist} is not a file")
    binary.parent.mkdir(parents=True, exist_ok=True)
    work: Path = args.keep or Path(tempfile.mkdtemp(prefix=".llama-cpp-", dir=binary.parent))
    work.mkdir(parents=True, exist_ok=True)
    try:
        tree, objects = source(work, args.sdist), work / "build"
        options = [f"-D{key}={value}" for key, value in OPTIONS.items()]
        run(["cmake", "-S", tree, "-B", objects, "-G", "Ninja", *options], "pip install cmake ninja, and a C++ compiler")
        run(["cmake", "--build", objects, "--target", TARGET, "-j", str(args.jobs)], "read the compiler's message above")
        staged = binary.with_name(f"{binary.name}.tmp")
        shutil.copy2(objects / "bin" / TARGET, staged)
        os.replace(staged, binary)
    finally:
        if args.keep is None:
            shutil.rmtree(work, ignore_errors=True)
    print(binary)


def start(args: argparse.Namespace) -> None:
    for path in (args.binary, args.gguf):
        if not path.is_file():
            fail(f"{path} is not a file")
    where = ["--host", "127.0.0.1", "--port", args.port, "-m", args.gguf]
    size = ["-np", args.slots, "-c", args.slots * args.context, "-t", args.threads, "-tb", args.threads]
    command = [str(word) for word in [args.binary.resolve(), *where, *size, *args.extra]]
    print(" ".join(command), file=sys.stderr, flush=True)
    os.execv(command[0], command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="build | start")
    command = commands.add_parser("build", help="compiles llama-server")
    command.add_argument("binary", type=Path, metavar="BINARY", help="the program to write; must not exist yet")
    command.add_argument("--sdist", type=Path, metavar="FILE", help=f"the source package of {PACKAGE}")
    command.add_argument("--keep", type=Path, metavar="DIR", help="keep source and objects there")
    command.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time (default: %(default)s)")
    command.set_defaults(run=build)
    command = commands.add_parser("start", help="serves a GGUF on 127.0.0.1")
    command.add_argument("binary", type=Path, metavar="BINARY")
    command.add_argument("gguf", type=Path, metavar="GGUF")
    command.add_argument("--port", type=int, default=8089, help="default: %(default)s")
    command.add_argument("--slots", type=int, default=8, help="completions at a time (default: %(default)s)")
    command.add_argument("--context", type=int, default=1024, help="tokens of one slot (default: %(default)s)")
    command.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    command.add_argument("extra", nargs="*", metavar="-- ARGS", help="more of llama-server's arguments, behind --")
    command.set_defaults(run=start)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
