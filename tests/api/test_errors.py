"""Bad calls: which error they end in, and that they leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import normcli
from normcli.errors import (
    DataPolicyError,
    InputError,
    OutputError,
    PlanError,
    UsageError,
)

X = np.random.default_rng(1).normal(size=(8, 6, 4, 3)).astype("f4")
EXIT_CODES = {UsageError: 2, PlanError: 2, InputError: 3, OutputError: 5, DataPolicyError: 7}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Inputs of all kinds, made once; tests must leave them as they are."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "x.npy", X)
    np.save(folder / "double.npy", X.astype("f8"))
    np.save(folder / "wide.npy", X[:, :3])
    np.save(folder / "empty.npy", X[:0])
    np.save(folder / "thin.npy", X[:, :, :0])
    np.save(folder / "scalar.npy", np.float32(3))
    np.save(folder / "object.npy", np.array([1, "a"], object), allow_pickle=True)
    np.save(folder / "string.npy", np.array(["a", "b"]))
    np.save(folder / "complex.npy", X.astype("c8"))
    np.save(folder / "date.npy", np.array(["2020-01-01"], "M8[D]"))
    np.save(folder / "record.npy", np.zeros(3, [("a", "f4"), ("b", "i4")]))
    np.save(folder / "nan.npy", np.where(X > 1, np.nan, X))
    np.save(folder / "one.npy", X[:1, :, :1, :1])
    np.save(folder / "tiny.npy", X * 1e-6)
    with h5py.File(folder / "two.h5", "w") as file:
        file["a"], file["b"] = X, X
    group = zarr.create_group(folder / "two.zarr")
    for name in ("a", "b"):
        group.create_array(name, data=X)
    np.savez(folder / "x.npz", data=X)
    with h5py.File(folder / "x.h5", "w") as file:
        file["data"] = X
    normcli.fit(folder / "x.npy", folder / "stats.json", layout="NCHW")
    normcli.fit(folder / "wide.npy", folder / "wide.json", layout="NCHW")
    normcli.fit(folder / "x.npy", folder / "instance.json", layout="NCHW", mode="instance")
    np.save(folder / "mean.npy", np.zeros(6))
    np.save(folder / "variance.npy", np.ones(6))
    np.save(folder / "negative.npy", np.array([1.0, 1, -1e-9, 1, 1, 1]))
    np.save(folder / "short.npy", np.ones(5))
    np.save(folder / "single.npy", np.ones(1))
    np.save(folder / "nan6.npy", np.array([1.0, 1, np.nan, 1, 1, 1]))
    np.save(folder / "zero.npy", np.array([1.0, 1, 0, 1, 1, 1]))
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text('{"a": 1}')
    (folder / "text.npy").write_text("no array")
    (folder / "x.csv").write_text("1,2\n")
    return folder


def snapshot(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(made, error, says, call) -> None:
    before = snapshot(made)
    with pytest.raises(error, match=says) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.exit_code == EXIT_CODES[error]
    assert "\n" not in str(caught.value)
    assert snapshot(made) == before


BOTH = [
    # input, options, error, what it says
    ("missing.npy", {}, InputError, "missing.npy"),
    ("missing.h5/x", {}, InputError, "missing.h5"),
    ("missing.zarr", {}, InputError, "missing.zarr"),
    ("x.csv", {}, InputError, "suffix that normcli does not know"),
    ("text.npy", {}, InputError, "text.npy"),
    ("two.h5", {}, InputError, "holds 2 arrays: a .* b"),
    ("two.zarr", {}, InputError, "holds 2 arrays: a .* b"),
    ("two.h5/c", {}, InputError, "c"),
    ("two.zarr/c", {}, InputError, "c"),
    ("scalar.npy", {}, InputError, "no axes"),
    ("empty.npy", {"layout": "NCHW"}, InputError, "empty: axis 0"),
    ("thin.npy", {"layout": "NCHW"}, InputError, "empty: axis 2"),
    ("string.npy", {"layout": "N"}, InputError, "holds strings"),
    ("complex.npy", {}, InputError, "holds complex numbers"),
    ("date.npy", {"layout": "N"}, InputError, "holds dates"),
    ("record.npy", {"layout": "N"}, InputError, "structured or raw records"),
    ("x.npy", {"layout": "NCH"}, UsageError, "names 3 axes, but the array has 4"),
    ("x.npy", {"layout": "NCHX"}, UsageError, "unknown letter 'X'"),
    ("x.npy", {"layout": "NCCW"}, UsageError, "C more than once"),
    ("x.npy", {"mode": "weight"}, UsageError, "no mode"),
    ("x.npy", {"method": "minmax5"}, UsageError, "no method"),
    ("x.npy", {"mode": "custom"}, UsageError, "needs --aggregate"),
    ("x.npy", {"mode": "custom", "aggregate": "4"}, UsageError, "out of range"),
    ("x.npy", {"mode": "custom", "aggregate": "3,-1"}, UsageError, "twice"),
    ("x.npy", {"aggregate": "0"}, UsageError, "does not go with --mode batch"),
    ("x.npy", {"mode": "group", "groups": 4}, UsageError, "4 groups do not divide axis 1"),
    ("x.npy", {"mode": "group"}, UsageError, "needs --groups"),
    ("x.npy", {"groups": 2}, UsageError, "needs --mode group"),
    ("x.npy", {"epsilon": -0.1}, UsageError, "Epsilon is -0.1"),
    ("x.npy", {"ddof": 2}, UsageError, "ddof is 2"),
    ("x.npy", {"convention": "caffe"}, UsageError, "no convention"),
    ("one.npy", {"layout": "NCHW", "ddof": 1}, DataPolicyError, "one element"),
    ("nan.npy", {"nonfinite": "error"}, DataPolicyError, "NaN or infinite"),
    ("x.npy", {"num_channels": 5}, InputError, "has 6 channels"),
    ("x.npy", {"expect_shape": "*,6,4"}, InputError, "has shape"),
    ("x.npy", {"expect_shape": "*,6,4,4"}, InputError, "has shape"),
    ("x.npy", {"expect_shape": "a,b"}, UsageError, "is no shape"),
    ("x.npy", {"memory": "2XB"}, UsageError, "no size of memory"),
    ("x.npy", {"memory": 1000}, PlanError, "memory budget is 1000 B"),
    ("x.npy", {"workers": 0}, UsageError, "at least one worker"),
    ("x.npy", {"scheduler": "a", "scheduler_file": "b"}, UsageError, "exclude each other"),
    ("x.npy", {"scheduler_file": "missing.scheduler"}, InputError, "no scheduler file"),
]


@pytest.mark.parametrize("command", ["fit", "apply"])
@pytest.mark.parametrize(("name", "options", "error", "says"), BOTH)
def test_what_both_commands_refuse(made, command, name, options, error, says):
    output = made / ("output.json" if command == "fit" else "output.npy")
    refused(made, error, says, lambda: getattr(normcli, command)(made / name, output, **options))


def test_pickles_are_never_opened(made):
    before = snapshot(made)
    with pytest.raises((InputError, normcli.errors.SafetyError)) as caught:
        normcli.fit(made / "object.npy", made / "output.json", layout="N")
    assert "object" in str(caught.value)
    assert snapshot(made) == before


FIT = [
    ({"momentum": 0.9}, UsageError, "--momentum needs --batch-size"),
    ({"moving_variance": "unbiased"}, UsageError, "--moving-variance needs --batch-size"),
    ({"moving_start": "first-batch"}, UsageError, "--moving-start needs --batch-size"),
    ({"batch_size": 4}, UsageError, "needs --momentum"),
    ({"batch_size": 0, "momentum": 0.9}, UsageError, "must be 1 or more"),
    ({"batch_size": 4, "momentum": 1.5}, UsageError, "from 0 to 1"),
    ({"batch_size": 4, "momentum": -0.1}, UsageError, "from 0 to 1"),
    ({"batch_size": 4, "momentum": float("nan")}, UsageError, "from 0 to 1"),
    ({"batch_size": 4, "momentum": "often"}, UsageError, "from 0 to 1"),
    ({"batch_size": 4, "momentum": 0.9, "moving_variance": "both"}, UsageError, "biased or unb"),
    ({"batch_size": 4, "momentum": 0.9, "mode": "instance"}, UsageError, "batch axis that is agg"),
    ({"batch_size": 4, "momentum": 0.9, "mode": "layer"}, UsageError, "batch axis that is agg"),
    ({"batch_size": 4, "momentum": 0.9, "layout": "CSSS"}, UsageError, "batch axis that is agg"),
    ({"batch_size": 4, "momentum": 0.9, "moving_start": "gone.json"}, InputError, "gone.json"),
    ({"update": "gone.json"}, InputError, "gone.json"),
]


@pytest.mark.parametrize(("options", "error", "says"), FIT)
def test_what_fit_refuses(made, options, error, says):
    options = {"layout": "NCHW", **options}
    refused(made, error, says, lambda: normcli.fit(made / "x.npy", made / "o.json", **options))


def test_statistics_that_cannot_be_continued(made):
    def update(name, path, **options):
        return lambda: normcli.fit(
            made / name, made / "o.json", layout="NCHW", update=made / path, **options
        )

    refused(made, InputError, "shape", update("x.npy", "wide.json"))
    refused(
        made,
        InputError,
        "was fitted with mode",
        update("x.npy", "stats.json", mode="custom", aggregate="~C"),
    )
    refused(
        made,
        UsageError,
        "belong to each observation",
        update("x.npy", "instance.json", mode="instance"),
    )
    refused(made, InputError, "nonfinite", update("x.npy", "stats.json", nonfinite="propagate"))
    refused(made, InputError, "broken.json", update("x.npy", "broken.json"))


APPLY = [
    ({"stats": "wide.json"}, InputError, r"shape \(3,\), but .* needs \(6,\)"),
    ({"stats": "gone.json"}, InputError, "gone.json"),
    ({"stats": "broken.json"}, InputError, "broken.json"),
    ({"stats": "other.json"}, InputError, "other.json"),
    ({"stats": "stats.json", "mode": "layer"}, UsageError, "--mode layer contradicts"),
    ({"stats": "stats.json", "layout": "NHWC"}, UsageError, "--layout NHWC contradicts"),
    ({"stats": "stats.json", "aggregate": "HW"}, UsageError, "--aggregate HW contradicts"),
    ({"stats": "stats.json", "ddof": 1}, UsageError, "--ddof 1 contradicts"),
    ({"stats": "stats.json", "mean": "mean.npy"}, UsageError, "--stats excludes"),
    ({"stats": "stats.json", "estimate": "moving"}, InputError, "no moving mean"),
    ({"stats": "stats.json", "epsilon": -1.0}, UsageError, "Epsilon is -1.0"),
    ({"estimate": "moving"}, UsageError, "give --stats"),
    ({"inverse": True}, UsageError, "--inverse needs the statistics"),
    ({"mean": "mean.npy"}, UsageError, "needs --variance as well"),
    ({"variance": "variance.npy"}, UsageError, "needs --mean as well"),
    ({"mean": "mean.npy", "variance": "negative.npy"}, DataPolicyError, "negative"),
    ({"mean": "mean.npy", "variance": "short.npy"}, InputError, r"shape \(5,\)"),
    ({"mean": "single.npy", "variance": "variance.npy"}, InputError, r"shape \(1,\)"),
    ({"mean": "nan6.npy", "variance": "variance.npy"}, InputError, "finite|NaN"),
    ({"scale": "short.npy"}, InputError, r"scale has shape \(5,\)"),
    ({"bias": "short.npy"}, InputError, r"bias has shape \(5,\)"),
    ({"scale": "single.npy"}, InputError, r"scale has shape \(1,\)"),
    ({"scale": "nan6.npy"}, InputError, "finite|NaN"),
    ({"scale": "gone.npy"}, InputError, "gone.npy"),
    ({"affine": "gone.npz"}, InputError, "gone.npz"),
    ({"affine": "mean.npy"}, InputError, "a scale or a bias"),
    (
        {"stats": "stats.json", "scale": "zero.npy", "inverse": True},
        DataPolicyError,
        "scales are 0",
    ),
    ({"training": True}, UsageError, "--training needs one --batch-size"),
    ({"training": True, "batch_size": (4, 2)}, UsageError, "--training needs one --batch-size"),
    ({"training": True, "batch_size": 0}, UsageError, "must be 1 or more"),
    ({"training": True, "batch_size": 4, "mode": "instance"}, UsageError, "batch axis that is agg"),
    ({"batch_size": 4}, UsageError, "needs --training"),
    ({"dtype": "int8"}, UsageError, "would lose them"),
    ({"dtype": "complex64"}, UsageError, "not a type"),
    ({"dtype": "nonsense"}, UsageError, "not a type"),
    ({"stats_out": "s.txt"}, UsageError, "no suffix of a statistics file"),
    ({"stats_out": "stats.json"}, UsageError, "exists"),
    ({"stats_out": "gone/s.json"}, OutputError, "does not exist"),
]
PATHS = {"stats", "mean", "variance", "scale", "bias", "affine", "stats_out"}


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".h5"])
@pytest.mark.parametrize(("options", "error", "says"), APPLY)
def test_what_apply_refuses(made, options, error, says, suffix):
    full = {k: made / v if k in PATHS else v for k, v in options.items()}
    if "stats" not in full:
        full.setdefault("layout", "NCHW")
    refused(made, error, says, lambda: normcli.apply(made / "x.npy", made / f"o{suffix}", **full))


def test_a_default_epsilon_that_would_flatten_is_refused(made):
    call = {"layout": "NCHW"}
    refused(
        made,
        DataPolicyError,
        "exceeds 1 % of the variance of 6 of 6 groups",
        lambda: normcli.apply(made / "tiny.npy", made / "o.npy", **call),
    )


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".npz"])
def test_an_error_on_the_way_leaves_nothing(tmp_path, suffix):
    # The first block is written before the last one, with its NaN, is read.
    x = np.ones((2500, 2000), "f4")
    x[:, ::2] = 2
    x[-1, -1] = np.nan
    np.save(tmp_path / "x.npy", x)
    refused(
        tmp_path,
        DataPolicyError,
        "NaN or infinite",
        lambda: normcli.apply(
            tmp_path / "x.npy",
            tmp_path / f"o{suffix}",
            layout="NS",
            mode="instance",
            nonfinite="error",
            memory="24MiB",
        ),
    )
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy"}


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("x.npy", "x.npy"),
        ("x.h5/data", "x.h5/other"),
        ("two.zarr/a", "two.zarr/c"),
        ("x.npz/data", "x.npz"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_the_input(made, source, output, overwrite):
    refused(
        made,
        UsageError,
        "the input",
        lambda: normcli.apply(made / source, made / output, layout="NCHW", overwrite=overwrite),
    )


def test_another_name_of_the_input(made, tmp_path):
    os.symlink(made / "x.npy", tmp_path / "link.npy")
    os.link(made / "x.npy", made / "hard.npy")
    try:
        for name in (tmp_path / "link.npy", made / "hard.npy"):
            refused(
                made,
                UsageError,
                "the input",
                lambda name=name: normcli.apply(
                    made / "x.npy", name, layout="NCHW", overwrite=True
                ),
            )
    finally:
        (made / "hard.npy").unlink()


@pytest.mark.parametrize("name", ["x.npz", "x.h5", "two.zarr", "two.h5"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_statistics_never_replace_an_input(made, name, overwrite):
    inner = "" if name.startswith("x") else "/a"
    refused(
        made,
        UsageError,
        "the input|exists",
        lambda: normcli.fit(
            f"{made / name}{inner}", made / name, layout="NCHW", overwrite=overwrite
        ),
    )
    refused(
        made,
        UsageError,
        "the input|exists",
        lambda: normcli.apply(
            f"{made / name}{inner}",
            made / "o.npy",
            stats_out=made / name,
            layout="NCHW",
            overwrite=overwrite,
        ),
    )


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".zarr"])
def test_statistics_never_replace_their_output(made, suffix):
    name = made / f"both{suffix}"
    refused(
        made,
        UsageError,
        "output",
        lambda: normcli.apply(made / "x.npy", name, stats_out=name, layout="NCHW"),
    )


def test_existing_outputs(made):
    for call in (
        lambda: normcli.fit(made / "x.npy", made / "stats.json", layout="NCHW"),
        lambda: normcli.apply(made / "x.npy", made / "wide.npy", layout="NCHW"),
        lambda: normcli.apply(made / "x.npy", made / "two.h5", layout="NCHW"),
        lambda: normcli.apply(made / "x.npy", made / "two.zarr", layout="NCHW"),
    ):
        refused(made, UsageError, "exists.", call)
    # Others' arrays are not lost even where replacing is allowed.
    for name in ("two.h5", "two.zarr"):
        refused(
            made,
            UsageError,
            "other arrays, which would be lost",
            lambda name=name: normcli.apply(
                made / "x.npy", made / name, layout="NCHW", overwrite=True
            ),
        )


def test_folders_that_cannot_take_an_output(made, tmp_path):
    for name in ("gone/o.npy", "gone/o.h5", "gone/o.zarr"):
        refused(
            made,
            OutputError,
            "does not exist",
            lambda name=name: normcli.apply(made / "x.npy", made / name, layout="NCHW"),
        )
    refused(
        made,
        OutputError,
        "does not exist",
        lambda: normcli.fit(made / "x.npy", made / "gone/s.json", layout="NCHW"),
    )
    for name in ("o.csv", "o"):
        refused(
            made,
            UsageError,
            "suffix",
            lambda name=name: normcli.apply(made / "x.npy", made / name, layout="NCHW"),
        )
    refused(
        made,
        UsageError,
        "suffix",
        lambda: normcli.fit(made / "x.npy", made / "s.txt", layout="NCHW"),
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(made, tmp_path):
    tmp_path.chmod(0o500)
    try:
        refused(
            made,
            OutputError,
            "cannot be written",
            lambda: normcli.apply(made / "x.npy", tmp_path / "o.npy", layout="NCHW"),
        )
    finally:
        tmp_path.chmod(0o700)


def test_inputs_that_do_not_fit_each_other(made):
    def fit(*names, layout="NCHW"):
        return lambda: normcli.fit([made / n for n in names], made / "o.json", layout=layout)

    refused(made, InputError, "joined only if", fit("x.npy", "wide.npy"))
    refused(made, InputError, "must have one type", fit("x.npy", "double.npy"))
    refused(made, UsageError, "has no N", fit("x.npy", "x.npy", layout="CTHW"))
    refused(made, InputError, "gone.npy", fit("x.npy", "gone.npy"))
    refused(made, UsageError, "no input", fit())
