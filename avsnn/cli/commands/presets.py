"""The commands `presets` and `presets show`."""

from typing import Annotated

import typer

from avsnn.cli.completion import complete_preset
from avsnn.cli.options import AsJson

presets_app = typer.Typer(suggest_commands=False)

PresetName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=complete_preset,
        help="Name of a preset; 'avsnn presets' lists all presets.",
    ),
]


@presets_app.callback(invoke_without_command=True)
def presets_command(context: typer.Context, as_json: AsJson = False) -> None:
    """List all presets: named settings for 'avsnn train --preset NAME'.

    A preset that has the name of a data set applies to every training on that data set, and so does
    the preset that the YAML of your own data set names. --preset lays another preset over it.
    """
    if context.invoked_subcommand:
        context.default_map = {context.invoked_subcommand: {"as_json": as_json}}
        return
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.presets import as_value, print_presets
    from avsnn.pipeline.experiments.presets import describe_preset, preset_names

    presets = [describe_preset(name) for name in preset_names()]
    if as_json:
        print_json([as_value(preset) for preset in presets])
    else:
        print_presets(presets)


@presets_app.command("show")
def show_command(name: PresetName, as_json: AsJson = False) -> None:
    """Print the settings of a preset as YAML, a file that --preset and --config accept."""
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.presets import as_value
    from avsnn.pipeline.experiments.presets import describe_preset

    preset = describe_preset(name)
    if as_json:
        print_json(as_value(preset))
    else:
        typer.echo(preset.text, nl=False)
