"""The surface of the command line is the one that was agreed on."""

from __future__ import annotations

import re

import click

from normcli import __version__
from normcli.api import convert_options, learning_terms
from normcli.bundles import onnx_model
from normcli.cli.main import main
from normcli.cli.sections import HEADINGS, SectionedCommand
from normcli.domain import norm_spec
from normcli.domain.conventions import CONVENTIONS
from normcli.domain.learning import L2_CONVENTIONS
from tests.cli.terminal import call

NORM = {
    "mode", "layout", "aggregate", "scale-axes", "wolfram-levels", "groups", "group-axis",
    "method", "epsilon", "epsilon-placement", "ddof", "convention", "nonfinite", "batch-size",
    "num-channels", "expect-shape", "missing", "allow-external-refs", "allow-symlinks", "range",
    "quantiles", "p", "isolate",
}  # fmt: skip
AXES = {"mode", "layout", "aggregate", "scale-axes", "wolfram-levels", "groups", "group-axis"}
FIT = {"momentum", "moving-variance", "moving-start", "rate-factor", "update", "part"}
APPLY = {
    "stats", "mean", "variance", "estimate", "training", "affine", "scale", "bias", "inverse",
    "dtype", "stats-out", "no-stats-out", "hdf5-version", "force",
    "overflow",
}  # fmt: skip
LEARN = {
    "stats", "mean", "variance", "estimate", "affine", "scale", "bias", "freeze", "scale-init",
    "bias-init", "seed", "l2", "l2-scale", "l2-bias", "scale-l2-factor", "bias-l2-factor",
    "l2-convention", "l1-scale", "l1-bias", "scale-bounds", "bias-bounds", "scale-constraint",
    "bias-constraint", "solver", "learning-rate", "momentum", "scale-rate-factor",
    "bias-rate-factor", "epochs", "shuffle", "force",
}  # fmt: skip
RUN = {
    "output", "overwrite", "workers", "memory", "scheduler", "scheduler-file", "dry-run", "restart",
    "insecure",
}  # fmt: skip
SCREEN = {"json", "json-errors", "quiet", "verbose", "progress", "no-progress", "debug", "help"}


def _options(command: str) -> dict[str, click.Option]:
    found = main.commands[command]
    parent = click.Context(main, **main.context_settings)
    context = click.Context(found, info_name=command, parent=parent)
    return {
        name.lstrip("-"): option
        for option in found.get_params(context)
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    } | ({"help": None} if context.help_option_names else {})  # type: ignore[dict-item]


def test_the_contract_is_complete():
    assert set(_options("fit")) == NORM | FIT | RUN | SCREEN
    assert set(_options("apply")) == NORM | APPLY | RUN | SCREEN
    assert set(_options("learn")) == NORM | LEARN | RUN | SCREEN
    assert set(_options("merge")) == {"output", "overwrite", "dry-run"} | SCREEN
    assert set(_options("inspect")) == SCREEN | {"property"}
    assert set(_options("extract")) == SCREEN | {"output", "overwrite"}
    assert set(_options("init")) == SCREEN | AXES | {
        "output", "overwrite", "scale", "bias", "seed", "shape",
    }  # fmt: skip
    assert set(_options("convert")) == SCREEN | {
        "output", "overwrite", "from", "to", "estimate", "moving-variance", "epsilon", "layout",
        "dtype", "opset",
    }  # fmt: skip
    assert set(_options("conventions")) == SCREEN
    assert set(_options("check")) == SCREEN | {
        "layout", "estimate", "allow-external-refs", "allow-symlinks",
    }  # fmt: skip
    assert set(_options("clean")) == SCREEN | {"dry-run"}
    assert set(_options("verify")) == SCREEN | {"workers", "memory"}
    short = {o for c in main.commands.values() for p in c.params for o in p.opts if len(o) == 2}
    assert short == {"-o", "-j", "-q", "-v"}


def test_help_lists_each_option_under_its_heading():
    for name, command in main.commands.items():
        assert isinstance(command, SectionedCommand), name
        found, heading = {}, ""
        for line in call(name, "--help").text.splitlines():
            heading = line if line.endswith(":") and not line.startswith(" ") else heading
            # Text of an option begins farther to the right.
            if line.startswith("  -"):
                found.update(dict.fromkeys(re.findall(r"--[a-z][a-z0-9-]*", line[:45]), heading))
        mine = {f"--{option}": o for option, o in _options(name).items()}
        assert set(found) == set(mine)
        for option, heading in found.items():
            own = getattr(mine[option], "section", "Screen")
            assert heading == f"{own}:", (name, option)
    apply = call("apply", "-h").text
    places = [apply.index(f"\n{heading}:\n") for heading in HEADINGS[1:] if heading != "Learning"]
    assert places == sorted(places)


def test_the_choices_are_those_of_the_domain():
    fit, apply, learn = _options("fit"), _options("apply"), _options("learn")
    for name, words in (
        ("mode", norm_spec.MODES),
        ("method", norm_spec.METHODS),
        ("nonfinite", norm_spec.NONFINITE),
        ("epsilon-placement", norm_spec.PLACEMENTS),
        ("convention", tuple(CONVENTIONS)),
    ):
        for options in (fit, apply, learn):
            assert tuple(options[name].type.choices) == tuple(words)  # type: ignore[attr-defined]
    convert = _options("convert")
    assert tuple(convert["to"].type.choices) == convert_options.FORMATS  # type: ignore[attr-defined]
    assert tuple(convert["from"].type.choices) == convert_options.READABLE  # type: ignore[attr-defined]
    assert (convert["opset"].type.min, convert["opset"].type.max) == (  # type: ignore[attr-defined]
        min(onnx_model.OPSETS),
        max(onnx_model.OPSETS),
    )
    for name, words in (
        ("solver", learning_terms.SOLVERS),
        ("scale-init", learning_terms.INITIALIZERS),
        ("bias-init", learning_terms.INITIALIZERS),
        ("l2-convention", L2_CONVENTIONS),
    ):
        assert tuple(learn[name].type.choices) == words  # type: ignore[attr-defined]


def test_each_option_is_explained():
    for command in main.commands:
        for name, option in _options(command).items():
            assert option is None or option.help, name


def test_version_and_help():
    assert call("--version").text == f"normcli {__version__}\n"
    for arguments in (
        ["-h"],
        ["fit", "-h"],
        ["apply", "--help"],
        ["learn", "-h"],
        ["merge", "-h"],
        ["inspect", "-h"],
    ):
        ended = call(*arguments)
        assert ended.code == 0
        assert ended.text.startswith("Usage: normcli")
        assert max(map(len, ended.text.splitlines())) <= 100
    bare = call()
    assert bare.code == 2
    assert bare.err.startswith("Usage: normcli")
