"""Runs all checks and benchmarks that need a GPU, one after the other, in under eight minutes.

``python -m benchmarks.gpu --out FOLDER`` runs the parts below, each as a process with a time limit
of its own. The output of a part goes to ``FOLDER/PART.txt`` while the part runs, and
``FOLDER/summary.json`` is written anew after every part. A part that fails, or that finds no time,
is recorded, and the next part runs. Correctness comes first:

- tests: the tests of the kernels, of the recorded arrays of the authors, of the CUDA graph of a
  step and of the copies to the GPU. Without a GPU these tests are skipped, which the output says.
- neurons, step, growth: the benchmarks of these names.
- end-to-end: ``avsnn train`` against bare steps; the demo as shipped, then the published size in
  float32 and in bf16.
- startup: seconds from the start of ``avsnn train`` to its first step.
- max-autotune: ``torch.compile(mode="max-autotune")`` against avsnn, in the time that is left.

Without a GPU all parts but the last run in tiny sizes on the CPU, which tests this script.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.end_to_end import prepare_demo

# The last line of pytest where no test ran.
ONLY_SKIPPED = re.compile(r"^(?!.*passed).*\bskipped\b")

PROJECT = Path(__file__).resolve().parents[1]


class Part(NamedTuple):
    """Commands that run one after the other, with one limit in seconds for all of them."""

    name: str
    limit_s: float
    commands: list[list[str]]


def main() -> None:
    """Run all parts; the exit code is 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--data", type=Path, help="folder with a prepared demo; else made here")
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of all parts together")
    parser.add_argument("--parts", nargs="+", help="names of the parts to run, by default all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    has_gpu = torch.cuda.is_available()
    end = time.monotonic() + 60 * args.minutes
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as temporary:
        work = Path(temporary)
        data = args.data.resolve() if args.data else work / "data"
        parts = gpu_parts(data, work) if has_gpu else cpu_parts(data, work)
        names = [part.name for part in parts]
        if unknown := sorted(set(args.parts or ()) - set(names)):
            parser.error(
                f"there is no part {', '.join(unknown)} here; there are {', '.join(names)}"
            )
        if not args.data:
            prepare_demo(data, 300 if has_gpu else 60)
        for part in parts:
            if args.parts and part.name not in args.parts:
                continue
            results.append(run_part(part, args.out, end))
            write_summary(args.out, results)
            print(
                f"{part.name:<14} {results[-1]['outcome']:<10} {results[-1]['seconds']:6.1f} s",
                flush=True,
            )
    if any(result["outcome"] not in ("passed", "skipped") for result in results):
        raise SystemExit(1)


def gpu_parts(data: Path, work: Path) -> list[Part]:
    """Return the parts for a GPU. The limits add up to more than all parts need together."""
    cuda = ["--device", "cuda"]
    end_to_end = [*benchmark("end_to_end", *cuda, "--data", str(data), "--rounds", "1")]
    published = ["--size", "published", "--batch", "32", "--epochs", "6"]
    not_needed = "not interpreter"
    return [
        Part("tests", 120, [tests("-n8", "-k", not_needed)]),
        Part("neurons", 45, [benchmark("neurons", *cuda, "--rounds", "5")]),
        Part(
            "step",
            210,
            [
                benchmark(
                    *("step", *cuda, "--batch", "128", "--rounds", "5", "--ways", "published"),
                    *("published-compiled", "spikingjelly", "avsnn", "avsnn-bf16"),
                    *("avsnn-graph", "avsnn-bf16-graph", "floor"),
                )
            ],
        ),
        Part(
            "end-to-end",
            120,
            [
                [*end_to_end, "--size", "demo", "--batch", "32", "--epochs", "10"],
                [*end_to_end, *published],
                [*end_to_end, *published, "--precision", "bf16"],
            ],
        ),
        Part("startup", 60, [benchmark("startup", *cuda, "--data", str(data), "--rounds", "1")]),
        Part(
            "growth",
            100,
            [
                benchmark(
                    *("growth", *cuda, "--picture", str(work / "growth.png"), "--rounds", "2"),
                    *("--middle-batch", "64", "--steps", "2", "4", "8", "--batch", "16", "64"),
                    *("256", "--side", "64", "128", "256", "--channels", "128", "256", "512"),
                )
            ],
        ),
        Part(
            "max-autotune",
            200,
            [
                benchmark(
                    *("step", *cuda, "--batch", "128", "--rounds", "3"),
                    *("--ways", "published-max-autotune", "avsnn", "avsnn-graph"),
                )
            ],
        ),
    ]


def cpu_parts(data: Path, work: Path) -> list[Part]:
    """Return the same parts in tiny sizes, for a machine without a GPU."""
    tiny = ["--side", "64", "--channels", "32", "--rounds", "1", "--threads", "1"]
    end_to_end = benchmark("end_to_end", "--data", str(data), "--rounds", "1", "--size", "demo")
    return [
        Part("tests", 300, [tests("-n0", "-k", "on_a_gpu or cuda_graph")]),
        Part("neurons", 60, [benchmark("neurons", "--shape", "4", "2", "8", "8", "--rounds", "1")]),
        Part(
            "step", 120, [benchmark("step", "--batch", "2", *tiny, "--ways", "published", "avsnn")]
        ),
        Part(
            "end-to-end",
            200,
            [
                [*end_to_end, "--epochs", "1", "--batch", "8"],
                [*end_to_end, "--epochs", "2", "--batch", "8", "--precision", "bf16"],
            ],
        ),
        Part("startup", 200, [benchmark("startup", "--data", str(data), "--rounds", "1")]),
        Part(
            "growth",
            120,
            [
                benchmark(
                    *("growth", "--picture", str(work / "growth.png"), "--rounds", "1"),
                    *("--middle-batch", "1", "--only", "channels", "--channels", "16", "32"),
                )
            ],
        ),
    ]


def benchmark(name: str, *words: str) -> list[str]:
    """Return the command that runs a benchmark."""
    return [sys.executable, "-m", f"benchmarks.{name}", *words]


def tests(*words: str) -> list[str]:
    """Return the command that runs the tests of kernels and of recorded arrays."""
    files = ["tests/models/kernels", "tests/models/test_golden_on_gpu.py"]
    files += ["tests/pipeline/training/test_graphed_step.py", "tests/pipeline/loading"]
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *words, *files]


