"""Settings that are read from state dicts of the authors' code."""

import pytest
import torch

from avsnn.models.zoo import import_authors_state


def test_weights_that_fit_several_models_are_refused_unless_one_is_named():
    model = {
        "audio_patch_embed.rpe_conv.weight": torch.zeros(8, 8, 3, 3),
        "audio_patch_embed.proj_conv.weight": torch.zeros(1, 1, 3, 3),
        "mlp.0.mlp.fc1_conv.weight": torch.zeros(32, 8, 1),
        "block.0.attn.q_conv.weight": torch.zeros(8, 8, 1),
        "head.weight": torch.zeros(6, 16),
        "module.surprise.weight": torch.zeros(1),
    }
    with pytest.raises(ValueError, match="say which with method"):
        import_authors_state(model, heads=4)
    plain = import_authors_state(model, heads=4, method="add")
    assert plain.settings.method == "concat"
    assert plain.dropped == ["block.0.attn.q_conv.weight"]
    assert plain.unknown == ["module.surprise.weight"]
    with pytest.raises(ValueError, match="no state dict of the authors"):
        import_authors_state({"head.weight": torch.zeros(6, 16)})


def their_spatial_block(**extra: float) -> dict[str, torch.Tensor]:
    scalars = {key.replace("__", "."): torch.tensor(value) for key, value in extra.items()}
    return {
        "audio_patch_embed.rpe_conv.weight": torch.zeros(8, 8, 3, 3),
        "audio_patch_embed.proj_conv.weight": torch.zeros(1, 1, 3, 3),
        "mlp.0.mlp.fc1_conv.weight": torch.zeros(32, 8, 1),
        "block.0.trans_linear.weight": torch.zeros(8, 8),
        "head.weight": torch.zeros(6, 8),
        **scalars,
    }


def test_thresholds_of_the_authors_become_settings():
    state = their_spatial_block(
        block__0__attn__attn_lif__threshold=0.5,
        block__0__trans_lif__threshold=0.25,
        mlp__0__mlp__fc1_lif__threshold=1.0,
    )
    settings = import_authors_state(state, heads=4, attention="temporal").settings
    assert settings.attention_threshold == 0.5
    assert settings.alignment_threshold == 0.25
    assert settings.threshold == 1.0
    assert settings.attention == "temporal"


@pytest.mark.parametrize(
    ("constants", "arguments", "sentence"),
    [
        ({}, {}, "say which with attention"),
        ({}, {"attention": "spatio-temporal"}, "not those of spatio-temporal attention"),
        ({"mlp__0__mlp__fc1_lif__act_fun__alpha": 2.0}, {"attention": "spatial"}, "slope 2.0"),
        (
            {"mlp__0__mlp__fc1_lif__threshold": 1.0, "mlp__0__mlp__fc2_lif__threshold": 2.0},
            {"attention": "spatial"},
            "Thresholds differ",
        ),
    ],
)
def test_weights_that_no_model_of_ours_has_are_refused(constants, arguments, sentence):
    state = their_spatial_block(**constants)
    with pytest.raises(ValueError, match=sentence):
        import_authors_state(state, heads=4, **arguments)
