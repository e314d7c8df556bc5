import pytest
import torch

from avsnn.models.builders import ATTENTIONS
from avsnn.models.readout import READOUTS

from .networks import CLASSES, awake, clips, small


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("layout", ["published", "corrected"])
@pytest.mark.parametrize("alignment", [True, False])
@pytest.mark.parametrize("fuse", READOUTS)
def test_every_ablation_of_s_cmrl_runs(attention, layout, alignment, fuse):
    fields = {"temporal_layout": layout, "alignment": alignment, "fuse": fuse}
    output = small(attention=attention, **fields)(*clips())
    assert output.logits.shape == (3, CLASSES)
    assert output.audio_residual.shape == output.visual_residual.shape == (4, 3, 32)
    assert output.aligned == alignment


def test_alpha_zero_cuts_the_branch_from_the_logits():
    model = awake(small(alpha=0.0)).eval()
    with torch.no_grad():
        before = model(*clips()).logits
        for p in model.fusion.parameters():
            p.normal_()
        assert torch.equal(model(*clips()).logits, before)