def run_part(part: Part, out: Path, end: float) -> dict[str, Any]:
    """Run the commands of a part; return its outcome, its seconds and its output."""
    began = time.monotonic()
    stop = min(end, began + part.limit_s)
    outcome, path = "passed", out / f"{part.name}.txt"
    with path.open("w") as output:
        for command in part.commands:
            output.write(f"$ {' '.join(command)}\n")
            output.flush()
            code = run_command(command, output, stop - time.monotonic())
            if code is None:
                outcome = "no time"
                break
            if code:
                outcome = f"code {code}"
    lines = path.read_text(errors="replace").splitlines()
    if outcome == "passed" and lines and ONLY_SKIPPED.search(lines[-1]):
        outcome = "skipped"
    seconds = round(time.monotonic() - began, 1)
    return {"part": part.name, "outcome": outcome, "seconds": seconds, "output": lines}


def run_command(command: list[str], output: Any, seconds: float) -> int | None:
    """Run a command with its children; return its exit code, or None after that many seconds."""
    if seconds <= 0:
        return None
    paths = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # A part that is stopped shall have written all it has measured.
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # The command leads its own session, so the signal reaches its children and nothing else.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write_summary(out: Path, results: list[dict[str, Any]]) -> None:
    """Write what is known so far, with the machine."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts = {"gpu": name, "torch": torch.__version__, "cuda": torch.version.cuda, "parts": results}
    (out / "summary.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
