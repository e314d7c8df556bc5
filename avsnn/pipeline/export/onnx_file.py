"""ONNX: a graph of standard operations, for onnxruntime and many other programs."""

from typing import Any

import torch

from avsnn.errors import UserError
from avsnn.models.plain_network import PlainLIF, PlainNetwork, plain_operations
from avsnn.pipeline.export.extras import recording, require_package
from avsnn.pipeline.export.run_network import RunNetwork

# A protobuf message, and so an ONNX file, cannot be larger.
MAX_BYTES = 2_000_000_000

OPSET = 18
FLOAT = 1


def onnx_file(network: RunNetwork, *, spikes: bool = False) -> bytes:
    """Return the network as an ONNX file with a dynamic number of clips.

    Args:
        network: the network.
        spikes: also return the spikes of every layer of neurons, as further outputs.

    Raises:
        UserError: the package onnxscript or onnx is missing, or the network is too large.
    """
    for package in ("onnx", "onnxscript"):
        require_package(package, "an export to ONNX")
    size = sum(weight.nbytes for weight in network.model.state_dict().values())
    if size > MAX_BYTES:
        raise UserError(
            f"the weights have {size:,} bytes, and an ONNX file cannot have more than "
            f"{MAX_BYTES:,}; choose --format torchscript or safetensors."
        )
    plain = network.plain()
    plain.returns_spikes = spikes
    with recording("an export to ONNX"):
        model = _record(plain, network)
    _remove_traces(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = "avsnn", network.description.model_dump_json()
    return bytes(model.SerializeToString(deterministic=True))


def _record(plain: PlainNetwork, network: RunNetwork) -> Any:
    """Return the ONNX model of a network."""
    for module in plain.modules():
        if isinstance(module, PlainLIF):
            module.as_operator = True
    batch = torch.export.Dim("batch", min=1)
    names = [one.name for one in network.description.inputs]
    inputs = network.example_inputs()
    with plain_operations():
        # The first call tells the order of the layers. A tracer forgets what it sets.
        plain(*inputs)
        layers = plain.ran
        exported = torch.export.export(
            plain,
            inputs,
            dynamic_shapes=tuple({axis: batch} for axis in network.batch_axes),
            strict=False,
        )
        program = torch.onnx.export(
            exported,
            (),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits", *layers],
            custom_translation_table={torch.ops.avsnn.plain_fire.default: _fire},
            verbose=False,
        )
    assert program is not None  # noqa: S101 - None only if a path is given
    return program.model_proto


def _fire(
    current: Any, scale: Any, shift: Any, steps: int, rate: float, threshold: float, reset: str
) -> Any:
    """Translate ``plain_network.plain_fire`` into ONNX operations."""
    op = require_package("onnxscript", "an export to ONNX").opset18
    count = steps or current.shape[0]
    if scale is not None:
        behind = [-1, *[1] * (len(current.shape) - (2 if steps else 3))]
        current = op.Add(op.Mul(current, op.Reshape(scale, behind)), op.Reshape(shift, behind))
    if steps:
        currents = [op.Unsqueeze(current, [0])] * steps
    else:
        currents = op.Split(current, axis=0, num_outputs=count) if count > 1 else [current]
    factor, level = op.Constant(value_float=rate), op.Constant(value_float=threshold)
    rest = op.Constant(value_float=0.0)
    train: list[Any] = []
    membrane: Any = None
    for x in currents:
        potential = op.Mul(x, factor)
        if membrane is not None:
            potential = op.Add(membrane, op.Mul(op.Sub(x, membrane), factor))
        fired = op.GreaterOrEqual(potential, level)
        spikes = op.Cast(fired, to=FLOAT)
        if reset == "hard":
            membrane = op.Where(fired, rest, potential)
        else:
            membrane = op.Sub(potential, op.Mul(spikes, level))
        train.append(spikes)
    return op.Concat(*train, axis=0)


def _remove_traces(model: Any) -> None:
    """Remove what names files and lines of this machine, and call the number of clips `batch`."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    # The shapes between inputs and outputs follow from the inputs.
    del graph.value_info[:]
    for part in (*graph.input, *graph.output):
        for side in part.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = "batch"
