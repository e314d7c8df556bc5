"""A plugin adds its methods; a plugin with a fault ends with one sentence and adds nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import avsnn
from avsnn.errors import UserError
from avsnn.models.methods import METHODS
from avsnn.pipeline.runs.plugin import load_plugins, plugin_faults_said, plugin_of
from tests.plugin_file import forgotten_plugins, line_of, write_plugin

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
    network = avsnn.build("mean-exchange", classes=3, channels=16, options={"start": "1e-3"})
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


def test_methods_of_avsnn_have_no_options() -> None:
    with pytest.raises(UserError, match="Method 'add' has no options"):
        avsnn.build("add", classes=3, options={"start": 1})
