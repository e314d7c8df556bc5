"""Read state dicts of the authors' implementation of S-CMRL into our networks.

A state dict of the authors holds every module that their code builds, also the modules that their
code never calls. Our networks do not have the latter modules, so their keys are dropped and
reported. The authors' code stores thresholds as scalars; the thresholds become settings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from avsnn.models.settings import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

_KEY = re.compile(
    # Wrappers of torch (DataParallel, compile) put these prefixes in front, once or repeatedly.
    r"(?:(?:module|_orig_mod)\.)*(?P<module>.+?)\."
    r"(?P<tail>weight|bias|running_mean|running_var|num_batches_tracked|threshold|act_fun\.alpha)"
)
_NEVER_CALLED = re.compile(r"block\.\d\.norm[12]|av_attention\..+|block\.\d\.attn\.(.+\.)?res_lif")
_LAYER = {"conv": "conv", "bn": "norm", "lif": "lif"}
_STREAM = {"0": "audio", "1": "visual"}
_UNIT = {"q": "query", "k": "key", "v": "value", "proj": "projection"}
_MLP = {"1": "expand", "2": "contract"}
_SURROGATE_SLOPE = 4.0


Attention = Literal["spatio-temporal", "spatial", "temporal"]


class _Thresholds(TypedDict):
    threshold: float
    attention_threshold: float
    alignment_threshold: float


class AuthorsState(NamedTuple):
    """A state dict of the authors, translated to our settings and names.

    Attributes:
        settings: settings of the network to which the weights belong.
        classes: number of classes.
        state: weights under our names; ``build(settings, ...)`` loads these strictly.
        dropped: keys of the authors for modules that their code builds and never calls.
        unknown: keys of the authors that have no name in our networks.
    """

    settings: ModelSettings
    classes: int
    state: dict[str, Tensor]
    dropped: list[str]
    unknown: list[str]

    @property
    def audio_channels(self) -> int:
        """Channels of the audio image; 1 if the network has no audio."""
        return self._image_channels("audio_patch", "audio", 1)

    @property
    def visual_channels(self) -> int:
        """Channels of the visual image; 3 if the network has no vision."""
        return self._image_channels("visual_patch", "visual", 3)

    def _image_channels(self, patch: str, alone: str, otherwise: int) -> int:
        prefix = "patch" if self.settings.method == alone else patch
        weight = self.state.get(f"{prefix}.stages.0.conv.weight")
        return otherwise if weight is None else weight.shape[1]


def _patch_name(leaf: str) -> str | None:
    if match := re.fullmatch(r"proj_(conv|bn|lif)(\d?)", leaf):
        return f"stages.{match[2] or 0}.{_LAYER[match[1]]}"
    if match := re.fullmatch(r"rpe_(conv|bn|lif)", leaf):
        return f"position.{_LAYER[match[1]]}"
    return None


def _attention_name(leaf: str) -> str | None:
    if match := re.fullmatch(r"(spatial|temporal)_attn\.(.+)", leaf):
        inner = _attention_name(match[2])
        return None if inner is None else f"{match[1]}.{inner}"
    if match := re.fullmatch(r"(q|k|v|proj)_(conv|bn|lif)", leaf):
        return f"{_UNIT[match[1]]}.{_LAYER[match[2]]}"
    return {"attn_lif": "lif", "rpb_lif": "mix.lif"}.get(leaf)


def _mlp_name(leaf: str) -> str | None:
    if match := re.fullmatch(r"fc([12])_(conv|bn|lif)", leaf):
        return f"{_MLP[match[1]]}.{_LAYER[match[2]]}"
    return None


def _join(prefix: str, name: str | None) -> str | None:
    return None if name is None else f"{prefix}.{name}"


def _weight_block_name(stream: str, leaf: str) -> str | None:
    return _join(f"fusion.{_STREAM[stream]}", {"fc1": "mix", "fc2": "weight"}.get(leaf))


def _current_block_name(stream: str, leaf: str) -> str | None:
    if stream == "1":
        # Stream 1 is the block with audio and visual exchanged, whose result nothing reads.
        return None
    if match := re.fullmatch(r"mlp\.mlp\.(.+)", leaf):
        return _join("fusion.mlp", _mlp_name(match[1]))
    inner = {"fc1": "audio_current", "fc2": "visual_current", "v_lif": "lif"}.get(leaf)
    return _join("fusion", inner)


def _attention_block_name(stream: str, leaf: str) -> str | None:
    return _join(f"fusion.{_STREAM[stream]}", _attention_name(leaf))


_BLOCKS = {
    "s-cmrl": _attention_block_name,
    "sca": _attention_block_name,
    "weight-attention": _weight_block_name,
    "cmci": _current_block_name,
}


def our_name(module: str, *, method: str) -> str | None:
    """Return our name of a module of the authors, such as ``block.0.attn.q_conv``.

    Args:
        module: name of the module in the authors' state dict.
        method: our name of the method.

    Returns:
        None if our network has no such module.
    """
    if match := re.fullmatch(r"(audio|visual)_patch_embed\.(.+)", module):
        return _join(f"{match[1]}_patch", _patch_name(match[2]))
    if match := re.fullmatch(r"patch_embed\.(.+)", module):
        return _join("patch", _patch_name(match[1]))
    if match := re.fullmatch(r"mlp\.([01])\.mlp\.(.+)", module):
        return _join(f"{_STREAM[match[1]]}_mlp", _mlp_name(match[2]))
    if match := re.fullmatch(r"block\.0\.mlp\.(.+)", module):
        return _join("mlp", _mlp_name(match[1]))
    if match := re.fullmatch(r"block\.([01])\.trans_(linear|lif)", module):
        return f"fusion.{_STREAM[match[1]]}_alignment.{match[2]}" if method == "s-cmrl" else None
    if match := re.fullmatch(r"block\.([01])\.attn\.(.+)", module):
        if method in ("audio", "visual"):
            return _join("attention", _attention_name(match[2]))
        block = _BLOCKS.get(method)
        return None if block is None else block(match[1], match[2])
    heads = {"head.0": "head", "head.1": "audio_head", "head.2": "visual_head", "head": "head"}
    if module in heads:
        return "head" if method in ("audio", "visual") else f"readout.{heads[module]}"
    return None


def never_called(module: str, *, method: str) -> bool:
    """Return whether the authors' code builds this module and never uses its result."""
    unused_blocks = {
        "add": r"block\.\d\.(attn|trans_\w+)\b.*",
        "concat": r"block\.\d\.(attn|trans_\w+)\b.*",
        # The authors' code computes the block of the visual stream, but nothing reads its result.
        "cmci": r"block\.1\.attn\..+",
    }
    unused = unused_blocks.get(method)
    return bool(
        _NEVER_CALLED.fullmatch(module) or (unused is not None and re.fullmatch(unused, module))
    )


