"""normcli verify."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import local_run_options, pick, screen_options
from normcli.cli.sections import command


@command("verify", short_help="Whether an output is still as it was written.")
@click.argument("output")
@local_run_options
@screen_options
def verify_command(output: str, **options: Any) -> None:
    """Read OUTPUT back and compare every byte with OUTPUT.manifest.jsonl.

    Then plain readers open it, and the moments of its elements are compared with those that were
    written. Without a manifest, the checksums inside the container are compared; of a statistics
    file, whether its numbers can belong together. Exit code 0 where all is well, 7 where not.

    \b
      normcli verify normalized.zarr
      normcli verify normalized.h5 --json
      normcli verify stats.json
    """
    from normcli.cli.faults import fault_of
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import emit_json
    from normcli.cli.summaries import verification_rows

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.options import RunOptions
        from normcli.api.verifying import verify_output
        from normcli.errors import DataPolicyError

        found = verify_output(output, pick(RunOptions, options), screen)
        if options["json"]:
            emit_json(dict(found.as_dict()))
        if not screen.quiet:
            verdict = "sound" if found.sound else "damaged"
            screen.table(f"{found.output} is {verdict}", verification_rows(found))
        if found.sound:
            return 0
        more = f"; {len(found.damage) - 1} more" if len(found.damage) > 1 else ""
        error = DataPolicyError(
            f"{found.damage[0].rstrip('.')}{more}.",
            "Write the output again, or copy it from where it is sound.",
        )
        screen.error(fault_of(error))
        return error.exit_code

    run_command(screen, options["debug"], body)
