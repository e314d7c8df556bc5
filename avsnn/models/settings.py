"""The settings of a network, checked before the network is built."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.registry import METHODS
from avsnn.models.surrogate import SURROGATES
from avsnn.pydantic_base import StrictModel, own_values

# YAML takes 1e-3 for text, so text that is a number becomes the number.
Option = Annotated[StrictBool | StrictInt | float | str, Field(union_mode="left_to_right")]
OPTIONS = TypeAdapter(dict[str, Option])


class ModelSettings(StrictModel):
    """All constants of one network; the defaults are the published values."""

    former_names: ClassVar[dict[str, str]] = {"options": "custom"}

    method: str = Field(
        default="s-cmrl",
        description="Network: s-cmrl, weight-attention, sca, cmci, add, concat, audio, visual, "
        "gated, cmqka, taaf, or a method of a plugin",
    )
    channels: int = Field(default=256, ge=8, le=8192, description="Width C of the tokens")
    steps: int = Field(default=4, ge=1, le=1024, description="Time steps T")
    heads: int = Field(default=16, ge=1, le=1024, description="Attention heads")
    mlp_ratio: int = Field(
        default=4, ge=1, le=64, description="Hidden width of the MLPs, as a multiple of C"
    )
    patch_split: Literal["deep", "shallow"] = Field(
        default="deep", description="Patches of 16 x 16 (deep) or 4 x 4 (shallow) pixels"
    )
    alpha: float = Field(
        default=1.5, ge=0.0, le=100.0, description="Factor of the cross-modal residual (s-cmrl)"
    )
    attention: Literal["spatio-temporal", "spatial", "temporal"] = Field(
        default="spatio-temporal",
        description="Axes that cross-modal attention looks over: tokens (spatial), time steps "
        "(temporal) or both (s-cmrl, gated)",
    )
    alignment: bool = Field(
        default=True,
        description="Semantic alignment of the residuals (s-cmrl, gated; off by default elsewhere)",
    )
    fuse: Literal["add", "concat"] = Field(
        default="add",
        description="How the head joins the two streams; the methods 'add', 'concat' and 'cmci' "
        "have heads of their own and accept only the default",
    )
    query: Literal["own", "other"] = Field(
        default="own",
        description="Stream that gives the query of cross-modal attention: the stream that gains "
        "the residual ('own', as published), or the other stream ('other', as the paper's figure "
        "draws the query) (s-cmrl, gated, sca, cmqka)",
    )
    temporal_layout: Literal["published", "corrected"] = Field(
        default="published",
        description="Heads and time steps after attention over time: interleaved (published) or "
        "kept apart (corrected)",
    )
    rpb: Literal["published", "learned"] = Field(
        default="published",
        description="Position bias of sca: random at every call (published) or a parameter "
        "(learned)",
    )
    detach_membrane: bool = Field(
        default=True,
        description="No gradient through time, as published; false is full BPTT",
    )
    tau: float = Field(default=2.0, ge=1.0, le=1e6, description="Membrane time constant, in steps")
    learn_tau: bool = Field(
        default=False, description="One learned time constant for each layer; it starts at tau"
    )
    reset: Literal["hard", "soft"] = Field(
        default="hard",
        description="Membrane potential after a spike: set to 0 (hard), or lowered by one "
        "threshold (soft)",
    )
    surrogate: str = Field(
        default="sigmoid",
        description="Function whose derivative replaces the derivative of the step function: "
        "sigmoid, atan, rectangular, or a surrogate of a plugin",
    )
    surrogate_slope: float | None = Field(
        default=None,
        gt=0.0,
        le=1e6,
        description="Slope of the surrogate, or width of the rectangular surrogate; "
        "unset is the value of the surrogate's paper: sigmoid 4, atan 2, rectangular 1",
    )
    threshold: float = Field(default=1.0, gt=0.0, le=1e6, description="Firing threshold")
    attention_threshold: float = Field(
        default=1.0,
        gt=0.0,
        le=1e6,
        description="Threshold of the neurons on attention (published code: 1.0; paper: 0.5)",
    )
    alignment_threshold: float = Field(
        default=1.0,
        gt=0.0,
        le=1e6,
        description="Threshold of the alignment neurons (published code: 1.0; paper: 0.5)",
    )

    attention_norm: bool = Field(
        default=False,
        description="Batch norm before the neurons on attention. The published network has no "
        "batch norm there, and few of these neurons fire",
    )
    alignment_norm: bool = Field(
        default=False,
        description="Batch norm before the alignment neurons. The published network has none there",
    )
    custom: dict[str, Any] = Field(
        default={},
        validate_default=True,
        description="Settings that only this method has, by name: weighs_loss of taaf, or those of "
        "a method of your own (docs/add-a-fusion-method.md)",
    )

    @field_validator("method")
    @classmethod
    def _is_registered(cls, method: str) -> str:
        METHODS.require(method)
        return method

    @field_validator("surrogate")
    @classmethod
    def _is_registered_surrogate(cls, surrogate: str) -> str:
        SURROGATES.require(surrogate)
        return surrogate

    @field_validator("custom")
    @classmethod
    def _are_settings_of_the_method(cls, values: dict[str, Any], info: ValidationInfo) -> Any:
        if "method" not in info.data:
            # The method itself is wrong, which is the mistake to name.
            return values
        method = METHODS[info.data["method"]]
        if method.own_settings is not None:
            return own_values(method.own_settings, values)
        return OPTIONS.validate_python(values)

    @model_validator(mode="before")
    @classmethod
    def _align_only_if_the_method_can(cls, data: Any) -> Any:
        # If the caller does not set `alignment`, the default is the published choice: S-CMRL was
        # published with alignment, and the other methods have no residuals to align.
        if isinstance(data, dict) and "alignment" not in data:
            method = None
            # The field `method` says what is wrong with a package.
            with suppress(ValueError):
                method = METHODS.get(str(data.get("method", "s-cmrl")))
            return {**data, "alignment": method is None or method.can_align}
        return data

    @property
    def options(self) -> dict[str, Any]:
        """The former name of ``custom``, which plugins of earlier versions read."""
        return self.custom

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        check_settings(self)
        return self


def check_settings(settings: ModelSettings) -> None:
    """Refuse settings from which no network can be built.

    Raises:
        ValueError: two settings contradict each other; the message is one sentence.
    """
    method = METHODS[settings.method]
    if settings.alignment and not method.can_align:
        raise ValueError(
            f"Method '{settings.method}' has no cross-modal residuals to align "
            "(set alignment to false)."
        )
    if settings.custom and method.own_settings is None and not method.takes_options:
        raise ValueError(
            f"Method '{settings.method}' has no settings of its own (leave custom empty)."
        )
    if settings.fuse != "add" and not method.chooses_readout:
        raise ValueError(
            f"Method '{settings.method}' joins its streams in its own way (leave fuse at 'add')."
        )
    if settings.learn_tau and settings.tau == 1.0:
        raise ValueError("A learned time constant must start above 1 step (raise tau).")
    if settings.channels % settings.heads:
        raise ValueError(f"{settings.channels} channels do not split into {settings.heads} heads.")
    widest = max(PATCH_SPLITS[settings.patch_split])
    if settings.channels % widest:
        raise ValueError(
            f"The {settings.patch_split} patch split needs channels that are a multiple of "
            f"{widest}, not {settings.channels}."
        )
