"""What a model is built from, checked before anything is built."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from avsnn.models.methods import METHODS
from avsnn.models.patch_split import PATCH_SPLITS


class ModelSettings(BaseModel):
    """One network, to the last constant; the defaults are the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(default="s-cmrl", description="Network: " + ", ".join(METHODS))
    channels: int = Field(default=256, ge=8, le=8192, description="Width C of the tokens")
    steps: int = Field(default=4, ge=1, le=1024, description="Time steps T")
    heads: int = Field(default=16, ge=1, le=1024, description="Attention heads")
    mlp_ratio: int = Field(default=4, ge=1, le=64, description="Hidden width of the MLPs over C")
    patch_split: Literal["deep", "shallow"] = Field(
        default="deep", description="Patches of 16 x 16 (deep) or 4 x 4 (shallow) pixels"
    )
    alpha: float = Field(
        default=1.5, ge=0.0, le=100.0, description="Share of the cross-modal residual (s-cmrl)"
    )
    attention: Literal["spatio-temporal", "spatial", "temporal"] = Field(
        default="spatio-temporal", description="What cross-modal attention looks over (s-cmrl)"
    )
    alignment: bool = Field(
        default=True,
        description="Semantic alignment of the residuals (s-cmrl; off by default elsewhere)",
    )
    fuse: Literal["add", "concat"] = Field(
        default="add",
        description="How the head joins two streams; 'add' and 'concat' as methods have their own",
    )
    query: Literal["own", "other"] = Field(
        default="own",
        description="Stream that asks in cross-modal attention: the one that gains, as published, "
        "or the other, as the paper's figure draws it (s-cmrl, sca)",
    )
    temporal_layout: Literal["published", "corrected"] = Field(
        default="published",
        description="Heads and time interleaved after attention over time, as published, or apart",
    )
    rpb: Literal["published", "learned"] = Field(
        default="published",
        description="Position bias of sca: random at every call, as published, or a parameter",
    )
    detach_membrane: bool = Field(
        default=True, description="No gradient through time, as published; false is full BPTT"
    )
    tau: float = Field(default=2.0, ge=1.0, le=1e6, description="Membrane time constant, in steps")
    learn_tau: bool = Field(
        default=False, description="One learned time constant for each layer, which starts at tau"
    )
    reset: Literal["hard", "soft"] = Field(
        default="hard", description="After a spike: back to rest, or down by one threshold"
    )
    surrogate: Literal["sigmoid", "atan", "rectangular"] = Field(
        default="sigmoid", description="Whose derivative replaces that of the step function"
    )
    surrogate_slope: float | None = Field(
        default=None,
        gt=0.0,
        le=1e6,
        description="Slope of the surrogate, or width of the rectangular one; "
        "unset is what its paper uses: sigmoid 4, atan 2, rectangular 1",
    )
    threshold: float = Field(default=1.0, gt=0.0, le=1e6, description="Firing threshold")
    attention_threshold: float = Field(
        default=1.0,
        gt=0.0,
        le=1e6,
        description="Threshold of the neurons on attention (published: 1.0; the paper's: 0.5)",
    )
    alignment_threshold: float = Field(
        default=1.0,
        gt=0.0,
        le=1e6,
        description="Threshold of the alignment neurons (published: 1.0; the paper's: 0.5)",
    )

    attention_norm: bool = Field(
        default=False,
        description="Batch norm in front of the attention neurons, as all others have one; "
        "as published these have none, and few of them fire",
    )
    alignment_norm: bool = Field(
        default=False, description="The same in front of the alignment neurons"
    )

    @field_validator("method")
    @classmethod
    def _registered(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"There is no method '{method}'; there are {', '.join(METHODS)}.")
        return method

    @model_validator(mode="before")
    @classmethod
    def _alignment_only_where_possible(cls, data: Any) -> Any:
        # An unsaid alignment means "as published", and only S-CMRL was published with it.
        if isinstance(data, dict) and "alignment" not in data:
            method = METHODS.get(str(data.get("method", "s-cmrl")))
            return {**data, "alignment": method is None or method.can_align}
        return data

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check(self)
        return self


def check(settings: ModelSettings) -> None:
    """Refuse what cannot be built.

    Raises:
        ValueError: the settings contradict each other; one sentence says how.
    """
    method = METHODS[settings.method]
    if settings.alignment and not method.can_align:
        raise ValueError(
            f"Method '{settings.method}' has no cross-modal residuals to align "
            "(set alignment to false)."
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
