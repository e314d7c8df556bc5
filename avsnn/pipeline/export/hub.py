"""A classifier that huggingface_hub saves, loads and pushes; needs the extra ``export``.

``SpikingClassifier.from_pretrained(folder)`` reads a folder of ``avsnn export --format
huggingface``, or a repository of the Hugging Face Hub with the same files.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from avsnn.errors import UserError
from avsnn.models.settings import ModelSettings
from avsnn.models.zoo import build
from avsnn.pipeline.export.extras import require_package
from avsnn.pipeline.settings_overrides import first_mistake

require_package("huggingface_hub", "the class SpikingClassifier")

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download  # noqa: E402
from huggingface_hub.errors import EntryNotFoundError, HFValidationError  # noqa: E402


class SpikingClassifier(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="avsnn",
    tags=["spiking-neural-network", "audio-visual"],
):
    """A spiking network that returns class scores, with the names of its classes.

    Args:
        settings: the settings of the network (``ModelSettings``).
        classes: names of the classes, in the order of the scores.
        audio_channels: channels of the audio input.
        visual_channels: channels of the visual input.
        tokens: number N of tokens; only a learned position bias needs N.
        description: what a user must know of inputs and output (``NetworkDescription``).

    Attributes:
        network: the network.
        classes: names of the classes.
        description: as given.
    """

    def __init__(
        self,
        *,
        settings: dict[str, Any],
        classes: list[str],
        audio_channels: int = 1,
        visual_channels: int = 3,
        tokens: int | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise UserError("the configuration of the model names no list of classes.")
        self.classes = classes
        self.description = description or {}
        self.network = build(
            ModelSettings.model_validate(settings),
            classes=len(classes),
            audio_channels=audio_channels,
            visual_channels=visual_channels,
            tokens=tokens,
        )
        self._card = ""

    def forward(self, audio: Tensor | None = None, visual: Tensor | None = None) -> Tensor:
        """Return class scores ``[B, classes]``, before softmax.

        Args:
            audio: audio images ``[B, 1, S, S]``, or one for each time step, ``[T, B, 1, S, S]``;
                None for a network that reads only the visual input.
            visual: frames ``[B, C, S, S]``, or one for each time step, ``[T, B, C, S, S]``; None
                for a network that reads only the audio input.
        """
        logits: Tensor = self.network(audio, visual).logits
        return logits

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, **arguments: Any
    ) -> "SpikingClassifier":
        """Load a folder of ``avsnn export --format huggingface``, or a repository of the Hub.

        Args:
            pretrained_model_name_or_path: the folder, or the name of the repository.
            **arguments: the keywords of ``huggingface_hub.ModelHubMixin.from_pretrained``.

        Raises:
            UserError: the folder holds no model, or there is neither such a folder nor such a
                repository.
        """
        place = Path(pretrained_model_name_or_path)
        if place.is_dir():
            for name in ("config.json", "model.safetensors"):
                if not (place / name).exists():
                    raise UserError(
                        f"{place} holds no {name}; give a folder that 'avsnn export --format "
                        "huggingface' wrote."
                    )
            return super().from_pretrained(place, **arguments)
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **arguments)
        except HFValidationError:
            reason = "this is no name of a repository of the Hugging Face Hub"
        except (OSError, EntryNotFoundError) as error:
            reason = f"the Hugging Face Hub gives no such model ({str(error).splitlines()[0]})"
        raise UserError(f"there is no folder {place}, and {reason}; check the path.")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **arguments: Any) -> "SpikingClassifier":
        # By default, the mixin would leave weights untrained that the file does not hold.
        arguments.setdefault("strict", True)
        try:
            model: SpikingClassifier = super()._from_pretrained(model_id=model_id, **arguments)
        except (ValueError, TypeError, RuntimeError, RecursionError, SafetensorError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if isinstance(error, ValidationError):
                reason = first_mistake(error)
                if error.errors()[0]["loc"] == ("method",):
                    reason += "; import the file of the method first"
            raise UserError(f"{model_id} holds no model that avsnn can load ({reason}).") from None
        model._card = _read_card(model_id, arguments)
        return model

    @classmethod
    def _load_as_pickle(  # type: ignore[override]
        cls, model: nn.Module, model_file: str, map_location: str, strict: bool
    ) -> nn.Module:
        """Refuse weights in a pickle, which can run code.

        Raises:
            UserError: always.
        """
        raise UserError(f"{model_file} is a pickle, which can run code; ask for model.safetensors.")

    def generate_model_card(self, *arguments: Any, **keywords: Any) -> ModelCard:
        """Return the model card that was loaded; without a card, the general card of the Hub."""
        if self._card:
            return ModelCard(self._card)
        return super().generate_model_card(*arguments, **keywords)


def _read_card(model_id: str, arguments: dict[str, Any]) -> str:
    """Return the model card of a folder or a repository; empty if there is none."""
    wanted = ("revision", "cache_dir", "force_download", "token", "local_files_only")
    try:
        path = Path(model_id, "README.md")
        if not Path(model_id).is_dir():
            path = Path(
                hf_hub_download(model_id, "README.md", **{name: arguments[name] for name in wanted})
            )
        return path.read_text(encoding="utf-8")
    # The Hub's errors of a missing file come from several libraries.
    except Exception:
        return ""
