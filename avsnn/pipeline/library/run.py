"""A trained run, as Python code uses the run."""

from functools import cached_property
from pathlib import Path

from torch import nn

from avsnn.datasets_manifest.clips import Part
from avsnn.errors import UserError
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.evaluate import evaluate
from avsnn.pipeline.evaluation.results import RunResults
from avsnn.pipeline.export.export import Export, Format, export
from avsnn.pipeline.inference.device import choose_device, choose_kernels, choose_precision
from avsnn.pipeline.inference.network import load_network, place_network
from avsnn.pipeline.prediction.predict import predict_files
from avsnn.pipeline.prediction.record import Prediction
from avsnn.pipeline.prediction.shapes import sample_shapes
from avsnn.pipeline.rows import Rows
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.stored_run import StoredRun


def load(folder: str | Path, *, root: str | Path | None = None, device: str = "auto") -> "Run":
    """Open a run folder that ``avsnn train`` or ``avsnn convert-checkpoint`` made.

    Args:
        folder: the run folder, such as ``runs/demo``.
        root: the folder that holds the data sets; None takes the folder of the training.
        device: ``cpu``, ``cuda``, or ``auto``, which takes a GPU if there is one.

    Raises:
        UserError: the folder is not a run, or has no checkpoint yet; or there is no such device.
    """
    return Run(folder, root=root, device=device)


class Run:
    """A trained network with its settings.

    The weights are those of the best checkpoint at the moment of the first use. See `load`.
    """

    def __init__(
        self, folder: str | Path, *, root: str | Path | None = None, device: str = "auto"
    ) -> None:
        self._stored = StoredRun(Path(folder), root=None if root is None else Path(root))
        self._device = choose_device(device)

    def __repr__(self) -> str:
        config = self.config
        return f"<Run {self.folder}: {config.settings.model.method} on {config.dataset}>"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._stored.folder

    @property
    def config(self) -> RunConfig:
        """Settings, data set and origin of the run: the content of ``config.yaml``."""
        return self._stored.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class, in the order of the logits."""
        return tuple(self.config.manifest.classes)

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation mode, on the device of the run.

        The network is called as ``network(audio, visual)`` with normalised inputs, audio
        ``[B, 1, S, S]`` and visual ``[B, 3, S, S]`` (of event data, and of another image in every
        time step, ``[T, B, C, S, S]``), and returns ``avsnn.models.spikformer.Output``.
        `open_clips` gives inputs of this form.
        """
        settings = self.config.settings
        choose_precision(settings, self._device)
        choose_kernels("auto", self._device)
        shapes = sample_shapes(self.config, lambda _: None)
        model, _ = load_network(self.config, shapes, self._stored.checkpoint, self._stored.weights)
        return place_network(model, settings, self._device)

    def predict(self, *clips: str | Path, workers: int | None = None) -> Rows[Prediction]:
        """Return the answer for clips in files and folders.

        Args:
            clips: videos with sound, pairs of an image and a sound, recordings of event sensors, or
                folders; see ``avsnn predict --help``.
            workers: number of processes that decode; None takes one for each core.

        Returns:
            one prediction for each clip. A clip that cannot be decoded has a reason in place of an
            answer.

        Raises:
            UserError: an argument is no path, a path does not exist, or no file could be a clip.
        """
        for clip in clips:
            if not isinstance(clip, str | Path):
                raise UserError(
                    f"predict takes paths, and {clip!r} is no path; of a list, call "
                    "run.predict(*paths)."
                )
        paths = [Path(clip) for clip in clips]
        return Rows(predict_files(self._stored, paths, device=self._device, workers=workers))

    def evaluate(
        self, part: Part = "test", *, robustness: bool = False, insight: bool = False
    ) -> RunResults:
        """Measure the run on one part of its split, or read what was measured before.

        Args:
            part: ``train``, ``val`` or ``test``.
            robustness: also measure the answers to noisy, missing and swapped inputs.
            insight: also measure what happens inside the network.

        Raises:
            UserError: there is no such part, or the prepared data are gone or changed.
        """
        return evaluate(
            self.folder,
            part=part,
            root=self.config.root,
            device=self._device,
            progress=NoProgress(),
            robustness=robustness,
            insight=insight,
        )

    def export(self, kind: Format, out: str | Path | None = None) -> Export:
        """Write the network of the run in a file format of another program.

        Args:
            kind: ``onnx``, ``torchscript``, ``safetensors``, ``nir`` or ``huggingface``.
            out: the file to write, or the folder for ``huggingface``; None takes a name in the
                folder ``export`` of the run.

        Returns:
            the path, and what a user of the network must know.

        Raises:
            UserError: there is no such format, a package is missing, the format cannot express
                the network, or the place cannot be written.
        """
        return export(self.folder, kind=kind, out=None if out is None else Path(out))
