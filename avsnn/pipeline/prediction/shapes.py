"""The shapes of the samples that the network of a run reads, also where the data are gone."""

from collections.abc import Callable

from avsnn.errors import UserError
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.shard_rows import audio_image_shape, event_shapes
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.event_files import SENSORS
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.sample_shapes import SampleShapes


def sample_shapes(config: RunConfig, say: Callable[[str], None]) -> SampleShapes:
    """Return the shapes of the samples of a run.

    Args:
        config: the configuration of the run.
        say: gets a sentence where the shape of the frames is not known.

    Raises:
        UserError: with the settings of the run, event frames would be too large.
    """
    if config.shapes is not None:
        return config.shapes
    settings, manifest = config.data.settings, config.manifest
    if manifest.has_events:
        try:
            return event_shapes(SENSORS[manifest.visual], SENSORS[manifest.audio], settings)
        except MediaError as error:
            raise UserError(f"events: {error}.") from None
    try:
        return open_source(config).shapes
    except UserError:
        side = settings.frames.shorter_side
        say(
            f"the run does not say how large its frames were, and {config.dataset} is not in "
            f"{config.root} as in the training: frames are resized to {side} x {side} px, so the "
            "answers may differ a little from those of evaluate"
        )
        return SampleShapes((3, side, side), audio_image_shape(settings))
