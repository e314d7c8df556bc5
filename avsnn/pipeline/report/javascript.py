"""Vega, Vega-Lite and Vega-Embed as one script that needs no network."""

from functools import cache


@cache
def vega_script() -> str:
    """Return the script, which defines ``vegaEmbed``.

    A command writes several pages at most, so the script is built once in a process (in about a
    second), and no file has to be trusted between processes.
    """
    import vl_convert

    # An HTML parser ends a script at the first "</script", even inside a string.
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace(
        "</script", "<\\/script"
    )
