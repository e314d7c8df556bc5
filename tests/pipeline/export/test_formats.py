"""Exported networks, run by other programs, must give the spikes and logits of our network."""

import io
import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from avsnn.errors import UserError
from avsnn.models.fusion import Fused
from avsnn.models.plain_network import recorded_spikes
from avsnn.pipeline.export.onnx_file import onnx_file
from avsnn.pipeline.export.run_network import RunNetwork
from avsnn.pipeline.export.safetensors_file import load_safetensors, safetensors_file
from avsnn.pipeline.export.torchscript_file import torchscript_file
from tests.models.golden import EVENT_FRAMES, golden
from tests.models.networks import NEURONS, each_method

from .networks import logits_of, recorded, small_network


def spikes_of(network: RunNetwork, inputs: list[Tensor]) -> dict[str, Tensor]:
    with recorded_spikes(network.model) as spikes:
        logits_of(network, inputs)
    return spikes


def resized(inputs: list[Tensor], axes: tuple[int, ...], count: int) -> list[Tensor]:
    """Return inputs of another number of clips: the first ones, again and again."""
    rows = torch.arange(count) % inputs[0].shape[axes[0]]
    return [images.index_select(axis, rows) for images, axis in zip(inputs, axes, strict=True)]


def test_onnxruntime_gives_our_spikes_and_logits_for_any_number_of_clips() -> None:
    network, inputs = recorded(golden("spatialtemporal"))
    session = onnxruntime.InferenceSession(onnx_file(network, spikes=True))
    outputs = [output.name for output in session.get_outputs()]
    assert [side for side in session.get_inputs()[0].shape if isinstance(side, str)] == ["batch"]
    for count in (1, 4, 7):
        batch = resized(inputs, network.batch_axes, count)
        given = {
            i.name: images.numpy() for i, images in zip(session.get_inputs(), batch, strict=True)
        }
        logits, *trains = map(torch.from_numpy, session.run(None, given))
        ours = spikes_of(network, batch)
        assert outputs == ["logits", *ours]
        for (layer, spikes), theirs in zip(ours.items(), trains, strict=True):
            assert torch.equal(spikes, theirs), layer
        assert torch.allclose(logits, logits_of(network, batch), atol=1e-5)


@pytest.fixture
def _no_profiling():
    """Run TorchScript as it is: the optimizer of its first two calls takes seconds."""
    with torch.jit.optimized_execution(False):
        yield


@pytest.mark.usefixtures("_no_profiling")
@pytest.mark.parametrize("name", ["spatialtemporal", "cmci", "sca", "uni_audio", EVENT_FRAMES])
def test_torchscript_gives_our_spikes_and_logits_for_any_number_of_clips(name: str) -> None:
    network, inputs = recorded(golden(name))
    program = torch.jit.load(io.BytesIO(torchscript_file(network, spikes=True)))
    for count in (1, 3):
        batch = resized(inputs, network.batch_axes, count)
        logits, *trains = program(*batch)
        for (layer, spikes), theirs in zip(spikes_of(network, batch).items(), trains, strict=True):
            assert torch.equal(spikes, theirs), layer
        assert torch.allclose(logits, logits_of(network, batch), atol=1e-5)


@pytest.mark.usefixtures("_no_profiling")
@pytest.mark.parametrize("method", ["gated", "cmqka", "taaf"])
def test_later_methods_give_our_logits_in_torchscript_and_onnxruntime(method: str) -> None:
    network, inputs = small_network(method)
    due = logits_of(network, inputs)
    program = torch.jit.load(io.BytesIO(torchscript_file(network)))
    assert torch.allclose(program(*inputs), due, atol=1e-5)
    session = onnxruntime.InferenceSession(onnx_file(network))
    given = dict(zip(("audio", "visual"), (images.numpy() for images in inputs), strict=True))
    (logits,) = session.run(None, given)
    assert torch.allclose(torch.from_numpy(logits), due, atol=1e-4)


@pytest.mark.usefixtures("_no_profiling")
@pytest.mark.parametrize("neuron", [NEURONS[0], NEURONS[-1]], ids=str)
def test_torchscript_has_the_neurons_of_every_setting(neuron: dict) -> None:
    network, inputs = small_network("add", **neuron)
    program = torch.jit.load(io.BytesIO(torchscript_file(network)))
    assert torch.allclose(program(*inputs), logits_of(network, inputs), atol=1e-5)


def test_onnx_has_every_neuron_and_its_description_and_names_no_file_of_this_machine() -> None:
    network, inputs = small_network("audio", reset="soft", learn_tau=True, tau=3.0, steps=2)
    content = onnx_file(network)
    session = onnxruntime.InferenceSession(content)
    (logits,) = session.run(None, {"audio": inputs[0].numpy()})
    assert torch.allclose(torch.from_numpy(logits), logits_of(network, inputs), atol=1e-5)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    (entry,) = model.metadata_props
    assert json.loads(entry.value) == network.description.model_dump(mode="json")
    assert str(Path(__file__).parents[3]).encode() not in content


@pytest.mark.parametrize("write", [onnx_file, torchscript_file])
def test_a_network_that_cannot_be_recorded_is_one_sentence(write) -> None:
    class Python(torch.nn.Module):
        def forward(self, audio: Tensor, visual: Tensor) -> Fused:
            return Fused(audio * float(audio.numpy().sum()), torch.ops.avsnn.no_such(visual))

    network, _ = small_network("add")
    network.model.fusion = Python()
    with pytest.raises(UserError, match=r"cannot record this network .*choose another --format"):
        write(network)


def test_torchscript_needs_no_avsnn_and_names_no_file_of_this_machine(tmp_path: Path) -> None:
    network, inputs = small_network("s-cmrl")
    content = torchscript_file(network)
    assert str(Path(__file__).parents[3]).encode() not in content
    (tmp_path / "model.pt").write_bytes(content)
    torch.save([*inputs, logits_of(network, inputs)], tmp_path / "clips.pt")
    script = (
        "import sys, torch\n"
        "audio, visual, logits = torch.load('clips.pt')\n"
        "torch.jit.set_fusion_strategy([('STATIC', 0)])\n"
        "torch.jit.set_fusion_strategy([('STATIC', 0)])\n"
        "program = torch.jit.load('model.pt')\n"
        "assert torch.allclose(program(audio, visual), logits, atol=1e-5)\n"
        "assert 'avsnn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)


@each_method
def test_avsnn_loads_its_own_safetensors(method: str, tmp_path: Path) -> None:
    network, inputs = small_network(method)
    (tmp_path / "model.safetensors").write_bytes(safetensors_file(network))
    again = network._replace(model=load_safetensors(tmp_path / "model.safetensors"))
    assert torch.equal(logits_of(again, inputs), logits_of(network, inputs))


def test_a_safetensors_file_of_something_else_is_refused_with_one_sentence(tmp_path: Path) -> None:
    network, _ = small_network("add")
    content = bytearray(safetensors_file(network))
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_safetensors(tmp_path / "model.safetensors")
