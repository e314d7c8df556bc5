"""The Hugging Face folder of a run: read by huggingface_hub's mixin, with an honest model card."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants

import avsnn as avsnn_library
from avsnn.errors import UserError
from avsnn.pipeline.export.hub import SpikingClassifier
from avsnn.pipeline.export.model_card import as_markdown, model_card
from avsnn.pipeline.export.run_network import open_network

HOSTILE = "a]( http://x.example )<script>alert(1)</script>\n---\nlicense: mit |`$x$`\"'\x1b[0m"


@pytest.fixture
def exported(small_run: Path, tmp_path: Path) -> Path:
    return avsnn_library.load(small_run).export("huggingface", tmp_path / "folder").path


def test_from_pretrained_gives_the_logits_of_the_run(small_run: Path, exported: Path) -> None:
    network = open_network(small_run)
    model = avsnn_library.SpikingClassifier.from_pretrained(exported)
    assert not model.training
    assert model.classes == network.description.classes
    audio, visual = (torch.rand(images.shape) for images in network.example_inputs())
    with torch.no_grad():
        assert torch.equal(model(audio, visual), network.model(audio, visual).logits)


def test_saving_again_keeps_weights_configuration_and_card(exported: Path, tmp_path: Path) -> None:
    # `push_to_hub` uploads exactly what `save_pretrained` writes.
    SpikingClassifier.from_pretrained(exported).save_pretrained(tmp_path / "again")
    again = SpikingClassifier.from_pretrained(tmp_path / "again")
    weights = SpikingClassifier.from_pretrained(exported).state_dict()
    assert all(torch.equal(weights[name], x) for name, x in again.state_dict().items())
    assert (tmp_path / "again" / "README.md").read_text() == (exported / "README.md").read_text()
    for folder in (exported, tmp_path / "again"):
        assert json.loads((folder / "config.json").read_text())["classes"] == again.classes


def test_weights_of_another_network_and_pickles_are_refused(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    config["settings"] |= {"method": "audio", "alignment": False}
    (exported / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="state_dict"):
        SpikingClassifier.from_pretrained(exported)
    with pytest.raises(UserError, match="is a pickle"):
        SpikingClassifier._load_as_pickle(None, "pytorch_model.bin", "cpu", True)


@pytest.mark.parametrize("name", ["runs/demo/export/hugginface", "hugginface", "a/b"])
def test_a_place_that_holds_no_model_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        SpikingClassifier.from_pretrained(name, cache_dir=tmp_path)
    assert str(caught.value).startswith(f"there is no folder {name}, and ")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_configuration_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json; give a folder that"):
        SpikingClassifier.from_pretrained(tmp_path)


def test_the_card_shows_the_recorded_figures_with_their_caveats(
    small_run: Path, tmp_path: Path, avsnn
) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    assert "was not evaluated" in model_card(open_network(run))
    assert avsnn("evaluate", run).returncode == 0
    card = ModelCard(model_card(open_network(run)))
    record = json.loads((run / "report" / "test.json").read_text())
    share = record["top1_interval"]
    assert f"**{record['top1']:.2%}**" in card.text
    assert f"95 % interval {share['low']:.2%} to {share['high']:.2%}" in card.text
    units = f"over {record['resampled_units']:,} {record['resampled']})"
    assert f"bootstrap {units}" in card.text or f"exact binomial interval {units}" in card.text
    assert f"right in {record['chance']:.2%} of cases" in card.text
    for caveat in record["caveats"]:
        assert f"- {as_markdown(caveat)}" in card.text
    (result,) = card.data.eval_results
    assert result.metric_value == pytest.approx(record["top1"], abs=1e-6)
    assert (result.dataset_type, result.dataset_split) == ("demo", "test")


def test_the_card_describes_the_inputs_in_words(small_run: Path) -> None:
    network = open_network(small_run)
    card = model_card(network)
    assert "- `audio`, float32 `[batch, 1, 64, 64]`: audio image" in card
    assert "Mean `0.485, 0.456, 0.406`, std `0.229, 0.224, 0.225`." in card
    assert "`audio.kind=log-stft audio.sample_rate=22050 audio.n_fft=512 audio.hop=353" in card
    assert "Output: `logits [batch, classes]`, before softmax." in card
    assert "\\[" not in card
    audio, visual = network.description.inputs
    assert audio.prepared["audio.sample_rate"] == 22050
    assert visual.prepared == {}
    assert not {"{", "'"} & set(audio.content + visual.content)


def test_the_card_tells_how_to_install_avsnn_from_its_source(small_run: Path) -> None:
    card = model_card(open_network(small_run))
    assert "Install avsnn from its source" in card
    assert "pip install '.[export]'" in card
    assert "pip install 'avsnn" not in card


def test_names_of_users_bring_no_html_no_link_and_no_key_into_the_card(
    small_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(small_run, tmp_path / HOSTILE.split("\n")[0].replace("/", ""))
    network = open_network(run)
    about = network.description.model_copy(update={"classes": [HOSTILE, "b"], "dataset": HOSTILE})
    card = model_card(network._replace(description=about))
    header, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert "license" not in yaml.safe_load(header)
    assert "<script>" not in body
    assert "](" not in body.replace("\\](", "")
    assert "\x1b" not in body
    assert "\n---\n" not in body
    assert "license: mit" not in body
