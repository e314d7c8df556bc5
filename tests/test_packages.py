"""Builds what people install, the wheel, the sdist and the image, and looks at what is inside."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import PROJECT

# What Python leaves in a package, and setuptools beside a package.
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")
FOLDERS = ("avsnn", "benchmarks", "docs", "tests")
TOP_FILES = {
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "README.md"),
    *("constraints.txt", "pyproject.toml"),
}


def files_below(folder: Path, start: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {path.relative_to(start).as_posix() for path in found if path.is_file()}


def build(kind: str, tree: Path, out: Path) -> Path:
    """Build ``wheel`` or ``sdist`` from a folder with the build backend of pyproject.toml."""
    backend = tomllib.loads((tree / "pyproject.toml").read_text())["build-system"]["build-backend"]
    program = f"import {backend} as backend; backend.build_{kind}({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the sdist holds, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    for path in PROJECT.iterdir():
        # A developer keeps data, runs and environments beside the project's own folders.
        if path.name in FOLDERS:
            shutil.copytree(path, folder / "tree" / path.name, ignore=LEFT_OUT)
    for path in filter(Path.is_file, PROJECT.iterdir()):
        shutil.copy(path, folder / "tree")
    (folder / "out").mkdir()
    with tarfile.open(build("sdist", folder / "tree", folder / "out")) as archive:
        # Python 3.11.2 knows no filters, and the archive is our own.
        archive.extractall(folder / "unpacked")  # noqa: S202
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, as pip builds it."""
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"))


def test_the_sdist_holds_the_package_the_tests_the_pages_and_the_licence(sdist: Path) -> None:
    held = files_below(sdist, sdist)
    for folder in FOLDERS:
        assert files_below(PROJECT / folder, PROJECT) <= held, folder
    assert held >= TOP_FILES
    assert not [name for name in held if re.search(r"\.py[co]$|\.so$|\.trace$", name)]


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files_below(PROJECT / "avsnn", PROJECT)


def test_the_wheel_names_its_licence_command_extras_and_versions_of_python(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
    assert metadata.get_all("Provides-Extra") == list(project["optional-dependencies"])
    assert metadata["Description-Content-Type"] == "text/markdown"
    entry_points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "avsnn = avsnn.cli.main:main" in entry_points
    classified = re.findall(r"Python :: (3\.\d+)$", "\n".join(metadata.get_all("Classifier")), re.M)
    page = (PROJECT / "docs" / "install.md").read_text()
    assert classified == re.findall(r"^\| (3\.\d+) \| yes", page, re.MULTILINE)
    assert metadata["Requires-Python"] == f">={classified[0]}"


def test_the_command_of_the_wheel_runs_where_the_project_is_not(
    wheel: Path, tmp_path: Path
) -> None:
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    done = subprocess.run(
        [sys.executable, "-m", "avsnn", "prepare", "demo-events", "--dry-run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1,080" in done.stdout


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each as its word and the rest of the line."""
    text = re.sub(r"^#.*\n", "", (PROJECT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", "").splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in (x.split(None, 1) for x in lines)]


def test_the_dockerfile_copies_what_the_installation_reads() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needed = {"avsnn", "constraints.txt", "pyproject.toml", project["readme"]}
    needed |= set(project["license-files"])
    copied = {name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]}
    assert copied == needed
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == needed


@pytest.mark.parametrize("index", ["", "https://example.org/cpu"])
def test_the_image_installs_the_versions_that_were_tested_together(
    index: str, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    for program in ("apt-get", "rm", "pip", "useradd", "mkdir", "chown", "avsnn"):
        (tmp_path / program).write_text(f'#!/bin/sh\necho {program} "$@" >> {said}\n')
        (tmp_path / program).chmod(0o755)
    for word, rest in instructions():
        if word == "RUN":
            command = re.sub(r"^--mount=\S+ ", "", rest)
            environment = {"PATH": str(tmp_path), "TORCH_INDEX": index}
            subprocess.run(["/bin/sh", "-eu", "-c", command], env=environment, check=True)
    lines = said.read_text().splitlines()
    extra = f" --extra-index-url {index}" if index else ""
    assert f"pip install -c /src/constraints.txt{extra} /src" in lines
    # Whoever starts the image is not root, and owns the folders of the volumes.
    created = next(i for i, (_, rest) in enumerate(instructions()) if "useradd" in rest)
    words = [word for word, _ in instructions()]
    assert words.index("USER") > created
    assert lines[-1] == "chown -R avsnn:avsnn /work"
    assert dict(instructions())["VOLUME"] == '["/work/data", "/work/runs"]'
    assert dict(instructions())["ENTRYPOINT"] == '["avsnn"]'


def builders() -> Iterator[str]:
    """Yield the programs that can build an image here."""
    for program, question in (("docker", "info"), ("buildah", "info")):
        known = shutil.which(program)
        if known and not subprocess.run([known, question], capture_output=True).returncode:
            yield known


@pytest.mark.long
def test_the_image_builds_where_docker_or_buildah_is_at_hand() -> None:
    builder = next(builders(), None)
    if builder is None:
        pytest.skip("neither a Docker daemon nor buildah is at hand")
    base = "python:3.13-slim"
    if subprocess.run([builder, "pull", base], capture_output=True).returncode:
        pytest.skip(f"{builder} cannot fetch {base}")
    # The last line of the installation in the image is `avsnn --version`.
    command = [builder, "build", "--tag", "avsnn-test", str(PROJECT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
