"""Each option is heard, and can come from the environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.terminal import call, run, zscore


def _fit(*options: object, name: str = "x.npy", **env: str) -> dict[str, Any]:
    ended = call("fit", name, "--json", "-q", *options, **env)
    assert ended.code == 0, ended.err
    document: dict[str, Any] = json.loads(ended.out)
    return document


def _mean(*options: object, name: str = "x.npy", array: str = "mean") -> np.ndarray:
    return np.array(_fit(*options, name=name)["statistics"]["arrays"][array]["data"], float)


def _apply(*options: object, name: str = "x.npy") -> np.ndarray:
    ended = call("apply", name, "-o", "y.npy", "--overwrite", "-q", *options)
    assert ended.code == 0, ended.err
    return np.asarray(np.load("y.npy"))


@pytest.fixture
def made(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    np.save("image.npy", rng.normal(5, 3, (8, 4, 3, 5)))
    np.save(
        "nan.npy", np.where(np.arange(40).reshape(20, 2) == 7, np.nan, rng.normal(size=(20, 2)))
    )
    np.save("m.npy", np.arange(6.0))
    np.save("v.npy", np.arange(6.0) + 1)
    np.savez("affine.npz", scale=np.full(6, 3.0), bias=np.arange(6.0))
    moving = ["--momentum", "0.9", "--batch-size", "10"]
    for arguments in (["-o", "s.json"], ["-o", "moving.json", *moving]):
        assert call("fit", "x.npy", "-q", *arguments).code == 0
    return folder


def _x() -> np.ndarray:
    return np.load("x.npy").astype(float)


def _image() -> np.ndarray:
    return np.asarray(np.load("image.npy"))


IMAGE = {"name": "image.npy"}
MOVING = ["--momentum", "0.5", "--batch-size", "10"]


def _by_groups(groups: int, axis: int) -> np.ndarray:
    """Return means over groups of one axis and all others but the first."""
    parts = np.split(_image(), groups, axis)
    return np.stack([p.mean(axis=(1, 2, 3)) for p in parts], axis=1)


def _ema(momentum: float, sizes: list[int], first: bool = False) -> np.ndarray:
    mean = np.zeros(6)
    batches = np.split(_x(), np.cumsum(sizes)[:-1])
    for i, batch in enumerate(batches):
        weight = 0 if first and i == 0 else momentum
        mean = weight * mean + (1 - weight) * batch.mean(0)
    return mean


def _same(*pairs: tuple[np.ndarray, np.ndarray]) -> None:
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def _training() -> np.ndarray:
    return np.concatenate([zscore(part, [0]) for part in np.split(_x(), [16, 32])])


EFFECTS: dict[str, Callable[[], None]] = {
    "mode": lambda: _same((_mean("--mode=instance", **IMAGE), _image().mean((2, 3)))),
    "layout": lambda: _same((_mean("--layout=NHWC", **IMAGE), _image().mean((0, 1, 2)))),
    "aggregate": lambda: _same(
        (_mean("--mode=custom", "--aggregate=0,-1", **IMAGE), _image().mean((0, 3)))
    ),
    "wolfram-levels": lambda: _same(
        (_mean("--mode=custom", "--wolfram-levels", "--aggregate=2;;All", **IMAGE),
         _image().mean((2, 3)))
    ),
    "scale-axes": lambda: _same(
        (_apply("--mode=layer", "--scale-axes=none", "--scale=two.npy"), 2 * zscore(_x(), [1]))
    ),
    "groups": lambda: _same((_mean("--mode=group", "--groups=2", **IMAGE), _by_groups(2, 1))),
    "group-axis": lambda: _same(
        (_mean("--mode=group", "--groups=3", "--group-axis=2", **IMAGE), _by_groups(3, 2))
    ),
    "method": lambda: _same((_apply("--method=center"), _x() - _x().mean(0))),
    "epsilon": lambda: _same((_apply("--epsilon=2"), zscore(_x(), [0], 2))),
    "epsilon-placement": lambda: _same(
        (_apply("--epsilon=2", "--epsilon-placement=outside"),
         (_x() - _x().mean(0)) / (_x().std(0) + 2)),
        (_apply("--epsilon=99", "--epsilon-placement=floor"), (_x() - _x().mean(0)) / 99),
    ),
    "ddof": lambda: _same((_mean("--ddof=1", array="variance"), _x().var(0, ddof=1))),
    "convention": lambda: _same((_apply("--convention=keras"), zscore(_x(), [0], 1e-3))),
    "nonfinite": lambda: _same(
        (_mean(name="nan.npy"), np.nanmean(np.load("nan.npy"), 0)),
        (_apply("--nonfinite=propagate", name="nan.npy")[:, 1], np.full(20, np.nan)),
    ),
    "momentum": lambda: _same((_mean(*MOVING, array="moving_mean"), _ema(0.5, [10] * 4))),
    "batch-size": lambda: _same(
        (_mean("--momentum=0.5", "--batch-size=10,30", array="moving_mean"), _ema(0.5, [10, 30]))
    ),
    "moving-variance": lambda: _same(
        (_mean("--momentum=0", "--batch-size=40", "--moving-variance=unbiased",
               array="moving_variance"), _x().var(0, ddof=1))
    ),
    "moving-start": lambda: _same(
        (_mean(*MOVING, "--moving-start=first-batch", array="moving_mean"),
         _ema(0.5, [10] * 4, first=True))
    ),
    "update": lambda: _same((_mean("--update=s.json", array="count"), np.full(6, 80.0))),
    "stats": lambda: _same((_apply("--stats=s.json", name="m2.npy"),
                            (np.load("m2.npy") - _x().mean(0)) / np.sqrt(_x().var(0) + 1e-5))),
    "mean": lambda: _same((_apply("--mean=m.npy", "--method=center"), _x() - np.load("m.npy"))),
    "variance": lambda: _same(
        (_apply("--mean=m.npy", "--variance=v.npy", "--epsilon=0"),
         (_x() - np.arange(6)) / np.sqrt(np.arange(6) + 1.0))
    ),
    "estimate": lambda: _same(
        (_apply("--stats=moving.json", "--estimate=pooled"), zscore(_x(), [0])),
        (_apply("--stats=moving.json").mean(0) > 0.3, np.full(6, True)),
    ),
    "training": lambda: _same((_apply("--training", "--batch-size=16"), _training())),
    "affine": lambda: _same((_apply("--affine=affine.npz"), 3 * zscore(_x(), [0]) + np.arange(6))),
    "scale": lambda: _same(
        (_apply("--affine=affine.npz", "--scale=none"), zscore(_x(), [0]) + np.arange(6))
    ),
    "bias": lambda: _same((_apply("--bias=m.npy"), zscore(_x(), [0]) + np.arange(6))),
    "inverse": lambda: _same(
        (_apply("--inverse", "--stats=s.json", name="z.npy"), _x())
    ),
}  # fmt: skip


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_changes_the_numbers(made: Path, option: str):
    np.save("two.npy", np.float64(2))
    np.save("m2.npy", np.random.default_rng(9).normal(size=(7, 6)))
    if option == "inverse":
        call("apply", "x.npy", "-o", "z.npy", "--stats", "s.json", "-q")
    EFFECTS[option]()


def _dtype() -> None:
    assert _apply("--dtype=float16").dtype == np.float16


def _stats_out() -> None:
    _apply("--stats-out=elsewhere.npz")
    assert Path("elsewhere.npz").exists()
    assert not Path("y.npy.stats.json").exists()


def _no_stats_out() -> None:
    _apply("--no-stats-out")
    assert not list(Path().glob("*.stats.*"))


def _overwrite() -> None:
    assert call("apply", "x.npy", "-o", "y.npy", "-q").code == 0
    assert call("apply", "x.npy", "-o", "y.npy", "-q").code == 2
    assert call("apply", "x.npy", "-o", "y.npy", "-q", "--overwrite").code == 0


def _workers() -> None:
    np.lib.format.open_memmap("wide.npy", "w+", np.float64, (12000, 1000))  # a sparse file
    plans = [_fit("-j", n, "--dry-run", "--memory=1GiB", name="wide.npy")["plan"] for n in (1, 2)]
    assert [plan["workers"] for plan in plans] == [1, 2]


def _memory() -> None:
    np.save("wide.npy", np.ones((4000, 500)))
    plan = _fit("--dry-run", "--memory=12MiB", "-j1", name="wide.npy")["plan"]
    assert plan["memory_budget"] == 12 << 20
    assert plan["peak_memory"] <= 12 << 20
    assert plan["passes"][0]["blocks"] > 1


def _dry_run() -> None:
    assert call("fit", "x.npy", "-o", "new.json", "--dry-run").code == 0
    assert not Path("new.json").exists()


def _verbose() -> None:
    assert "normcli: plan\n" in call("fit", "x.npy", "-o", "v.json", "-v").err
    assert "normcli: plan\n" not in call("fit", "x.npy", "-o", "w.json").err


def _progress() -> None:
    assert "measuring" in call("fit", "x.npy", "--json", "--progress").err
    assert "measuring" not in call("fit", "x.npy", "--json", "--no-progress").err


def _assertions() -> None:
    for good, bad in ((["--num-channels=6"], ["--num-channels=7"]),
                      (["--expect-shape=40,*"], ["--expect-shape=40,*,1"])):  # fmt: skip
        assert call("fit", "x.npy", "--json", "-q", *good).code == 0
        assert call("fit", "x.npy", "--json", "-q", *bad).code == 3


@pytest.mark.parametrize(
    "check",
    [_dtype, _stats_out, _no_stats_out, _overwrite, _workers, _memory, _dry_run, _verbose,
     _progress, _assertions],
)  # fmt: skip
def test_an_option_changes_the_run(made: Path, check: Callable[[], None]):
    check()


# The cluster's own sockets and ports are not what is tested.
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_same_bits(made: Path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as c:
        Path("scheduler.json").write_text(json.dumps({"address": c.scheduler_address}))
        by_address = _mean("--scheduler", c.scheduler_address)
        by_file = _mean("--scheduler-file", "scheduler.json")
    np.testing.assert_array_equal(by_address, _mean())
    np.testing.assert_array_equal(by_file, by_address)


def test_options_come_from_the_environment(made: Path):
    env = {
        "NORMCLI_FIT_MEMORY": "13MiB",
        "NORMCLI_FIT_JSON": "1",
        "NORMCLI_FIT_DRY_RUN": "true",
        "NORMCLI_FIT_QUIET": "yes",
        "NORMCLI_FIT_MODE": "instance",
        "NORMCLI_FIT_LAYOUT": "NSS",
        "NORMCLI_APPLY_MEMORY": "1KiB",
    }
    np.save("cube.npy", np.ones((2, 3, 4)))
    ended = run("fit", "cube.npy", cwd=made, **env)
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["plan"]["memory_budget"] == 13 << 20
    # The command line goes before.
    assert _fit("--memory=15MiB", name="cube.npy", **env)["plan"]["memory_budget"] == 15 << 20
    bad = call("fit", "cube.npy", NORMCLI_FIT_MODE="bach")
    assert bad.code == 2
    assert "bach" in bad.err
