"""What no layer of any framework computes is refused: one line, a hint or names, an exit code.

One row for each mistake that the documents of the frameworks name, or leave to chance.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.cli.terminal import call

X = np.random.default_rng(2).normal(1, 2, (4, 3, 5, 6)).astype("f4")


def affine(name: str, **arrays: object) -> None:
    np.savez(name, **{key: np.asarray(value) for key, value in arrays.items()})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Inputs, statistics and parameters, right and wrong."""
    folder = tmp_path_factory.mktemp("refusals")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.save("x.npy", X)
        np.save("flat.npy", X[:, :, 0, 0])
        np.save("vector.npy", X[0, :, 0, 0])
        np.save("single.npy", X[:1, :, :1, :1])
        np.save("empty.npy", X[:, :, :0])
        np.save("no_channels.npy", X[:, :0])
        np.save("number.npy", np.float32(3))
        np.save("complex.npy", X.astype("c8"))
        np.save("text.npy", np.array(["a", "b"]))
        zarr.create_array("named.zarr", data=X, dimension_names=("N", "C", "y", "x"))
        np.save("mean.npy", np.zeros(3))
        np.save("negative.npy", np.array([1.0, -0.5, 2.0]))
        np.save("hidden.npy", np.array([1.0, -1e-9, 2.0]))  # + epsilon it would be positive
        np.save("nan.npy", np.array([1.0, np.nan, 2.0]))
        np.save("infinite.npy", np.array([1.0, np.inf, 2.0]))
        np.save("four.npy", np.ones(4))
        np.save("scalar.npy", np.float64(2))
        np.save("two_d.npy", np.ones((3, 5)))
        np.save("bool.npy", np.ones(3, bool))
        np.save("imaginary.npy", np.ones(3, complex))
        np.save("words.npy", np.array(["a", "b", "c"]))
        np.save("none.npy", np.ones(0))
        np.save("right.npy", np.ones(3))
        affine("both.npz", scale=np.ones(3), bias=np.zeros(3))
        assert call("fit", "x.npy", "-o", "stats.json", "--layout", "NCHW", "-q").code == 0
        layer = ("--mode", "layer", "--layout", "NCHW", "-q", "--stats-out", "layer.json")
        assert call("apply", "x.npy", "-o", "y.npy", *layer).code == 0
        kept = ("--momentum", "0.9", "--batch-size", "2", "--layout", "NCHW", "-q")
        assert call("fit", "x.npy", "-o", "moving.json", *kept).code == 0
        for name in ("moving_variance", "m2"):
            document = json.loads(Path("moving.json").read_text())
            document["arrays"][name]["data"][0] = -1e-9  # + epsilon it would be positive
            Path(f"edited_{name}.json").write_text(json.dumps(document))
    return folder