class _Shape(NamedTuple):
    """Facts about the network that follow from the shapes of the weights."""

    channels: int
    image_channels: int
    hidden: int
    classes: int
    concatenated: bool
    deep: bool


def _shape(tensors: Mapping[str, Tensor]) -> _Shape:
    alone = "patch_embed.rpe_conv.weight" in tensors
    stem = "patch_embed" if alone else "audio_patch_embed"
    try:
        channels = tensors[f"{stem}.rpe_conv.weight"].shape[0]
        image_channels = tensors[f"{stem}.proj_conv.weight"].shape[1]
        hidden = tensors[f"{'block' if alone else 'mlp'}.0.mlp.fc1_conv.weight"].shape[0]
        head = tensors["head.0.weight" if "head.0.weight" in tensors else "head.weight"]
    except KeyError as missing:
        raise ValueError("This is no state dict of the authors' networks.") from missing
    return _Shape(
        channels=channels,
        image_channels=image_channels,
        hidden=hidden,
        classes=head.shape[0],
        concatenated=head.shape[1] == 2 * channels,
        deep=f"{stem}.proj_conv2.weight" in tensors,
    )


def _infer_method(names: Iterable[str], image_channels: int) -> str:
    names = set(names)
    if any(name.startswith("patch_embed.") for name in names):
        return "audio" if image_channels == 1 else "visual"
    signs = {
        "head.0": "cmci",
        "block.0.attn.fc1": "weight-attention",
        "block.1.attn.rpb_lif": "sca",
        "block.0.attn.spatial_attn.q_conv": "s-cmrl",
        "block.0.trans_linear": "s-cmrl",
    }
    for sign, method in signs.items():
        if sign in names:
            return method
    raise ValueError(
        "These weights fit the plain baseline ('add' or 'concat') as well as 's-cmrl' without "
        "alignment; say which with method=..."
    )


def _infer_attention(method: str, names: set[str], given: str | None) -> Attention:
    both = "block.0.attn.spatial_attn.q_conv" in names
    fitting: set[Attention] = {"spatio-temporal"} if both else {"spatial", "temporal"}
    if method != "s-cmrl":
        # Other methods do not read this setting, so the default stays.
        return "spatio-temporal"
    if given is not None:
        fitting = {attention for attention in fitting if attention == given}
    if not fitting:
        raise ValueError(f"These weights are not those of {given} attention.")
    if len(fitting) > 1:
        raise ValueError(
            "Spatial and temporal attention have the same weights; say which with attention=..."
        )
    return fitting.pop()


