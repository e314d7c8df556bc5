"""Reads a table of experiments: a published table, or a YAML file of one's own.

In a file, ``rows`` is a list. A row is the name of a preset, or a name with the settings of the row
(``model.alpha: 0``) and, where wanted, ``preset`` and ``published``. ``grid`` gives every
combination of the values of some settings as a row. With ``against``, all rows are compared with
one of them, under ``conditions``, on ``folds`` and at levels of ``noise``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from avsnn.errors import UserError
from avsnn.pipeline.experiments.presets import is_yaml_name, preset_names
from avsnn.pipeline.experiments.tables import SEEDS, Condition, Table, TableRow
from avsnn.pipeline.settings_overrides import first_mistake, parse_yaml
from avsnn.suggestions import did_you_mean, there_are

FOLDER = Path(__file__).parent / "tables"

# The file has some 100 lines; a larger file is no table, and would take minutes to parse.
MAX_BYTES = 1_000_000
MAX_ROWS = 1_000
MAX_NAME = 100

KEYS = ("title", "rows", "grid", "against", "conditions", "folds", "noise", "seeds")
# The keys that say how rows are compared with the row of the key ``against``.
COMPARING = ("conditions", "folds", "noise")
# The keys of a row that are no settings.
NO_SETTINGS = ("name", "preset", "published")


def table_names() -> list[str]:
    """Return the names of all published tables."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_table(name_or_path: str | None) -> Table:
    """Read a published table, or a table file of one's own.

    Raises:
        UserError: no table is named, there is no such table, or the file is no table. The sentence
            names the line or the row.
    """
    known = table_names()
    if name_or_path is None:
        raise UserError(
            f"which table? Give the name of a published table ({', '.join(known)}), or a YAML file "
            "with a table of your own."
        )
    if name_or_path in known:
        path = FOLDER / f"{name_or_path}.yaml"
        return _make_table(path, yaml.safe_load(path.read_text()))
    path = Path(name_or_path)
    if not is_yaml_name(path.name):
        raise UserError(
            f"there is no table {name_or_path!r}; {did_you_mean(name_or_path, known)}there are: "
            f"{', '.join(known)}, or a YAML file of your own."
        )
    if path.stem in known:
        raise UserError(
            f"{path} has the name of the published table {path.stem!r}; give the file another name."
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return _make_table(path, parse_yaml(content))
    except FileNotFoundError:
        here = [file.name for file in path.parent.glob("*") if is_yaml_name(file.name)]
        near = did_you_mean(path.name, here).strip()
        raise UserError(f"there is no table file {path}{f'; {near}' if near else '.'}") from None
    except OSError as error:
        raise UserError(f"the table {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"the table {path} cannot be used: {error}.") from None


def _make_table(path: Path, found: Any) -> Table:
    """Return the table of a parsed file.

    Raises:
        ValueError: the file is no table; the message is a phrase.
    """
    if not isinstance(found, dict) or not {"rows", "grid"}.intersection(found):
        raise ValueError("it has no 'rows', such as 'rows: [s-cmrl, add]'")
    for key in found:
        if key not in KEYS:
            near = did_you_mean(str(key), KEYS)
            raise ValueError(f"it has no place for {key!r}; {near}there are: {', '.join(KEYS)}")
    rows = [
        _make_row(path.parent, name, facts)
        for name, facts in [*_named(found.get("rows")), *_grid(found.get("grid"))]
    ]
    names = [row.name for row in rows]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two rows are called {twice[0]!r}; give each row its own name")
    if not 0 < len(rows) <= MAX_ROWS:
        raise ValueError(f"it has {len(rows):,} rows; a table has 1 to {MAX_ROWS:,}")
    seeds = found.get("seeds", SEEDS)
    are_seeds = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not are_seeds or not 0 < len(seeds) == len({*seeds}):
        raise ValueError(
            f"'seeds' is {_shown(seeds)}, and must be a list such as [42, 47, 1024]: whole numbers "
            "from 0, each once"
        )
    return Table(
        name=path.stem,
        title=str(found.get("title") or path.stem),
        rows=rows,
        seeds=seeds,
        **_comparing(found, names),
    )


def _comparing(found: Mapping[Any, Any], rows: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a table that say how its rows are compared.

    Args:
        found: the parsed file.
        rows: the names of the rows.
    """
    against = found.get("against")
    if against is None:
        if given := [key for key in COMPARING if key in found]:
            raise ValueError(
                f"{given[0]!r} needs 'against', the name of the row that the others are compared "
                "with"
            )
        return {}
    if against not in rows:
        near = did_you_mean(str(against), rows)
        raise ValueError(
            f"no row is called {_shown(against)} (against); {near}there are: {', '.join(rows)}"
        )
    conditions = [
        Condition(name=str(name), settings=list(_words(_require_settings(name, facts))))
        for name, facts in _named(found.get("conditions"), "conditions")
    ]
    # The module imports torch, and other tables need not wait for torch.
    from avsnn.pipeline.evaluation.robustness.noise import LEVELS

    folds, noise = found.get("folds") or [], found.get("noise") or []
    if not isinstance(folds, list) or not all(isinstance(fold, str) for fold in folds):
        raise ValueError(f"'folds' is {_shown(folds)}, and must be a list of names of splits")
    if not isinstance(noise, list) or not {*noise} <= {*LEVELS}:
        levels = ", ".join(f"{level:g}" for level in LEVELS)
        raise ValueError(
            f"'noise' is {_shown(noise)}, and must be a list of levels in dB: {levels}"
        )
    for key, values in (("conditions", [one.name for one in conditions]), ("folds", folds)):
        if len({*values}) < len(values):
            raise ValueError(f"{key!r} names one of its values twice")
    return {
        "against": against,
        "conditions": conditions or [Condition()],
        "folds": folds,
        "noise": noise,
    }


def _require_settings(name: Any, facts: Any) -> dict[Any, Any]:
    if not isinstance(facts, dict):
        raise ValueError(f"the condition {_shown(name)} has no settings, such as 'epochs: 5'")
    return facts


def _named(rows: Any, key: str = "rows") -> Iterator[tuple[Any, Any]]:
    """Yield name and facts of each row, or of each condition, under a key of the file."""
    if not isinstance(rows, list | None):
        # YAML keeps the last of two equal keys of a mapping, so a row could get lost.
        raise ValueError(
            f"{key!r} is {_shown(rows)}, and must be a list, such as [s-cmrl, add] or "
            "[NAME: {model.alpha: 0}]"
        )
    for row in rows or ():
        if isinstance(row, dict) and "name" in row:
            yield row["name"], {key: value for key, value in row.items() if key != "name"}
        elif isinstance(row, dict) and len(row) == 1:
            yield from row.items()
        elif isinstance(row, dict):
            raise ValueError(f"the row {_shown(row)} has no name: write 'NAME: {_shown(row)}'")
        else:
            yield (Path(row).stem if isinstance(row, str) else row), row


def _grid(grid: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of every combination of the values under the key ``grid``."""
    if grid is None:
        return
    example = "such as 'model.alpha: [0, 0.5, 1]'"
    if not isinstance(grid, dict) or not grid:
        raise ValueError(f"'grid' must hold settings with lists of values, {example}")
    for key, values in grid.items():
        if not isinstance(values, list) or not values or any(isinstance(v, dict) for v in values):
            raise ValueError(f"'grid' has no list of values for {key}, {example}")
    if (count := prod(map(len, grid.values()))) > MAX_ROWS:
        raise ValueError(f"'grid' makes {count:,} rows; a table has at most {MAX_ROWS:,}")
    last = [str(key).rpartition(".")[2] for key in grid]
    labels = last if len({*last}) == len(last) else list(map(str, grid))
    for values in product(*grid.values()):
        name = " ".join(
            f"{label}={_value(value)}" for label, value in zip(labels, values, strict=True)
        )
        yield name, dict(zip(grid, values, strict=True))


def _make_row(folder: Path, name: Any, facts: Any) -> TableRow:
    """Return a row of a table.

    Args:
        folder: the folder of the table, where the presets of the row may lie.
        name: name of the row, as the file gives the name.
        facts: what the file says about the row: nothing, a preset, or a mapping.
    """
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise ValueError(f"{_shown(name)} is no name of a row")
    name = str(name)
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(
            f"the name {_shown(name)} of a row must have 1 to {MAX_NAME} characters in one line"
        )
    if not isinstance(facts, dict):
        facts = {"preset": name if facts is None else facts}
    preset = facts.get("preset")
    if preset is not None:
        preset = _preset(folder, preset, name)
    settings = {key: value for key, value in facts.items() if key not in NO_SETTINGS}
    try:
        return TableRow(
            name=name,
            preset=preset,
            settings=list(_words(settings)),
            published=facts.get("published") or {},
        )
    except ValidationError as error:
        raise ValueError(f"row {name!r}: {first_mistake(error)}") from None


def _preset(folder: Path, preset: Any, row: str) -> str:
    """Return the name of a preset, or the path of a preset file beside the table."""
    if isinstance(preset, str) and preset in preset_names():
        return preset
    if isinstance(preset, str) and is_yaml_name(preset):
        return str(folder / preset)
    # The completion of names in a shell reads tables, and cannot wait for torch.
    from avsnn.models.registry import METHODS

    if isinstance(preset, str) and preset in METHODS:
        raise ValueError(
            f"row {row!r}: {preset} is a method and no preset; write "
            f"'- {row}: {{model.method: {preset}}}'"
        )
    known = preset_names()
    raise ValueError(
        f"row {row!r}: no preset is called {_shown(preset)}; {did_you_mean(str(preset), known)}"
        f"{there_are(str(preset), known)}"
    )


def _words(settings: Mapping[Any, Any], group: str = "") -> Iterator[str]:
    """Yield the words ``KEY=VALUE`` that change settings in the same way as a mapping."""
    for key, value in settings.items():
        if not isinstance(key, str) or not re.fullmatch(r"[\w.]+", key):
            raise ValueError(f"{_shown(key)} is no name of a setting, such as model.alpha")
        if isinstance(value, dict):
            yield from _words(value, f"{group}{key}.")
        else:
            yield f"{group}{key}={_value(value)}"


def _value(value: Any) -> str:
    """Return a value as YAML in one line, from which `parse_yaml` reads the same value."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else _value(value)
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."


def choose_rows(table: Table, text: str | None) -> list[TableRow]:
    """Return the rows that a list such as ``s-cmrl,add`` names, in the order of the table.

    Args:
        table: the table.
        text: names of rows or of their presets, in any case of letters; None takes all rows.

    Raises:
        UserError: the table has no such row.
    """
    if text is None:
        return table.rows
    chosen: list[TableRow] = []
    words = text.split(",")
    while words:
        # The name of a row may hold a comma, so the longest name is tried first.
        for count in range(len(words), 0, -1):
            found = _rows_called(table.rows, ",".join(words[:count]).strip())
            if found:
                chosen += found
                del words[:count]
                break
        else:
            names = [row.name for row in table.rows]
            known = [*names, *(row.preset for row in table.rows if row.preset)]
            raise UserError(
                f"--rows: the table {table.name} has no row {words[0].strip()!r}; "
                f"{did_you_mean(words[0], known)}there are: {'; '.join(names)}."
            )
    return [row for row in table.rows if row in chosen]


def choose_conditions(table: Table, text: str | None) -> list[Condition]:
    """Return the conditions that a list names, in the order of the table; None takes all.

    Raises:
        UserError: the table has no such condition.
    """
    known = {one.name: one for one in table.conditions if one.name}
    if text is None:
        return table.conditions
    return [known[name] for name in _choose(table, "conditions", text, list(known))]


def choose_folds(table: Table, text: str | None) -> list[str]:
    """Return the folds that a list names, in the order of the table; None takes all.

    Raises:
        UserError: the table has no such fold.
    """
    return table.folds if text is None else _choose(table, "folds", text, table.folds)


def _choose(table: Table, key: str, text: str, known: Sequence[str]) -> list[str]:
    """Return the known names that a list such as ``a,b`` names."""
    wanted = [word.strip() for word in text.split(",")]
    for word in wanted:
        if word not in known:
            there = (
                f"{did_you_mean(word, known)}{there_are(word, known)}" if known else "it has none"
            )
            raise UserError(f"--{key}: the table {table.name} has no {word!r}; {there}.")
    return [name for name in known if name in wanted]


def _rows_called(rows: Sequence[TableRow], word: str) -> list[TableRow]:
    by_name = [row for row in rows if row.name.casefold() == word.casefold()]
    return by_name or [
        row for row in rows if (row.preset or "").casefold() == word.casefold() != ""
    ]
