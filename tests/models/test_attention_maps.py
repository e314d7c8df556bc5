"""Attention on tokens, on a case made by hand and as the sum of scores."""

import pytest
import torch

from avsnn.models.attention_maps import attention_by_keys, key_shares, token_attention
from tests.models.networks import awake, clips, each_method, small


def test_the_share_of_a_key_counts_the_queries_that_meet_the_key():
    query, key = torch.zeros(2, 1, 2, 3), torch.zeros(2, 1, 2, 3)
    # Step 0: two queries fire in channel 0, where key 1 fires too.
    query[0, 0, 0, :2] = 1.0
    key[0, 0, 0, 1] = 1.0
    # Step 1: one query fires in channel 1, where keys 0 and 1 fire; no query meets key 2.
    query[1, 0, 1, 2] = 1.0
    key[1, 0, 1, :2] = 1.0
    key[1, 0, 0, 2] = 1.0
    assert key_shares(query.sum(-1), key).tolist() == [[1 / 4, 3 / 4, 0.0]]


def test_the_attention_of_a_silent_query_is_zero():
    assert key_shares(torch.zeros(2, 1, 2), torch.ones(2, 1, 2, 3)).tolist() == [[0.0] * 3]


def keys_of(method: str, **fields) -> dict[str, str]:
    model = small(method, **fields)
    blocks = {id(m): name for name, m in model.named_modules()}
    return {stream: blocks[id(block)] for stream, block in attention_by_keys(model).items()}


@pytest.mark.parametrize(
    ("method", "fields", "spatial"),
    [
        ("s-cmrl", {}, ".spatial"),
        ("gated", {}, ".spatial"),
        ("s-cmrl", {"attention": "spatial"}, ""),
        ("sca", {}, ""),
    ],
)
def test_the_keys_come_from_the_stream_that_gives_no_query(method, fields, spatial):
    # With `own`, the audio block asks with audio, so its keys are tokens of the picture.
    own, other = (keys_of(method, query=query, **fields) for query in ("own", "other"))
    assert own == {"visual": f"fusion.audio{spatial}", "audio": f"fusion.visual{spatial}"}
    assert other == {"audio": f"fusion.audio{spatial}", "visual": f"fusion.visual{spatial}"}


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("s-cmrl", {"attention": "temporal"}),
        ("add", {}),
        ("concat", {}),
        ("audio", {}),
        ("visual", {}),
        ("weight-attention", {}),
        ("cmci", {}),
        ("cmqka", {}),
        ("taaf", {}),
        ("gated", {"attention": "temporal"}),
    ],
)
def test_networks_without_attention_across_streams_have_no_map(method, fields):
    assert attention_by_keys(small(method, **fields)) == {}


@each_method
def test_watching_changes_no_result(method):
    model, (audio, visual) = awake(small(method, rpb="learned")).eval(), clips()
    with torch.inference_mode():
        plain = model(audio, visual).logits
        with token_attention(model):
            watched = model(audio, visual).logits
    assert torch.equal(watched, plain)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("query", ["own", "other"])
@pytest.mark.parametrize("method", ["s-cmrl", "sca"])
def test_a_map_is_the_mean_of_the_scores_over_heads_steps_and_queries(method, query):
    model = awake(small(method, query=query, rpb="learned")).eval()
    blocks, seen = attention_by_keys(model), {}
    for stream, block in blocks.items():
        block.mix.register_forward_pre_hook(
            lambda _, spikes, stream=stream: seen.setdefault(stream, spikes)
        )
    # Some neurons must stay silent: where all fire, every map is flat.
    for block in blocks.values():
        block.query.norm.bias.data.normal_(mean=1.0)
        block.key.norm.bias.data.normal_(mean=1.0)
    with token_attention(model) as maps, torch.inference_mode():
        model(*clips())
    assert set(maps) == set(seen) == {"audio", "visual"}
    for stream, (asked, keys, _) in seen.items():
        scores = (asked.mT @ keys).mean(dim=(0, 2, 3))
        (shares,) = maps[stream]
        torch.testing.assert_close(shares, scores / scores.sum(-1, keepdim=True))
        assert shares.std() > 0