N = ["--layout", "NCHW"]
ROWS = [
    # Axes.
    ("fit x.npy --layout NCHW --mode layer --aggregate 1,1", 2, "twice"),
    ("fit x.npy --layout NCHW --mode layer --aggregate 3,-1", 2, "twice"),
    ("fit x.npy --layout NCHW --mode layer --aggregate CC", 2, "twice"),
    ("fit x.npy --layout NCHW --mode custom --aggregate 4", 2, "4"),
    ("fit x.npy --layout NCHW --mode custom --aggregate=-5", 2, "-5"),
    ("fit x.npy --layout NCHW --mode custom --aggregate H --scale-axes 9", 2, "9"),
    ("fit x.npy --layout NCHW --mode custom --aggregate 0;;2 --wolfram-levels", 2, "0"),
    ("fit x.npy --layout NCHW --mode custom --aggregate 4 --wolfram-levels", 2, "4"),
    ("fit x.npy --layout NCHW --mode custom --aggregate none", 2, "aggregates no axis"),
    ("fit x.npy --layout NCHW --mode custom --aggregate height", 2, "height"),
    ("fit named.zarr --mode custom --aggregate depth", 2, "depth"),
    ("fit x.npy --layout NCHW --mode custom --aggregate T", 2, "T"),
    ("fit x.npy --layout NCHQ", 2, "unknown letter 'Q'"),
    ("fit x.npy --layout NCCW", 2, "more than once"),
    ("fit x.npy --layout NCHWT", 2, "5 axes"),
    ("fit x.npy --layout NCHW --mode custom", 2, "--aggregate"),
    ("fit x.npy --layout NCHW --aggregate 1", 2, "--mode"),
    # Ranks.
    ("apply flat.npy --layout NC --mode instance", 2, "aggregates no axis"),
    ("apply vector.npy --layout C --mode instance", 2, "aggregates no axis"),
    ("apply number.npy", 3, "no axes"),
    ("apply x.npy --stats stats.json --layout NC", 2, "NC"),
    ("apply flat.npy --stats stats.json", 2, "4 axes"),
    # Extents.
    ("fit empty.npy --layout NCHW", 3, "no elements"),
    ("fit no_channels.npy --layout NCHW", 3, "no elements"),
    ("apply no_channels.npy --layout NCHW --mode layer --aggregate C", 3, "no elements"),
    ("init no_channels.npy --layout NCHW", 3, "extent of the scale axis 1 (C)"),
    ("fit x.npy --layout NCHW --num-channels 4", 3, "3 channels"),
    ("fit x.npy --layout NCHW --num-channels 4", 3, "says 4"),
    ("fit x.npy --layout NTHW --num-channels 3", 2, "layout with C"),
    ("fit x.npy --layout NCHW --expect-shape *,3,5,7", 3, "(4, 3, 5, 6)"),
    ("fit x.npy --layout NCHW --expect-shape *,3,5", 3, "*,3,5"),
    ("fit x.npy --layout NCHW --expect-shape a,b", 2, "no shape"),
    ("apply x.npy --layout NCHW --mode group --groups 2", 2, "2 groups do not divide"),
    ("apply x.npy --layout NCHW --mode group --groups 0", 2, "0"),
    ("apply x.npy --layout NCHW --mode group", 2, "--groups"),
    ("apply x.npy --layout NCHW --groups 3", 2, "--mode group"),
    ("apply x.npy --layout NTHW --mode group --groups 2", 2, "no C"),
    # Numbers.
    ("apply x.npy --layout NCHW --epsilon=-1", 2, "Epsilon is -1"),
    ("apply x.npy --layout NCHW --epsilon nan", 2, "Epsilon is nan"),
    ("apply x.npy --layout NCHW --epsilon inf", 2, "Epsilon is inf"),
    ("apply x.npy --layout NCHW --mode instance --convention matlab --epsilon 0", 2, "above 0"),
    ("fit x.npy --layout NCHW --momentum 1.1 --batch-size 2", 2, "from 0 to 1"),
    ("fit x.npy --layout NCHW --momentum=-.1 --batch-size 2", 2, "from 0 to 1"),
    ("fit x.npy --layout NCHW --ddof 2", 2, "2"),
    # One element a group.
    ("fit single.npy --layout NCHW --ddof 1", 7, "one element"),
    ("apply single.npy --layout NCHW --mode instance --ddof 1", 7, "one element"),
    ("fit flat.npy --layout NC --momentum 0.9 --batch-size 1 --moving-variance unbiased", 7,
     "one element"),
    ("fit flat.npy --layout NC --convention torch --batch-size 1", 7, "one element"),
    ("fit single.npy --layout NCHW --mode instance --convention torch --batch-size 1", 7,
     "one element"),
    # Moving statistics and training belong to batches.
    *(
        (f"fit x.npy --layout NCHW --mode {mode} --momentum 0.9 --batch-size 2", 2, "batch axis")
        for mode in ("instance", "layer", "group --groups 3", "custom --aggregate HW")
    ),
    *(
        (f"apply x.npy --layout NCHW --mode {mode} --training --batch-size 2", 2, "batch axis")
        for mode in ("instance", "layer", "group --groups 3")
    ),
    *(
        (f"fit x.npy --layout NCHW --mode {mode} --convention torch --batch-size 2", 2,
         "batch axis")
        for mode in ("layer", "group --groups 3")
    ),
    ("fit x.npy --layout CHWT --momentum 0.9 --batch-size 2", 2, "batch axis"),
    ("fit x.npy --layout CHWT --mode instance --convention torch --batch-size 2", 2, "batch axis"),
    ("apply x.npy --layout NCHW --training", 2, "--batch-size"),
    ("apply x.npy --layout NCHW --training --batch-size 2,1", 2, "one --batch-size"),
    ("apply x.npy --layout NCHW --batch-size 2", 2, "--training"),
    # What evaluation needs.
    ("apply x.npy --layout NCHW --mean mean.npy", 2, "--variance"),
    ("apply x.npy --layout NCHW --variance right.npy", 2, "--mean"),
    ("apply x.npy --stats stats.json --estimate moving", 3, "no moving"),
    ("apply x.npy --layout NCHW --estimate pooled", 2, "--stats"),
    ("apply x.npy --layout NCHW --inverse", 2, "--stats"),
    ("apply x.npy --stats gone.json", 3, "gone.json"),
    ("apply x.npy --stats both.npz", 3, "no normcli statistics"),
    # A negative variance is refused also where epsilon would hide it.
    ("apply x.npy --layout NCHW --mean mean.npy --variance negative.npy", 7, "never negative"),
    ("apply x.npy --layout NCHW --mean mean.npy --variance hidden.npy", 7, "never negative"),
    ("apply x.npy --stats edited_moving_variance.json", 7, "never negative"),
    ("apply x.npy --stats edited_moving_variance.json --estimate pooled", 7, "never negative"),
    ("apply x.npy --stats edited_m2.json", 7, "never negative"),
    ("fit x.npy --update edited_moving_variance.json", 7, "never negative"),
    ("convert edited_moving_variance.json --to torch", 7, "never negative"),
    # Parameters: nothing is broadcast, all numbers are finite and real.
    *(
        (f"apply x.npy --stats stats.json --{term} {name}.npy", 3, told)
        for term in ("scale", "bias")
        for name, told in (
            ("four", "(4,)"),
            ("scalar", "()"),
            ("two_d", "(3, 5)"),
            ("none", "empty"),
            ("nan", "1 NaN"),
            ("infinite", "1 infinite"),
            ("bool", "bool"),
            ("imaginary", "complex"),
            ("words", "words.npy"),
            ("gone", "gone.npy"),
        )
    ),
    *(
        (f"apply x.npy --layout NCHW --mean {mean}.npy --variance {variance}.npy", 3, told)
        for mean, variance, told in (
            ("four", "right", "(4,)"),
            ("mean", "four", "(4,)"),
            ("nan", "right", "1 NaN"),
            ("mean", "infinite", "1 infinite"),
            ("scalar", "right", "()"),
        )
    ),
    ("apply x.npy --stats stats.json --affine right.npy", 3, "without a name"),
    ("apply x.npy --stats stats.json --scale-axes HW --affine both.npz", 3, "(5, 6)"),
    ("init x.npy --layout NCHW --scale narrow-normal", 2, "--seed"),
    ("init x.npy --layout NCHW --scale four.npy", 3, "(4,)"),
    ("init x.npy --layout NCHW --scale glorot", 3, "glorot"),
    ("learn x.npy x.npy --layout NCHW --solver sgd --scale-rate-factor=-1", 2, "0 or more"),
    ("learn x.npy x.npy --layout NCHW --l2=-1", 2, "0 or more"),
    ("learn x.npy x.npy --layout NCHW --l2 1 --scale-l2-factor=-1", 2, "0 or more"),
    ("learn x.npy flat.npy --layout NCHW", 3, "(4, 3)"),
    # Types.
    ("apply x.npy --layout NCHW --dtype int16", 2, "int16"),
    ("apply complex.npy --layout NCHW", 3, "complex"),
    ("fit text.npy", 3, "text.npy"),
    # What was fitted is not changed.
    ("apply x.npy --stats stats.json --mode layer", 2, "contradicts"),
    ("apply x.npy --stats stats.json --ddof 1", 2, "contradicts"),
    ("fit x.npy --wolfram-levels", 2, "neither is given"),
    ("fit gone*.npy", 3, "Patterns are left to the shell"),
    ("fit gone.npy", 3, "Hint: Check the name."),
    ("apply x.npy --stats stats.json --group-axis 1", 2, "whose groups divide none"),
    ("apply x.npy --stats stats.json --mean mean.npy --variance right.npy", 2, "excludes"),
    ("apply x.npy flat.npy --layout NC --stats-out one.json", 2, "--stats-out"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "told"), ROWS, ids=[row[0] for row in ROWS])
