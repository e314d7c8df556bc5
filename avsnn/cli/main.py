"""The ``avsnn`` command: the app put together, and how the command ends.

Heavy imports (torch, numpy, tables) stay inside the commands, so that help is instant.
"""

import gc
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer

from avsnn.cli.commands.clean import clean_command
from avsnn.cli.commands.convert_checkpoint import convert_checkpoint_command
from avsnn.cli.commands.datasets import datasets_app
from avsnn.cli.commands.evaluate import evaluate_command
from avsnn.cli.commands.export import export_command
from avsnn.cli.commands.inspect import inspect_command
from avsnn.cli.commands.predict import predict_command
from avsnn.cli.commands.prepare import prepare_command, repair_command, verify_command
from avsnn.cli.commands.presets import presets_app
from avsnn.cli.commands.reproduce import reproduce_command
from avsnn.cli.commands.status import status_command
from avsnn.cli.commands.train import train_command
from avsnn.cli.mistakes import in_own_words
from avsnn.cli.streams import guard_streams, printable, why_lost
from avsnn.cli.volume import QUIET, VERBOSE, volume
from avsnn.errors import InterruptError, PluginWarning, PreemptedError, RunError, UserError

# Typer returns this code when a person presses Ctrl-C.
INTERRUPTED = 130
# EX_TEMPFAIL of sysexits.h: the code that asks a cluster to run the job again.
PREEMPTED = 75

SAVED = "all finished work is saved. Run the same command again (train: with --resume) to continue."

EPILOG = """
**A first run:** `avsnn prepare demo`, then `avsnn train demo`, then `avsnn evaluate RUN` with the
run folder that `train` prints.

**Files:** `data/DATASET/` holds a data set (raw files, shards, caches, failures.jsonl).
`runs/RUN/` holds a training (config.yaml, metrics.jsonl, checkpoints, tensorboard, report).

**Stop and repeat:** You can kill every command at any time and run the command again. A repeated
command continues with the unfinished work (`train` needs `--resume`), and does nothing if all work
is done.

**Exit codes:** 0 done; 1 the work failed; 2 bad input; 75 SIGTERM came, and the finished work is
saved; 130 interrupted with Ctrl-C.
"""

app = typer.Typer(
    help="Prepare audio-visual data sets, then train and evaluate spiking neural networks.",
    epilog=EPILOG,
    suggest_commands=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from avsnn.version import VERSION

        typer.echo(f"avsnn {VERSION}")
        raise typer.Exit


@app.callback()
def _avsnn(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            *QUIET,
            help="Print results, warnings and errors only; stands before or after the command.",
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            *VERBOSE,
            help="Print with an error where in the code it arose; stands before or after the "
            "command.",
        ),
    ] = False,
) -> None:
    volume.quiet, volume.verbose = quiet, verbose


