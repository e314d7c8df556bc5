"""Packages that only some formats need."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from avsnn.errors import UserError

# Packages of which one needs the others, so that one installation brings all.
ONNX = ("onnx", "onnxscript", "onnxruntime")
TOGETHER = dict.fromkeys(ONNX, ONNX)


def require_package(name: str, purpose: str) -> Any:
    """Import a package of the extra ``export``.

    Args:
        name: name of the package.
        purpose: what needs the package, as the beginning of a sentence.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise UserError(
            f"{purpose} needs the package {name}, which is not installed: run 'pip install "
            f"{' '.join(TOGETHER.get(name, (name,)))}'."
        ) from None


@contextmanager
def recording(purpose: str) -> Iterator[None]:
    """Turn an error of a tracer into one sentence; the network may hold a module of a user.

    Args:
        purpose: what records the network, as the beginning of a sentence.

    Raises:
        UserError: the tracer cannot record an operation of the network.
    """
    try:
        with quiet_libraries():
            yield
    # The errors of tracers have no common base class.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"{purpose} cannot record this network ({reason}); choose another --format."
        ) from None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the warnings of tracers off the screen: tracers warn of every size that they record."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
