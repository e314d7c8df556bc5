"""Strategies of balanced training: a step changes gradients, so that no stream is left behind.

A network of two streams often learns from one modality and neglects the other. Each strategy here
compares the streams in every step and changes the gradients before the optimizer reads them. A
strategy neither adds a parameter nor changes the network or its answers, so it works with every
method of two streams.

All strategies see a stream alone in one way: by the share that the stream has in the head
(``Output.shares``). This is how OGM-GE sees a stream. The programs of IEMF and MMPareto give each
stream a further head of its own. To use the share there too is our choice: it needs no weights that
only the training reads. The share of a stream is computed after the fusion, so it also holds what
the fusion has brought from the other stream.

A new strategy is one class and one line ``STRATEGIES["NAME"] = CLASS``, in this file or in a
plugin.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from avsnn.pydantic_base import StrictModel
from avsnn.registry import Registry, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from avsnn.models.spikformer import AudioVisualSpikformer, Output

#: The setting for a training without a strategy.
NONE = "none"

#: Factor of the mixed gradient of MMPareto, as in the program of arXiv 2405.17730.
PARETO_FACTOR = 1.5


class BalanceSettings(StrictModel):
    """How a training keeps the balance of both modalities; by default not at all, as published."""

    strategy: str = Field(
        default=NONE,
        description="Strategy that changes the gradients of the streams in every step: none (as "
        "published), ogm-ge, iemf or mmpareto (methods of two streams)",
    )
    alpha: float = Field(
        default=0.8,
        ge=0,
        le=100,
        description="Strength of ogm-ge: 0 changes no gradient of the stronger stream, and the "
        "authors advise 0.8 for CREMA-D and 0.1 for VGGSound",
    )
    modality_dropout: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability with which a training clip loses one of its modalities, the sound "
        "or the frames with equal chance: the input is 0 then. 0 drops nothing, as published",
    )

    @field_validator("strategy")
    @classmethod
    def _is_known(cls, strategy: str) -> str:
        STRATEGIES.require(strategy)
        return strategy


class Strategy(ABC):
    """Base of every strategy.

    In each step, ``note`` is called for each part of the batch before the backward pass of the
    part, and ``change_gradients`` is called once after the backward passes. Neither reads a number
    from the device, so that a CUDA graph can record both. What a strategy keeps from one step to
    the next lies in ``memory``, which a resume point holds.

    Args:
        network: the network, whose ``gives_shares`` is set.
        settings: the constants of the strategy.
        label_smoothing: share of every target that is spread over all classes.
        mean_over_processes: returns the mean of a tensor over the processes that train together.

    Attributes:
        encoders: for audio and for vision, the parameters that belong to the stream alone: those of
            its patch split and of its MLP.
        memory: tensors that the strategy keeps from one step to the next, by name. The constructor
            of a strategy makes them, steps change them in place, and they are the same in all
            processes that train together.
    """

    #: Whether ``note`` runs through the graph of the forward pass, which must stay whole for the
    #: backward pass.
    reads_graph: ClassVar[bool] = False

    def __init__(
        self,
        network: AudioVisualSpikformer,
        settings: BalanceSettings,
        *,
        label_smoothing: float,
        mean_over_processes: Callable[[Tensor], Tensor],
    ) -> None:
        self.network = network
        self.settings = settings
        self.label_smoothing = label_smoothing
        self.mean_over_processes = mean_over_processes
        self.memory: dict[str, Tensor] = {}
        self.encoders = tuple(
            [*patch.parameters(), *mlp.parameters()]
            for patch, mlp in (
                (network.audio_patch, network.audio_mlp),
                (network.visual_patch, network.visual_mlp),
            )
        )

    @abstractmethod
    def note(self, output: Output, labels: Tensor, *, weight: float) -> None:
        """Take what the strategy needs from a part of the batch.

        Args:
            output: output of the network for the part.
            labels: classes of the part, ``[B]``, int64.
            weight: share of the part in the batch.
        """

    @abstractmethod
    def change_gradients(self) -> None:
        """Change the gradients of the whole batch, which lie in the parameters."""


class NoStrategy(Strategy):
    """The gradients stay as they are, as published."""

    def note(self, output: Output, labels: Tensor, *, weight: float) -> None:
        """Take nothing."""

    def change_gradients(self) -> None:
        """Change nothing."""


class ScoreStrategy(Strategy):
    """Base of strategies that compare scores: the probabilities of the right classes, summed."""

    _sums: Tensor | None = None

    def note(self, output: Output, labels: Tensor, *, weight: float) -> None:
        """Add up the scores of audio, vision and both together."""
        logits = torch.stack([*output.shares, output.logits]).detach()
        probabilities = torch.softmax(logits.double(), dim=2)
        sums = weight * probabilities.gather(2, labels.expand(3, -1).unsqueeze(2)).sum(dim=(1, 2))
        self._sums = sums if self._sums is None else self._sums + sums

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores of audio, vision and both together; start anew."""
        if self._sums is None:
            raise RuntimeError("The scores are read before a part of the batch is noted.")
        audio, visual, both = self.mean_over_processes(self._sums).unbind()
        self._sums = None
        return audio, visual, both