# The help lists the commands in this order, and groups such as `datasets` after all commands.
app.command("prepare")(prepare_command)
app.command("verify")(verify_command)
app.command("repair")(repair_command)
app.command("clean")(clean_command)
app.command("inspect")(inspect_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("predict")(predict_command)
app.command("export")(export_command)
app.command("reproduce")(reproduce_command)
app.command("status")(status_command)
app.command("convert-checkpoint")(convert_checkpoint_command)
app.add_typer(datasets_app, name="datasets")
app.add_typer(presets_app, name="presets")


def main() -> None:
    """Run the command line; every error becomes one sentence and an exit code."""
    # A finished data set is described by some 100,000 records. With Python's default threshold, a
    # rerun that finds nothing to do spends a fifth of its time on garbage collection.
    gc.set_threshold(50_000)
    # A thread of the GNU OpenMP waits for the other threads in a loop, by default for some
    # milliseconds. On a machine that others use too, this loop takes the core from the thread that
    # is waited for. The library reads the variable when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Some terminals that do not know their width say 0, and nothing can be printed in 0 columns.
    if os.environ.get("COLUMNS", "").strip() == "0":
        del os.environ["COLUMNS"]
    output = guard_streams()
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _end_on_sigterm)
    sentence, code = _run()
    lost = why_lost(output)
    if lost and not code:
        sentence, code = f"the results could not be written to standard output: {lost}.", 1
    _exit(sentence, code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of avsnn as one sentence, and other warnings as Python does."""
    if not issubclass(category, PluginWarning):
        text = warnings.formatwarning(message, category, filename, lineno, line)
        print(text, end="", file=file or sys.stderr)
        return
    from avsnn.cli.screen.console import is_follower, say

    if not is_follower():
        say(str(message))


def _end_on_sigterm(_signal: int, _frame: object) -> NoReturn:
    # A cluster may send SIGTERM to every process, and torchrun sends it once more. The second
    # SIGTERM must not end the code that tidies up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise PreemptedError(f"told to end; {SAVED}")


def _run() -> tuple[str, int]:
    """Run the command; return what is wrong as a sentence, which may be empty, and an exit code."""
    try:
        _require_text([*sys.argv[1:], _current_folder()])
        code = app(_understood(sys.argv[1:]), standalone_mode=False)
    except typer.TyperException as error:
        return in_own_words(error, sys.argv[1:]), 2
    except (UserError, RunError) as error:
        _print_place(error)
        return str(error), 2 if isinstance(error, UserError) else 1
    except PreemptedError as error:
        return str(error), PREEMPTED
    except InterruptError as error:
        return str(error), INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        _print_place(error)
        return _unforeseen(error), 1
    if code == INTERRUPTED:
        return f"interrupted; {SAVED}", code
    return "", code if isinstance(code, int) else 0


def _understood(words: list[str]) -> list[str]:
    """Return the words of a command as Typer takes the words.

    `help` and `version` become the options that they mean. --quiet and --verbose are options of all
    commands, so they come to the front from any place.
    """
    end = words.index("--") if "--" in words else len(words)
    of_all = [
        word
        for word in words[:end]
        if word in (*QUIET, *VERBOSE) or re.fullmatch(r"-[qv]{2,}", word)
    ]
    if of_all:
        rest = [word for word in words[:end] if word not in of_all]
        return [*of_all, *_understood([*rest, *words[end:]])]
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    if words[1:] == ["help"]:
        return [*words[:1], "--help"]
    return ["--version"] if words in (["version"], ["-V"]) else words or ["--help"]


def _require_text(words: list[str]) -> None:
    """Refuse words and paths that are no text: libraries and JSON files cannot hold such a path.

    Raises:
        UserError: a word holds bytes that are no UTF-8.
    """
    for word in words:
        try:
            os.fsencode(word).decode()
        except UnicodeDecodeError:
            raise UserError(
                f"{word} holds bytes that are no text in UTF-8: rename the file or folder."
            ) from None


def _current_folder() -> str:
    """Return the current folder.

    Raises:
        UserError: the folder was removed, and torch cannot be imported there.
    """
    try:
        return str(Path.cwd())
    except OSError as error:
        raise UserError(
            f"the current folder cannot be used: {error.strerror}; change to another folder."
        ) from None


def _print_place(error: Exception) -> None:
    """Print where in the code an error arose, if the person asked with --verbose."""
    if volume.verbose:
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def _unforeseen(error: Exception) -> str:
    """Write the full trace of an error to a file, and return a sentence that names the file."""
    text = str(error).strip()
    reason = type(error).__name__ + (f": {text.splitlines()[0]}" if text else "")
    if isinstance(error, OSError) and error.strerror:
        name = "" if error.filename is None else f"{error.filename}: "
        reason = f"{name}{error.strerror}"
    elif isinstance(error, MemoryError):
        reason = "there is not enough memory"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="avsnn-", suffix=".trace",
            delete=False,
        ) as file:  # fmt: skip
            file.write("".join(traceback.format_exception(error)))
            place = f"the full trace is in {file.name}"
    except OSError:
        place = "the full trace could not be written to the temporary folder"
    return f"{reason}. Finished work is saved; {place}."


def _exit(sentence: str, code: int) -> NoReturn:
    if sentence:
        from avsnn.cli.screen.console import is_follower

        # Under torchrun every process meets the same error; only one process prints the error.
        if not is_follower():
            typer.echo(f"avsnn: {printable(sentence)}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
