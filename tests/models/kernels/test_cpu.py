import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from avsnn.models.kernels import compiled_library, cpu
from avsnn.models.kernels.layer_spec import LayerSpec
from tests.models.conftest import CPU, needs_compiler


@needs_compiler
def test_the_surrogate_in_c_is_right_far_from_the_threshold_too():
    layer = LayerSpec(1, False, False, tau=1.0, threshold=1.0, slope=4.0)
    current = torch.linspace(-60, 60, 4001).view(1, 1, 1, -1)
    ours, _ = cpu.fire_backward(torch.ones_like(current), current, None, None, None, layer)
    # Compute the derivative from |u|: far above the threshold, 1 - sigmoid loses all digits.
    e = torch.exp(-4 * (current.double() - 1).abs())
    theirs = 4 * e / (1 + e) ** 2
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-36)


@needs_compiler
def test_threads_change_no_bit():
    current = torch.randn(4, 8, 16, 40, 40)
    layer = LayerSpec(4, False, True, 2.0, 1.0, 4.0)
    scale, shift = torch.rand(16) + 0.5, torch.randn(16)
    before = torch.get_num_threads()

    def everything() -> list[torch.Tensor]:
        spikes, count = cpu.fire(current, scale, shift, layer)
        grad = torch.sin(torch.arange(spikes.numel(), dtype=torch.float32)).view_as(spikes)
        back, sums = cpu.fire_backward(grad, current, scale, shift, shift, layer)
        return [cpu.moments(current.flatten(0, 1)), spikes, count, back, sums]

    try:
        torch.set_num_threads(1)
        alone = everything()
        torch.set_num_threads(3)
        assert all(map(torch.equal, everything(), alone))
    finally:
        torch.set_num_threads(before)


def test_a_machine_without_a_compiler_computes_the_same(tmp_path: Path):
    code = """
import torch
from avsnn.models import kernels
from avsnn.models.neuron import LIF
print(kernels.choose("auto", torch.device("cpu")), int(LIF()(torch.linspace(0, 3, 50), 4).sum()))
"""

    def run(**variables: str) -> str:
        known = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | variables
        done = subprocess.run(
            [sys.executable, "-c", code], env=known, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    without = run(CC="/nowhere/cc")
    assert without.startswith("torch ")
    if cpu.available(CPU):
        assert run() == without.replace("torch", "cpu")
        # Without any program in the PATH, the kernels come from the library in the cache.
        assert run(PATH="/nowhere") == without.replace("torch", "cpu")


def test_every_source_file_is_part_of_the_name_of_the_library(tmp_path: Path, monkeypatch):
    shutil.copytree(compiled_library.SOURCES, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(compiled_library, "SOURCES", tmp_path)
    included = re.findall(r'#include "(.+)"', (tmp_path / "kernels.c").read_text())
    digests = {compiled_library.sources_digest(["cc"])}
    for name in ("kernels.c", *included):
        with (tmp_path / name).open("a") as source:
            source.write("\n")
        digests.add(compiled_library.sources_digest(["cc"]))
    assert len(included) > 1
    assert len(digests) == 2 + len(included)
