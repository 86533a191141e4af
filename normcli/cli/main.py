"""The entry point: one group of commands.

Nothing here imports numpy, zarr or dask, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import signal
import sys

import click

from normcli import __version__
from normcli.cli.apply import apply_command
from normcli.cli.check import check_command
from normcli.cli.clean import clean_command
from normcli.cli.conventions import conventions_command
from normcli.cli.convert import convert_command
from normcli.cli.extract import extract_command
from normcli.cli.faults import OPTION, Fault, fault_lines, refusal, stopped, wants_json
from normcli.cli.fit import fit_command
from normcli.cli.init import init_command
from normcli.cli.inspect import inspect_command
from normcli.cli.learn import learn_command
from normcli.cli.merge import merge_command
from normcli.cli.streams import open_missing
from normcli.cli.verify import verify_command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "NORMCLI"}
)
@click.option(
    OPTION,
    is_flag=True,
    expose_value=False,
    help="Tell errors and warnings as JSON, one a line, on standard error.",
)
@click.version_option(__version__, prog_name="normcli", message="%(prog)s %(version)s")
def main() -> None:
    """Normalize arrays that do not fit in memory.

    \b
      normcli fit     INPUT... -o STATS     measure mean and variance, in one pass
      normcli apply   INPUT... -o OUTPUT    write (x - mean) / sqrt(var + eps) * scale + bias
      normcli learn   INPUT TARGET -o FILE  scale and bias that carry the input to the target
      normcli merge   STATS... -o STATS     join parts of a fit, or separate fits
      normcli init    -o AFFINE             make scale and bias: ones, zeros, narrow-normal
      normcli inspect PATH                  what is in a container or a statistics file
      normcli extract STATS NAME            one value out: mean, epsilon, scale, …
      normcli convert STATS -o FILE         to and from what other frameworks read
      normcli check   STATS INPUT           would these statistics fit this array
      normcli clean   PATH...               remove what interrupted runs left
      normcli verify  OUTPUT                whether an output is still as it was written
      normcli conventions [NAME]            the defaults of each --convention

    Arrays are .npy, .npz, .h5 and .zarr; file.h5/group/x names an array inside a container, and
    - is NPY on standard input or output. Progress and messages go to standard error.

    With --json-errors, before or after the command, or NORMCLI_JSON_ERRORS=1, an error is a line
    {"error", "hint", "exit_code", "kind", "file"}, and a warning {"warning", "hint"}.

    Each option can be set by a variable: NORMCLI_FIT_MEMORY=2GiB is fit --memory 2GiB.

    \b
    Exit codes: 0 done; 1 a bug; 2 usage; 3 an input is unreadable or does not fit;
    4 refused for safety; 5 the output failed; 6 try again; 7 the data break a policy;
    8 some of several inputs failed; 129, 130, 143, 152 after a signal; 141 closed pipe.
    """


main.add_command(fit_command)
main.add_command(apply_command)
main.add_command(learn_command)
main.add_command(merge_command)
main.add_command(init_command)
main.add_command(inspect_command)
main.add_command(extract_command)
main.add_command(convert_command)
main.add_command(check_command)
main.add_command(clean_command)
main.add_command(verify_command)
main.add_command(conventions_command)


def entry() -> None:
    """Run the command line; the console script ``normcli``."""
    open_missing()
    stdout = sys.stdout
    try:
        code = main(prog_name="normcli", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _tell(refusal(error))
    except SystemExit as left:
        # click leaves with 1, and standard output wrapped, when nobody reads its help.
        code = left.code if sys.stdout is stdout else 141
    except click.Abort:
        # Ctrl-C before the command itself could listen.
        code = _tell(stopped(signal.SIGINT, kept=False))
    sys.exit(code)


def _tell(fault: Fault) -> int:
    """Tell of what keeps a command from beginning, as of any other error."""
    if wants_json():
        click.echo(fault.as_json(), err=True)
    else:
        for line in fault_lines(fault):
            click.echo(line, err=True)
    return fault.code
