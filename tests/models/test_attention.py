import pytest
import torch

from avsnn.models.attention import QUERY_SIDES

from .networks import awake, clips, small


def test_the_random_bias_of_sca_is_new_at_every_call_and_the_learned_one_is_not():
    torch.manual_seed(3)
    query = torch.zeros(1, 1, 1, 1, 4)
    published, learned = (
        small("sca", rpb=rpb).fusion.visual.mix.bias for rpb in ("published", "learned")
    )
    assert not torch.equal(published(query), published(query))
    assert torch.equal(learned(query), learned(query))
    assert learned.table.shape == (5, 5)


def test_both_temporal_layouts_agree_where_heads_cannot_interleave():
    clip = clips()
    one_head = [
        awake(small(attention="temporal", heads=1, temporal_layout=layout)).eval()(*clip).logits
        for layout in ("published", "corrected")
    ]
    torch.testing.assert_close(*one_head)
    many = [
        awake(small(attention="temporal", temporal_layout=layout)).eval()(*clip).audio_residual
        for layout in ("published", "corrected")
    ]
    assert not torch.equal(*many)


@pytest.mark.parametrize("method", ["s-cmrl", "sca"])
def test_the_query_comes_from_the_side_that_the_settings_name(method):
    own, other = torch.zeros(2, 4, 3, 32, 4).bernoulli_(0.5).unbind(0)
    read = {}
    for side in QUERY_SIDES:
        fusion = awake(small(method, query=side, attention="spatial", rpb="learned")).fusion
        for name in ("query", "key", "value"):

            def keep(_module, inputs, name=name, side=side):
                read[side, name] = "own" if inputs[0] is own else "other"

            getattr(fusion.audio, name).register_forward_pre_hook(keep)
        read[side, "out"] = fusion.eval().audio(own, other)
    asked, answered = (QUERY_SIDES, reversed(QUERY_SIDES))
    for side, opposite in zip(asked, answered, strict=True):
        assert read[side, "query"] == side
        assert read[side, "key"] == read[side, "value"] == opposite
    assert not torch.equal(read["own", "out"], read["other", "out"])
    turned = awake(small(method, attention="spatial", rpb="learned")).fusion.eval()
    assert torch.equal(read["other", "out"], turned.audio(other, own))