def _thresholds(constants: Mapping[str, float]) -> _Thresholds:
    kinds: dict[str, set[float]] = {"attn_lif": set(), "trans_lif": set(), "other": set()}
    for name, value in constants.items():
        if name.endswith(".act_fun.alpha"):
            if value != _SURROGATE_SLOPE:
                raise ValueError(f"The surrogate gradient has slope {value} in {name}, not 4.")
            continue
        layer = name.split(".")[-2]
        kinds[layer if layer in kinds else "other"].add(value)
    for kind, values in kinds.items():
        if len(values) > 1:
            raise ValueError(f"Thresholds differ within a kind ({kind}): {sorted(values)}.")
    attention, alignment, other = ((values or {1.0}).pop() for values in kinds.values())
    return {
        "threshold": other,
        "attention_threshold": attention,
        "alignment_threshold": alignment,
    }


class _SortedKeys(NamedTuple):
    """The entries of a state dict by what becomes of each entry.

    Attributes:
        weights: weights under our names.
        constants: thresholds and slopes, by the name in the authors' state dict.
        dropped: keys of modules that the authors' code never calls.
        unknown: keys that have no name in our networks.
    """

    weights: dict[str, Tensor]
    constants: dict[str, float]
    dropped: list[str]
    unknown: list[str]


def _sort_keys(
    state: Mapping[str, Tensor], parsed: Mapping[str, re.Match[str]], *, method: str
) -> _SortedKeys:
    unparsed = [key for key in state if key not in parsed]
    result = _SortedKeys(weights={}, constants={}, dropped=[], unknown=unparsed)
    for key, match in parsed.items():
        module, tail = match["module"], match["tail"]
        ours = our_name(module, method=method)
        if never_called(module, method=method):
            result.dropped.append(key)
        elif ours is None:
            result.unknown.append(key)
        elif tail in ("threshold", "act_fun.alpha"):
            result.constants[f"{module}.{tail}"] = float(state[key])
        else:
            result.weights[f"{ours}.{tail}"] = state[key]
    return result


def import_authors_state(
    state: Mapping[str, Tensor],
    *,
    steps: int = 4,
    heads: int = 16,
    alpha: float = 1.5,
    method: str | None = None,
    attention: str | None = None,
) -> AuthorsState:
    """Read a state dict that the authors' code saved: the dict itself, without its wrapper.

    Width, classes, patch split, method, alignment, readout and thresholds follow from the keys and
    shapes. The caller must give the rest.

    Args:
        state: keys and tensors of the authors; prefixes ``module.`` and ``_orig_mod.`` are ignored.
        steps: T; no weight depends on T.
        heads: attention heads; no weight depends on the heads.
        alpha: factor of the residual, a constant of the authors' code.
        method: name of the method, needed if the weights fit several methods (the plain baseline
            keeps its unused blocks).
        attention: ``spatial`` or ``temporal``, which have the same weights.

    Returns:
        the settings of the network, and its weights under our names.

    Raises:
        ValueError: ``state`` is not a state dict of the authors, or fits several networks and the
            caller named none.
    """
    parsed = {key: match for key in state if (match := _KEY.fullmatch(key))}
    tensors = {f"{match['module']}.{match['tail']}": state[key] for key, match in parsed.items()}
    if len(tensors) < len(parsed):
        raise ValueError("Two weights have the same name apart from their prefixes.")
    shape = _shape(tensors)
    names = {match["module"] for match in parsed.values()}
    method = method or _infer_method(names, shape.image_channels)
    if method in ("add", "concat"):
        method = "concat" if shape.concatenated else "add"
    sorted_keys = _sort_keys(state, parsed, method=method)
    settings = ModelSettings(
        method=method,
        channels=shape.channels,
        steps=steps,
        heads=heads,
        mlp_ratio=shape.hidden // shape.channels,
        patch_split="deep" if shape.deep else "shallow",
        alpha=alpha,
        attention=_infer_attention(method, names, attention),
        alignment=method == "s-cmrl" and "block.0.trans_linear" in names,
        fuse="concat" if shape.concatenated and method != "concat" else "add",
        **_thresholds(sorted_keys.constants),
    )
    return AuthorsState(
        settings, shape.classes, sorted_keys.weights, sorted_keys.dropped, sorted_keys.unknown
    )
