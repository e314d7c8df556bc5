import torch

from avsnn.pipeline.inference.predict import Scores


def test_of_equal_logits_the_lowest_class_counts_as_the_highest() -> None:
    # A silent network gives the same logits for every clip.
    for label in range(6):
        scores = Scores(torch.zeros(4, 6), torch.full([4], label))
        assert [scores.top(k) for k in (1, 5)] == [float(label < 1), float(label < 5)]


def test_the_accuracy_is_the_share_of_the_clips_on_the_diagonal_of_the_confusion_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    # bf16 logits are often equal.
    logits = torch.randint(0, 3, (500, 10), generator=generator).float()
    labels = torch.randint(0, 10, (500,), generator=generator)
    predicted = torch.from_numpy(logits.numpy().argmax(1))
    assert Scores(logits, labels).accuracy == int((predicted == labels).sum()) / 500