def test_a_mistake_is_refused(prepared, monkeypatch, command, code, told):
    monkeypatch.chdir(prepared)
    before = sorted(path.name for path in prepared.iterdir())
    words = command.split()
    suffix = {"apply": ".npy", "fit": ".json", "init": ".npz", "learn": ".json", "convert": ".npz"}[
        words[0]
    ]
    output = "several" if "one.json" in words else f"no{suffix}"
    ended = call(*words, "-o", output, "-q")
    assert ended.code == code, ended.err
    assert ended.err.startswith("normcli: error: "), ended.err
    assert told in " ".join(ended.err.split()), ended.err
    assert "Traceback" not in ended.err
    assert sorted(path.name for path in prepared.iterdir()) == before


def test_axes_of_length_one_do_not_matter(prepared, monkeypatch):
    """MATLAB's C x 1, 1 x C and 1 x 1 x C are the same as C."""
    monkeypatch.chdir(prepared)
    made = []
    for shape in ((3,), (3, 1), (1, 3), (1, 1, 3), (1, 1, 1, 3)):
        np.save("shaped.npy", np.arange(1.0, 4.0).reshape(shape))
        ended = call("apply", "x.npy", "-o", "ones.npy", "--stats", "stats.json", "--scale",
                     "shaped.npy", "--overwrite")  # fmt: skip
        assert ended.code == 0, ended.err
        made.append(np.load("ones.npy"))
    assert all(np.array_equal(made[0], other) for other in made)
