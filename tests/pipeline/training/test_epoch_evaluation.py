"""Running statistics of batch norm that are computed anew for the weights of an epoch."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avsnn.errors import PreemptedError
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.inference.network import build_network
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import epoch_order, evaluation_requests
from avsnn.pipeline.loading.parts import Parts
from avsnn.pipeline.runs.config import load_config
from tests.e2e.test_kill import curve
from tests.pipeline.training.test_stop import AtTheEndOf, send_sigterm
from tests.pipeline.training.test_train_settings import run, weights

WORDS = ["optimizer.recalibrate_norms=true", "optimizer.warmup_epochs=0", "epochs=2"]
BATCH = 16
STATISTICS = ("running_mean", "running_var")


def plain_statistics(folder: Path) -> dict[str, Tensor]:
    """Return the mean statistics of the saved network, from the statistics of each batch."""
    config = load_config(folder)
    assert config.shapes is not None
    network = build_network(config, config.shapes)
    network.load_state_dict(weights(folder))
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            # The running statistics are then the statistics of the last batch.
            module.momentum = 1.0
    found: dict[str, list[Tensor]] = {}
    source = partial(open_source, config, shards=False)
    with Loader(source, config.settings, workers=0, device=torch.device("cpu")) as loader:
        parts = Parts(config, loader.source).rows_to_train(config.settings)
        order = epoch_order(seed=config.settings.seed, epoch=0, count=len(parts))
        whole = len(parts) // BATCH * BATCH
        rows = parts[order(np.arange(whole))]
        for batch in loader.read(evaluation_requests(rows, batch_size=BATCH)):
            with torch.no_grad():
                network(*network_inputs(batch, config.settings))
            for name, value in network.state_dict().items():
                if name.endswith(STATISTICS):
                    found.setdefault(name, []).append(value.clone())
    return {name: torch.stack(values).mean(0) for name, values in found.items()}


@pytest.mark.parametrize("words", [[], ["optimizer.ema_decay=0.9"]])
def test_the_saved_statistics_are_means_over_the_clips_as_evaluation_sees_them(
    small_demo: Path, tmp_path: Path, words: list[str]
) -> None:
    run(small_demo, tmp_path / "r", *WORDS, *words)
    saved, expected = weights(tmp_path / "r"), plain_statistics(tmp_path / "r")
    assert expected
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_new_statistics_change_neither_the_weights_nor_the_course_of_a_training(
    small_demo: Path, tmp_path: Path
) -> None:
    changed = run(small_demo, tmp_path / "r", *WORDS)
    plain = run(small_demo, tmp_path / "plain", *WORDS, "optimizer.recalibrate_norms=false")
    assert [line["loss"] for line in changed] == [line["loss"] for line in plain]
    one, other = weights(tmp_path / "r"), weights(tmp_path / "plain")
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert {name.rpartition(".")[2] for name in differing} == {*STATISTICS, "num_batches_tracked"}


@pytest.mark.parametrize("words", [[], ["optimizer.ema_decay=0.9"]])
def test_a_training_that_was_told_to_end_before_the_new_statistics_ends_with_the_same_bytes(
    small_demo: Path, tmp_path: Path, words: list[str]
) -> None:
    words = [*WORDS, "selection=val", *words]
    run(small_demo, tmp_path / "whole", *words)
    # Of a resumed epoch without a step left, the progress tells its end, too.
    for epoch, ends in ((1, 1), (2, 2)):
        progress = AtTheEndOf(ends, send_sigterm)
        with pytest.raises(PreemptedError, match=f"saved after {epoch - 1} epochs and 3 steps"):
            run(small_demo, tmp_path / "r", *words, progress=progress, resume=True)
    run(small_demo, tmp_path / "r", *words, resume=True)
    assert curve(tmp_path / "r") == curve(tmp_path / "whole")
    for name in ("best", "last", "resume-00002-0000000"):
        path = Path("checkpoints", f"{name}.safetensors")
        assert (tmp_path / "r" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
