"""A plugin adds its methods; a plugin with a fault ends with one sentence and adds nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import avsnn
from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.models.methods import METHODS
from avsnn.models.neuron import LIF, lif
from avsnn.models.surrogate import SURROGATES
from avsnn.pipeline.runs.config import identifying_settings
from avsnn.pipeline.runs.plugin import load_plugins, plugin_faults_said, plugin_of
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from tests.plugin_file import forgotten_plugins, line_of, write_plugin
from tests.plugin_package import SURROGATE

# What this version of Python raises for a source with null bytes.
with pytest.raises((SyntaxError, ValueError)) as _of_null_bytes:
    compile("\0", "source", "exec")
OF_NULL_BYTES = _of_null_bytes.typename

LINE = 'METHODS["mean-exchange"] = TwoStreams(MeanExchange)'


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with forgotten_plugins():
        yield


def test_what_a_plugin_prints_stands_beside_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = "print('hello')\nimport torch\n"
    load_plugins([write_plugin(tmp_path / "mine.py", old="import torch\n", new=new)])
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_adds_its_method_once_and_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "random.py")
    load_plugins([path])
    load_plugins([path])
    facts = plugin_of("mean-exchange")
    assert facts is not None
    assert facts.name == "random.py"
    assert plugin_of("s-cmrl") is None
    assert [one.name for one in tmp_path.iterdir()] == ["random.py"]
    network = avsnn.build("mean-exchange", classes=3, channels=16, custom={"start": "1e-3"})
    assert network.fusion.share.unique().item() == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("old", "new", "piece", "reason"),
    [
        ("import torch\n", "import torch(\n", "import torch(", "SyntaxError: invalid syntax."),
        (
            "import torch\n",
            "import numpi\n",
            "import numpi",
            "No module named 'numpi' (a plugin",
        ),
        ("(MeanExchange)", "(MeanExchang)", "METHODS[", "NameError: name 'MeanExchang' is not def"),
        ("import torch\n", "import sys; sys.exit(3)\n", "sys.exit", "SystemExit: 3."),
        ("mean-exchange", "s-cmrl", "METHODS[", "there is a method 's-cmrl' already; choose anoth"),
        ("mean-exchange", "../x", "METHODS[", "'../x' is no name of a method; a name has up to"),
        ("TwoStreams(MeanExchange)", "MeanExchange", "METHODS[", "must be TwoStreams(CLASS), with"),
        (
            "(MeanExchange)",
            "(torch.nn.Linear)",
            "METHODS[",
            "TwoStreams takes a class that",
        ),
        ("def from_settings", "def build", "METHODS[", "MeanExchange has no method from_settings."),
        (", *, tokens: int | None", "", "METHODS[", "from_settings must take (cls, settings, *, t"),
        (", visual: Tensor)", ")", "METHODS[", "MeanExchange.forward must take (self, audio, visu"),
    ],
)
def test_a_fault_of_the_file_is_one_sentence_with_its_line(
    tmp_path: Path, old: str, new: str, piece: str, reason: str
) -> None:
    path = write_plugin(tmp_path / "mine.py", old=old, new=new)
    before = dict(METHODS)
    with pytest.raises(UserError) as caught:
        load_plugins([path])
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}, line {line_of(path, piece)}: ")
    assert reason in sentence
    assert sentence.count("\n") == 0
    assert before == METHODS


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_fusoin.py", "there is no such file; did you mean my_fusion.py?"),
        ("other.py", "there is no such file; a plugin is a Python file with METHODS"),
        ("", "is a folder; give one Python file."),
        ("empty.txt", "registers no method: a plugin is a Python file with METHODS"),
        ("picture.png", f"{OF_NULL_BYTES}: source code string cannot contain null bytes."),
    ],
)
def test_a_file_that_is_no_plugin_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    write_plugin(tmp_path / "my_fusion.py")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(UserError) as caught:
        load_plugins([tmp_path / name])
    assert sentence in str(caught.value)


def test_two_contents_of_one_method_cannot_be_loaded_together(tmp_path: Path) -> None:
    first, second = write_plugin(tmp_path / "a.py"), write_plugin(tmp_path / "b.py")
    second.write_text(second.read_text() + "# another content\n")
    with pytest.raises(UserError, match=r"b\.py, line \d+: there is a method 'mean-exchange' alre"):
        load_plugins([first, second])
    assert plugin_of("mean-exchange") is not None


def test_an_exception_in_a_computation_is_one_sentence_with_its_line(tmp_path: Path) -> None:
    piece = ".mean()[0, 0]"
    path = write_plugin(tmp_path / "mine.py", old=".mean(dim=3, keepdim=True)", new=piece)
    load_plugins([path])
    network = avsnn.build("mean-exchange", classes=3, channels=16)
    with pytest.raises(UserError) as caught, plugin_faults_said("mean-exchange"):
        network(torch.zeros(2, 1, 32, 32), torch.zeros(2, 3, 32, 32))
    assert f"{path}, line {line_of(path, piece)}: IndexError: too many ind" in str(caught.value)


def test_a_fault_outside_a_plugin_is_not_blamed_on_the_plugin(tmp_path: Path) -> None:
    load_plugins([write_plugin(tmp_path / "mine.py")])
    with pytest.raises(ZeroDivisionError), plugin_faults_said("mean-exchange"):
        _ = 1 // 0


def test_a_file_of_an_earlier_version_reads_its_options_and_leaves_the_identity_of_its_runs(
    tmp_path: Path,
) -> None:
    old = write_plugin(tmp_path / "mine.py")
    text = old.read_text().replace(
        "    Settings = MeanExchangeSettings", "    takes_options = True"
    )
    old.write_text(text.replace("**settings.custom", "**settings.options"))
    load_plugins([old])
    own = {"method": "mean-exchange", "channels": 16, "options": {"start": 0.5}}
    network = avsnn.build(**own, classes=3)
    assert network.fusion.share.unique().item() == 0.5
    before = TrainSettings().model_dump(mode="json")["model"]
    del before["custom"]
    for given, options in ((own, {"options": {"start": 0.5}}), ({}, {})):
        settings = TrainSettings.model_validate({"model": given})
        facts = identifying_settings(settings, load("demo"))["model"]
        assert facts.keys() == before.keys() | options.keys()
        assert facts.get("options", {}) == options.get("options", {})


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "MeanExchangeSettings(StrictModel)",
            "MeanExchangeSettings",
            "MeanExchange.Settings must be a class that inherits from avsnn.pydantic_base.StrictM",
        ),
        ("start: float = 0.0", "start: float", "MeanExchange.Settings: the setting start needs a"),
    ],
)
def test_settings_that_a_person_could_not_use_are_refused(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    path = write_plugin(tmp_path / "mine.py", old=old, new=new)
    place = f"{path}, line {line_of(path, 'METHODS[')}: "
    with pytest.raises(UserError, match=re.escape(f"{place}{reason}")):
        load_plugins([path])


def test_a_group_of_settings_of_a_method_is_checked_to_its_leaves(tmp_path: Path) -> None:
    own = "class MeanExchangeSettings(StrictModel)"
    ramp = "class Ramp(StrictModel):\n    rise: int = 2\n\n\n"
    path = write_plugin(tmp_path / "mine.py", old=own, new=f"{ramp}{own}")
    path.write_text(path.read_text().replace("start: float = 0.0", "ramp: Ramp = Ramp()"))
    load_plugins([path])
    words = ["model.method=mean-exchange"]
    for word, sentence in {
        "model.custom.ramp.rize=1": "there is no setting model.custom.ramp.rize (value 1); did you "
        "mean model.custom.ramp.rise? there are: model.custom.ramp.rise.",
        "model.custom.ramp.rise=1.5": "setting model.custom.ramp.rise cannot be 1.5: ",
    }.items():
        with pytest.raises(UserError, match=re.escape(sentence)):
            build_settings(TrainSettings, [], [*words, word])
    settings = build_settings(TrainSettings, [], [*words, "model.custom.ramp.rise=3"])
    assert settings.model.custom == {"ramp": {"rise": 3}}


STRATEGY = """\
from avsnn.models.balance import STRATEGIES, Strategy