def modulation(own: Tensor, other: Tensor, *, alpha: float) -> Tensor:
    """Return the coefficient ``k`` of OGM-GE for a stream: ``1 - tanh(alpha rho)`` or 1.

    ``rho = s_own / s_other`` is the discrepancy ratio, and ``k`` is 1 where ``rho`` is 1 or less
    (arXiv 2203.15332, equation 10).

    Args:
        own: score of the stream, a scalar.
        other: score of the other stream, a scalar.
        alpha: strength.
    """
    rho = own / other
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), torch.ones_like(rho))


class GradientModulation(ScoreStrategy):
    """OGM-GE: the gradients of the stronger stream shrink, and noise is added to both streams.

    ``g <- k g + h`` for every filter and matrix of an encoder. ``k`` is `modulation` of the scores
    of both streams; ``h`` is Gaussian noise with the standard deviation of ``g``, computed from
    the values of one filter or matrix before ``k`` (arXiv 2203.15332, and the authors' program).

    These choices are ours: vectors such as those of batch norm stay as they are, which the program
    does too; the MLP behind the fusion belongs to the encoder; and the modulation lasts for the
    whole training, where the program ends it after half of the epochs.
    """

    def change_gradients(self) -> None:
        """Scale the gradients of both encoders and add the noise."""
        audio, visual, _ = self.scores()
        alpha = self.settings.alpha
        factors = (
            modulation(audio, visual, alpha=alpha),
            modulation(visual, audio, alpha=alpha),
        )
        for parameters, factor in zip(self.encoders, factors, strict=True):
            for parameter in parameters:
                gradient = parameter.grad
                if gradient is not None and gradient.ndim > 1:
                    noise = torch.randn_like(gradient) * gradient.std()
                    gradient.mul_(factor).add_(noise)


def inverse_effectiveness(audio: Tensor, visual: Tensor, both: Tensor) -> Tensor:
    """Return the coefficient of IEMF, ``xi = 1 + tanh(1 - (s_a + s_v) / (2 s_av))``, a scalar.

    The weaker the streams are beside the whole network, the larger is ``xi``, at most
    ``1 + tanh(1)`` (arXiv 2505.10176).

    Args:
        audio: score of the audio stream, a scalar.
        visual: score of the visual stream, a scalar.
        both: score of the network, a scalar.
    """
    return 1 + torch.tanh(1 - (audio + visual) / (2 * both))


class InverseEffectiveness(ScoreStrategy):
    """IEMF: the gradient of the fusion grows where the streams alone are weak.

    ``g <- xi g`` with `inverse_effectiveness` of the scores, for the parameters of the fusion
    method and of the head that gives the logits (arXiv 2505.10176).

    These choices are ours. The head belongs to the fusion, because the head is the fusion in the
    authors' program, and because the methods ``add`` and ``concat`` have no other fusion. A stream
    has no head of its own, so nothing is added to the loss; the program adds the cross-entropy of
    the head of each stream.
    """

    def change_gradients(self) -> None:
        """Scale the gradients of the fusion method and of the head."""
        factor = inverse_effectiveness(*self.scores())
        for part in (self.network.fusion, self.network.readout.head):
            for parameter in part.parameters():  # type: ignore[union-attr]
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)


