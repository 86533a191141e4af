"""normcli conventions."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import screen_options
from normcli.cli.sections import command


@command("conventions", short_help="The defaults of each --convention.")
@click.argument("name", required=False)
@screen_options
def conventions_command(name: str | None, **options: Any) -> None:
    """List what --convention NAME sets, for all of them or for one; normcli is without any.

    \b
      epsilon          added to the variance
      rms_epsilon      added to the mean square by --method rms; machine: that of the type
      ddof             the variance is divided by n - ddof
      momentum         of moving statistics; none: --momentum must be given
      momentum_weighs  whether momentum is the weight of the old or of the new value
      moving_variance  divisor n (biased) or n - 1 (unbiased) of what is fed
      layer_axes       axes of --mode layer: last; example (all of an example but its first);
                       features (channels and space)
      constant_groups  groups of one value become their bias, follow the formula, or are
                       divided by 1

    \b
      normcli conventions
      normcli conventions torch --json
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen, table_text
    from normcli.cli.streams import emit, emit_json

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.domain.conventions import CONVENTIONS, OWN
        from normcli.domain.conventions import convention as find

        if name is None or name == "normcli":
            known = {"normcli": OWN} if name else {"normcli": OWN, **CONVENTIONS}
        else:
            known = {name: find(name)}
        listed = {called: system.defaults() for called, system in known.items()}
        if options["json"]:
            emit_json(listed if name is None else listed[name])
            return 0
        first = next(iter(listed.values()))
        rows = [(key, *(_cell(listed[called][key]) for called in listed)) for key in first]
        emit(table_text(("", *listed), rows))
        return 0

    run_command(screen, options["debug"], body)


def _cell(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
