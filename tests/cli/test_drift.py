"""An input that has changed since its statistics were taken is refused, unless that is meant."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest
import zarr

import normcli
from normcli.errors import DataPolicyError
from tests.cli.terminal import assert_told, call

# More than the sample of a file's content, 128 KiB, so that its middle is not sampled.
LONG = 1 << 17
CHANGED = "has changed since the statistics were taken from it"


def values(count: int = LONG) -> np.ndarray:
    return np.random.default_rng(11).normal(3, 2, (count // 4, 4)).astype(np.float32)


def write(name: str, data: np.ndarray) -> None:
    path = name.split(".")[-1]
    if path == "npy":
        np.save(name, data)
    elif path == "h5":
        with h5py.File(name, "w") as file:
            file["x"] = data
    elif path == "npz":
        np.savez(name, x=data)
    else:
        # Without a codec, so that the sizes of chunks say nothing of their content.
        array = zarr.create_array(
            name, shape=data.shape, chunks=(1000, 4), dtype=data.dtype, compressors=None,
            overwrite=True,
        )  # fmt: skip
        array[...] = data


def later(name: str) -> None:
    """Set the times of a file or of a store to tomorrow."""
    for folder, _, files in os.walk(name):
        for file in files:
            os.utime(os.path.join(folder, file), (2e9, 2e9))
    os.utime(name, (2e9, 2e9))


def fit(name: str, *options: str) -> None:
    ended = call("fit", name, "-o", "s.json", "--overwrite", "-q", *options)
    assert ended.code == 0, ended.err


def apply(name: str, *options: str):
    return call("apply", name, "-o", "y.npy", "--stats", "s.json", "--overwrite", *options)


CONTAINERS = ("x.npy", "x.h5", "x.npz", "x.zarr")


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("count", [400, LONG])
class TestOneFile:
    def test_one_changed_value(self, folder, name, count):
        data = values(count)
        write(name, data)
        fit(name)
        data[len(data) // 2, 1] += 0.5
        write(name, data)
        later(name)
        refused = apply(name)
        assert_told(refused, 7, str(folder / name), CHANGED, "--force")
        assert not (folder / "y.npy").exists()
        forced = apply(name, "--force")
        assert forced.code == 0
        assert "warning: " in forced.err
        assert (folder / "y.npy").exists()

    def test_a_touch_is_no_change(self, folder, name, count):
        write(name, values(count))
        fit(name)
        later(name)
        ended = apply(name)
        assert ended.code == 0, ended.err
        assert "warning" not in ended.err
        assert "changed" not in ended.err


@pytest.mark.parametrize("name", CONTAINERS)
def test_another_path_is_other_data(folder, name):
    write(name, values())
    fit(name)
    write(f"test-{name}", values() + 1)
    ended = apply(f"test-{name}")
    assert ended.code == 0
    assert "changed" not in ended.err


def test_another_array_of_the_file_is_other_data(folder):
    with h5py.File("x.h5", "w") as file:
        file["train"], file["test"] = values(400), values(400) + 1
    fit("x.h5/train")
    with h5py.File("x.h5", "r+") as file:
        file["more"] = values(8)
    assert apply("x.h5/test").code == 0
    assert_told(apply("x.h5/train"), 7, CHANGED)


def test_a_file_that_is_renewed_each_day(folder):
    """The statistics hold it twice, and it is what was measured last."""
    write("today.npy", values(400))
    fit("today.npy")
    write("today.npy", values(400) + 1)
    assert call("fit", "today.npy", "--update", "s.json", "-o", "t.json").code == 0
    ended = call("apply", "today.npy", "-o", "y.npy", "--stats", "t.json")
    assert ended.code == 0
    assert "changed" not in ended.err


def test_one_of_joined_inputs_that_was_written_to(folder):
    """Their statistics cannot be told from one of them, so that it is warned of."""
    write("a.npy", values())
    write("b.npy", values() + 1)
    assert call("fit", "a.npy", "b.npy", "-o", "s.json").code == 0
    later("a.npy")
    ended = apply("a.npy")
    assert ended.code == 0
    assert "warning: a.npy was written to since" in ended.err
    write("b.npy", values() + 2)
    assert_told(apply("b.npy"), 7, str(folder / "b.npy"), CHANGED)


def test_a_dry_run_measures_nothing(folder):
    write("x.npy", values())
    fit("x.npy")
    later("x.npy")
    ended = apply("x.npy", "--dry-run")
    assert ended.code == 0
    assert "warning: x.npy was written to since" in ended.err
    write("x.npy", values(400))
    assert_told(apply("x.npy", "--dry-run"), 7, CHANGED)


@pytest.mark.parametrize(
    "options",
    [
        ("--mode", "layer"),
        ("--mode", "instance"),
        ("--method", "robust"),
        ("--method", "minmax", "--range", "-1,1"),
        ("--momentum", "0.9", "--batch-size", "64"),
        ("--mode", "custom", "--aggregate", "0"),
        ("--mode", "group", "--groups", "2"),
    ],
)
def test_a_touch_with_every_kind_of_statistics(folder, options):
    write("x.npy", np.tile(values(LONG // 4).reshape(-1, 8, 4), (2, 1, 1)))
    fit("x.npy", "--layout", "NCS", *options)
    later("x.npy")
    ended = apply("x.npy")
    assert ended.code == 0, ended.err
    assert "warning: x.npy was written" not in ended.err


def test_what_is_undone_is_not_what_was_measured(folder):
    write("x.npy", values(400))
    assert call("apply", "x.npy", "-o", "y.npy", "-q").code == 0
    os.replace("y.npy", "x.npy")
    ended = call("apply", "x.npy", "-o", "z.npy", "--inverse", "--stats", "y.npy.stats.json")
    assert ended.code == 0
    assert "changed" not in ended.err


def test_learn_refuses_it_too(folder):
    write("x.npy", values(400))
    fit("x.npy")
    write("x.npy", values(400) + 1)
    learn = ("learn", "x.npy", "x.npy", "-o", "a.json", "--stats", "s.json")
    assert_told(call(*learn), 7, CHANGED)
    forced = call(*learn, "--force")
    assert forced.code == 0
    assert CHANGED in forced.err


def test_check_tells_it(folder):
    write("x.npy", values())
    fit("x.npy")
    data = values()
    data[0, 0] += 0.5
    write("x.npy", data)
    ended = call("check", "s.json", "x.npy", "--json")
    assert ended.code == 7
    found = {f["about"]: f for f in json.loads(ended.text)["findings"]}
    assert found["input"]["verdict"] == "misfit"
    assert CHANGED in found["input"]["text"]
    write("x.npy", values())
    later("x.npy")
    ended = call("check", "s.json", "x.npy", "--json")
    assert ended.code == 0
    found = {f["about"]: f for f in json.loads(ended.text)["findings"]}
    assert found["input"]["verdict"] == "note"


def test_from_python(folder):
    write("x.npy", values(400))
    stats = normcli.fit("x.npy")
    write("x.npy", values(400) + 1)
    with pytest.raises(DataPolicyError, match=CHANGED):
        normcli.apply("x.npy", "y.npy", stats=stats)
    assert normcli.apply("x.npy", "y.npy", stats=stats, force=True).written_mean is not None


def test_several_inputs_of_which_one_changed(folder):
    write("a.npy", values(400))
    write("b.npy", values(400))
    fit("a.npy")
    write("a.npy", values(400) + 1)
    ended = call("apply", "a.npy", "b.npy", "-o", "out/", "--stats", "s.json")
    assert ended.code == 8
    assert CHANGED in ended.err
    assert (folder / "out/b.npy").exists()
    assert not (folder / "out/a.npy").exists()
