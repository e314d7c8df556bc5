from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import training_requests
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.models.kernels.cases import needs_cuda
from tests.pipeline.loading.conftest import are_equal, open_source


@needs_cuda
@pytest.mark.parametrize("workers", [0, 1])
def test_a_gpu_gets_the_batches_of_the_cpu_also_if_it_is_slower_than_the_reader(
    small_demo: Path, workers: int
) -> None:
    opener = partial(open_source, small_demo)
    rows = np.arange(72)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    with (
        Loader(opener, TrainSettings(), workers=0, device=cpu) as here,
        Loader(opener, TrainSettings(), workers=workers, device=gpu) as there,
    ):
        for epoch in range(2):
            expected = here.read(training_requests(rows, batch_size=8, seed=1, epoch=epoch))
            found = []
            work = torch.rand(2000, 2000, device=gpu)
            for batch in there.read(training_requests(rows, batch_size=8, seed=1, epoch=epoch)):
                for _ in range(20):
                    work = work @ work / 1000
                # The copy to the results waits for the work, as a training step does.
                found.append(batch._replace(frames=batch.frames + (0 * work[0, 0]).byte()))
            for one, other in zip(found, expected, strict=True):
                assert are_equal(one.to(cpu), other)