class Mine(Strategy):
    def note(self, output, labels, *, weight):
        pass

    def change_gradients(self):
        pass


STRATEGIES["mine"] = Mine
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("def change_gradients", "def change", "the class Mine has no method change_gradients"),
        (", *, weight", "", "Mine.note must take (self, output, labels, *, weight): got an unexp"),
        ("change_gradients(self)", "change_gradients()", "Mine.change_gradients must take (self)"),
        (
            "    def note",
            "    def __init__(self):\n        pass\n\n    def note",
            "Mine.__init__ must take (self, network, settings, *, label_smoothing, mean_over_proc",
        ),
        ("= Mine", "= 3", "the strategy 'mine' must be a class that inherits from Strategy"),
    ],
)
def test_a_strategy_that_no_training_could_call_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    path = tmp_path / "mine.py"
    assert old in STRATEGY
    path.write_text(STRATEGY.replace(old, new))
    place = f"{path}, line {line_of(path, 'STRATEGIES[')}: "
    with pytest.raises(UserError, match=re.escape(f"{place}{reason}")):
        load_plugins([path])


def test_a_surrogate_of_a_file_gives_the_gradient_that_it_says(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SURROGATE)
    load_plugins([tmp_path / "mine.py"])
    facts = plugin_of("triangle", "model.surrogate")
    assert facts is not None
    assert facts.name == "mine.py"
    current = torch.linspace(-2.0, 4.0, 13).requires_grad_()
    lif(current[None], surrogate="triangle", slope=0.5).sum().backward()
    # One step from rest with tau 2: h = x / 2, so dh/dx is 1/2.
    u = current.detach() / 2 - 1.0
    assert torch.allclose(current.grad, 0.5 * 0.5 * (1.0 - 0.5 * u.abs()).clamp(min=0.0))
    network = avsnn.build("add", classes=3, channels=16, surrogate="triangle")
    assert {one.slope for one in network.modules() if isinstance(one, LIF)} == {1.0}
    with pytest.raises(UserError, match="no surrogate 'triangel'; did you mean triangle"):
        avsnn.build("add", classes=3, surrogate="triangel")


def test_a_surrogate_of_avsnn_cannot_be_replaced_and_needs_a_function(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for line, reason in {
        'SURROGATES["atan"] = Surrogate(triangle, 1.0)': "there is a surrogate 'atan' already",
        'SURROGATES["flat"] = triangle': "the surrogate 'flat' must be Surrogate(FUNCTION, SLOPE)",
        'SURROGATES["flat"] = Surrogate(triangle, 0.0)': "with a positive slope",
        'SURROGATES["flat"] = Surrogate(lambda u, slope: slope, 1.0)': "and returned float for [2,",
        'SURROGATES["flat"] = Surrogate(lambda u, slope: u.sum(), 1.0)': "returned shape [] for",
    }.items():
        path.write_text(f"{SURROGATE}{line}\n")
        before = dict(SURROGATES)
        with pytest.raises(UserError, match=re.escape(reason)):
            load_plugins([path])
        assert before == SURROGATES


def test_methods_of_avsnn_have_no_settings_of_their_own() -> None:
    for key in ("options", "custom"):
        with pytest.raises(UserError, match="Method 'add' has no settings of its own"):
            avsnn.build("add", classes=3, **{key: {"start": 1}})
