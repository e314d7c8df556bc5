"""Which compiled kernels are loaded: only those that this user compiled and nobody changed."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from avsnn.models.kernels import cpu
from tests.models.conftest import needs_compiler

pytestmark = needs_compiler

# A compiler that does nothing but copy the library that was compiled before.
COPYING_COMPILER = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
cp {library} "$2"
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as a real compiler makes it, not yet loaded."""
    folder = tmp_path_factory.mktemp("compiled")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    with pytest.MonkeyPatch.context() as patch:
        # A wrapper keeps a copy of what the compiler makes.
        wrapper = folder / "wrapper"
        wrapper.write_text(
            f'#!/bin/sh\n{shlex.join(compiler)} "$@" || exit 1\n'
            f'while [ "$1" != -o ]; do shift; done\ncp "$2" {folder}/library\n'
        )
        wrapper.chmod(0o700)
        patch.setenv("CC", str(wrapper))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert load() is not None
    return folder / "library"


@pytest.fixture
def cache(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a first training kept the library; the library is not yet loaded."""
    compiler = tmp_path / "copying-cc"
    compiler.write_text(COPYING_COMPILER.format(library=compiled))
    compiler.chmod(0o700)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    assert load() is not None
    # At another path, the dynamic linker does not know the library yet.
    (tmp_path / "first").rename(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "avsnn"


def load() -> ctypes.CDLL | None:
    """Load the kernels as a new process does."""
    return cpu._loaded.__wrapped__()[0]


def why_not() -> str:
    """Return why a new process finds no kernels."""
    return cpu._loaded.__wrapped__()[1]


def only_library(folder: Path) -> Path:
    (library,) = folder.glob("*.so")
    return library


def test_a_library_that_was_kept_is_loaded_without_a_compiler(cache: Path) -> None:
    Path(os.environ["CC"]).unlink()
    loaded = load()
    assert loaded is not None
    assert Path(loaded._name) == only_library(cache)


def cut(library: Path) -> None:
    os.truncate(library, 20_000)


def foreign(library: Path) -> None:
    import _ctypes

    shutil.copy(_ctypes.__file__, library)


def link(library: Path) -> None:
    library.rename(library.parents[2] / "elsewhere.so")
    library.symlink_to(library.parents[2] / "elsewhere.so")


def fifo(library: Path) -> None:
    library.unlink()
    os.mkfifo(library)


def of_another_user(library: Path) -> None:
    if os.getuid():
        pytest.skip("changing the owner of a file needs root")
    os.chown(library, 54321, -1)


def writable_by_all(library: Path) -> None:
    library.chmod(0o777)


DAMAGES: list[Callable[[Path], object]] = [cut, foreign, link, fifo, of_another_user]
DAMAGES += [writable_by_all]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_cannot_be_trusted_is_replaced_by_a_new_library(
    cache: Path, compiled: Path, damage: Callable[[Path], object]
) -> None:
    library = only_library(cache)
    damage(library)
    untrusted = library.lstat()
    loaded = load()
    assert loaded is not None
    assert loaded.avsnn_pack
    path = Path(loaded._name)
    assert path.read_bytes() == compiled.read_bytes()
    assert path.lstat().st_uid == os.getuid()
    assert path.lstat().st_ino != untrusted.st_ino
    assert path.lstat().st_mode & 0o022 == 0


def folder_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "damage", [lambda folder: folder.chmod(0o777), folder_link, of_another_user]
)
@pytest.mark.parametrize("squatted", [False, True], ids=["", "and the temporary folder too"])
def test_no_library_of_a_folder_that_others_may_write_is_loaded(
    cache: Path, tmp_path: Path, damage: Callable[[Path], object], squatted: bool
) -> None:
    second = tmp_path / "tmp" / f"avsnn-{os.getuid()}"
    if squatted:
        shutil.copytree(cache, second)
        damage(second)
    damage(cache)
    loaded = load()
    assert loaded is not None
    place = Path(loaded._name).parent
    assert place != cache
    assert (place == second) != squatted


def test_a_compiler_that_writes_rubbish_leaves_nothing_and_torch_computes(
    cache: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rubbish = tmp_path / "rubbish"
    for content in (b"no library", compiled.read_bytes()[:20_000]):
        rubbish.write_bytes(content)
        compiler = tmp_path / "other-cc"
        compiler.write_text(COPYING_COMPILER.format(library=rubbish))
        compiler.chmod(0o700)
        monkeypatch.setenv("CC", str(compiler))
        before = sorted(cache.iterdir())
        assert load() is None
        assert why_not().startswith(
            f"the kernels that the C compiler {compiler} made cannot be loaded ("
        )
        assert sorted(cache.iterdir()) == before


@pytest.mark.parametrize("options", [" -m64", "  --sysroot='/'", ""])
def test_the_compiler_may_have_options(
    cache: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    shutil.rmtree(cache)
    monkeypatch.setenv("CC", os.environ["CC"] + options)
    assert load() is not None
    only_library(cache)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/cc", "there is no C compiler /nowhere/cc; install gcc, or name another"),
        ("cc 'unfinished", "there is no C compiler cc 'unfinished; install gcc, or name another"),
        ("false", "the C compiler false cannot compile the kernels (exit code 1)"),
    ],
)
def test_without_a_compiler_that_works_torch_computes(
    cache: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert load() is None
    assert why_not().startswith(reason)


def test_the_first_error_of_a_compiler_is_the_reason_why_there_are_no_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = tmp_path / "old.h"
    header.write_text("#warning this comes first\n#error this compiler is too old\n#error second\n")
    compiler = f"{os.environ.get('CC', 'cc')} -include {header}"
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    why = why_not()
    assert why.startswith(f"the C compiler {compiler} cannot compile the kernels ({header}:2")
    assert "this compiler is too old" in why
    assert "\n" not in why
    assert "second" not in why


def test_gcc_11_knows_every_builtin_of_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = os.environ.get("CC", "cc")
    macros = subprocess.run(
        [*shlex.split(compiler), "-dM", "-E", "-x", "c", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "__clang__" in macros:
        pytest.skip("needs GCC, which takes another builtin than clang")
    # GCC knows this builtin only since version 12, so no other GCC may meet it.
    monkeypatch.setenv("CC", f"{compiler} -D__builtin_shufflevector=unknown")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load() is not None


def test_an_empty_name_of_a_compiler_is_the_compiler_of_the_machine(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = cache.parent / "bin"
    programs.mkdir()
    Path(os.environ["CC"]).rename(programs / "cc")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("CC", " ")
    assert load() is not None