class ParetoGradients(Strategy):
    """MMPareto: the gradient of an encoder mixes those of the joint loss and of its own loss.

    With the joint gradient ``j`` and the gradient ``u`` of the stream's own cross-entropy, both of
    all parameters of an encoder, ``h = 2 a j + 2 (1 - a) u``. The weight ``a`` is 1/2 if
    ``j . u > 0``. Otherwise the gradients are in conflict, and ``a`` in [0, 1] makes the norm of
    ``h`` smallest. Then ``g <- 1.5 h |j + u| / |h|`` (arXiv 2405.17730, and the authors' program).
    Where ``h`` is 0, the gradient becomes 0.

    These choices are ours. The norms are those of a whole encoder, where the program takes that of
    each tensor. The MLP behind the fusion belongs to the encoder. The joint loss is the loss that
    is trained without a strategy, with the semantic alignment of ``s-cmrl`` and the auxiliary parts
    of ``cmci``. The own cross-entropy of a stream is that of its share in the head, and trains its
    encoder alone: the head and the fusion learn from the joint loss.
    """

    reads_graph = True
    _own: tuple[list[Tensor], ...] | None = None

    def note(self, output: Output, labels: Tensor, *, weight: float) -> None:
        """Add up the gradients of each stream's own cross-entropy."""
        found = []
        for logits, parameters in zip(output.shares, self.encoders, strict=True):
            exact = logits if logits.dtype == torch.float64 else logits.float()
            loss = functional.cross_entropy(exact, labels, label_smoothing=self.label_smoothing)
            gradients = torch.autograd.grad(
                weight * loss, parameters, retain_graph=True, materialize_grads=True
            )
            found.append(list(gradients))
        if self._own is not None:
            found = [
                [one + other for one, other in zip(before, now, strict=True)]
                for before, now in zip(self._own, found, strict=True)
            ]
        self._own = tuple(found)

    def change_gradients(self) -> None:
        """Replace the gradients of both encoders by the mixed gradients."""
        if self._own is None:
            raise RuntimeError("The gradients are mixed before a part of the batch is noted.")
        for parameters, gradients in zip(self.encoders, self._own, strict=True):
            pairs = [
                (parameter.grad, self.mean_over_processes(own))
                for parameter, own in zip(parameters, gradients, strict=True)
                if parameter.grad is not None
            ]
            of_joint, of_own = pareto_factors(pairs)
            for joint, own in pairs:
                joint.mul_(of_joint).add_(own * of_own)
        self._own = None


def pareto_factors(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the factors of the joint and of the own gradient in MMPareto, scalars.

    Args:
        pairs: the joint and the own gradient of each parameter of an encoder.
    """
    joint = torch.stack([one.square().sum() for one, _ in pairs]).sum()
    own = torch.stack([other.square().sum() for _, other in pairs]).sum()
    dot = torch.stack([(one * other).sum() for one, other in pairs]).sum()
    smallest = ((own - dot) / (joint + own - 2 * dot)).clamp(0, 1)
    a = torch.where(dot > 0, torch.full_like(dot, 0.5), smallest)
    b = 1 - a
    mixed = 4 * (a.square() * joint + b.square() * own + 2 * a * b * dot)
    norms = torch.where(mixed > 0, (joint + own + 2 * dot) / mixed, torch.zeros_like(mixed))
    scale = 2 * PARETO_FACTOR * norms.clamp(min=0).sqrt()
    return scale * a, scale * b


def _check_strategy(name: str, strategy: Any) -> None:
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        raise RegistryError(
            f"the strategy {name!r} must be a class that inherits from Strategy of "
            "avsnn.models.balance"
        )
    if missing := sorted(strategy.__abstractmethods__):
        raise RegistryError(
            f"the class {strategy.__name__} has no method {' and no '.join(missing)}"
        )
    none = None
    for function, form, arguments, named in (
        (
            strategy,
            "__init__ must take (self, network, settings, *, label_smoothing, mean_over_processes)",
            (none, none),
            {"label_smoothing": none, "mean_over_processes": none},
        ),
        (
            strategy.note,
            "note must take (self, output, labels, *, weight)",
            (none, none, none),
            {"weight": none},
        ),
        (strategy.change_gradients, "change_gradients must take (self)", (none,), {}),
    ):
        try:
            inspect.signature(function).bind(*arguments, **named)
        except TypeError as error:
            raise RegistryError(f"{strategy.__name__}.{form}: {error}") from None


STRATEGIES: Registry[type[Strategy]] = Registry(
    "strategy", group="avsnn.strategies", check=_check_strategy
)
STRATEGIES.update(
    {
        NONE: NoStrategy,
        "ogm-ge": GradientModulation,
        "iemf": InverseEffectiveness,
        "mmpareto": ParetoGradients,
    }
)
STRATEGIES.protect()
