"""inspect: containers, single arrays, sidecars and parameter files; for people and programs."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from tests.cli.terminal import SAMPLES, call, run


def test_a_container_is_a_table():
    ended = call("inspect", SAMPLES / "co2.h5")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.text.splitlines()
    assert lines[0].split() == [
        "name", "shape", "dtype", "chunks", "codecs", "dimensions", "size", "stored",
    ]  # fmt: skip
    weekly = next(line for line in lines if line.startswith("co2/weekly"))
    assert weekly.split("  ") != weekly.split()
    for word in ("2284", "float32", "512", "shuffle, gzip 6", "time", "8.9 KiB", "3.3 KiB"):
        assert word in weekly
    assert len(lines) == 5
    assert all(line == line.rstrip() for line in lines)


def test_one_array_with_its_attributes():
    text = call("inspect", SAMPLES / "co2.h5" / "co2" / "weekly").text
    assert "units      ppmv" in text
    assert "co2/year" not in text
    document = json.loads(call("inspect", SAMPLES / "co2.h5" / "co2" / "weekly", "--json").out)
    assert document["attributes"]["units"] == "ppmv"
    (array,) = document["arrays"]
    assert array["shape"] == [2284]
    assert array["chunks"] == [512]
    assert array["dimensions"] == ["time"]
    assert array["size"] == 4 * 2284


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digits.npy", ["digits.npy", "1797, 8, 8", "uint8", "112 KiB"]),
        ("patches.zarr", ["patches.zarr", "64, 3, 32, 32", "24, 3, 32, 32", "zstd", "sample"]),
        ("wine.zarr", ["measurements", "178, 13", "float64", "blosc", "sample, measurement"]),
    ],
)
def test_the_samples(name: str, words: list[str]):
    ended = call("inspect", SAMPLES / name)
    assert ended.code == 0
    for word in words:
        assert word in ended.text
    assert json.loads(call("inspect", SAMPLES / name, "--json").out)["kind"] == "container"


def test_shards_are_shown(folder: Path):
    zarr.create_array("s.zarr", shape=(8, 8), chunks=(2, 2), shards=(4, 8), dtype="f4")[...] = 1
    assert "2, 2 (shards 4, 8)" in call("inspect", "s.zarr").text


@pytest.mark.parametrize("suffix", ["json", "npz", "h5", "zarr", "safetensors"])
def test_sidecars_of_every_format(folder: Path, suffix: str):
    fitted = call("fit", "x.npy", "-o", f"s.{suffix}", "-q", "--momentum=0.9", "--batch-size=10")
    assert fitted.code == 0
    text = call("inspect", f"s.{suffix}").text
    assert not text.startswith("\n")
    for word in ("fitted statistics", "batch, method zscore", "shape (40, 6), float32",
                 "momentum 0.9, batches of 10", "moving_mean", "variance"):  # fmt: skip
        assert word in text
    document = json.loads(call("inspect", f"s.{suffix}", "--json").out)
    assert document["kind"] == "statistics"
    assert document["spec"]["mode"] == "batch"
    assert {"count", "mean", "m2", "variance", "minimum", "maximum", "nonfinite", "moving_mean",
            "moving_variance"} <= {a["name"] for a in document["arrays"]}  # fmt: skip


def test_each_input_of_a_fit_is_shown(folder: Path):
    np.save("a.npy", np.zeros((2, 3)))
    np.savez("b.npz", one=np.ones((4, 3)), two=np.ones(1))
    assert call("fit", "a.npy", "b.npz/one", "-o", "s.json", "-q").code == 0
    text = " ".join(call("inspect", "s.json").text.split())
    assert f"input 1 path {folder / 'a.npy'}, size" in text
    assert f"input 2 path {folder / 'b.npz'}, array one, size" in text


def test_parameter_files(folder: Path):
    from safetensors.numpy import save_file

    save_file({"weight": np.full(3, 2.0), "bias": np.zeros(3)}, "p.safetensors")
    ended = call("inspect", "p.safetensors")
    assert ended.code == 0
    assert "weight  3      float64  2, 2, 2" in ended.text
    assert json.loads(call("inspect", "p.safetensors", "--json").out)["kind"] == "parameters"


def test_hostile_names_and_attributes_are_escaped(folder: Path):
    name = "\x1b]0;owned\x07[bold red]x[/]\nfake line\u202e"
    with h5py.File("h.h5", "w") as file:
        file[name] = np.ones((2, 2))
        file[name].attrs["\x1b[2J"] = "\x1b[31m[red]"
        file["with/two"] = np.ones(2)
    for ended in (
        run("inspect", "h.h5", cwd=folder, FORCE_COLOR="1"),
        run("inspect", f"h.h5/{name}", cwd=folder),
    ):
        assert ended.code == 0, ended
        assert "\x1b]" not in ended.text
        assert "\x1b[2J" not in ended.text
        assert "\x07" not in ended.text
        assert r"\x1b]0;owned\x07[bold red]x[/]\nfake line\u202e" in ended.text
    assert r"\x1b[2J  \x1b[31m[red]" in ended.text
    raw = call("inspect", "h.h5", "--json").out
    assert b"\x1b" not in raw
    assert name in {a["name"] for a in json.loads(raw)["arrays"]}


def test_json_is_strict_even_for_nan(folder: Path):
    with h5py.File("n.h5", "w") as file:
        file["x"] = np.ones(3)
        file["x"].attrs["missing_value"] = np.float32("nan")
        file["x"].attrs["range"] = np.array([-np.inf, 1.5])
        file["x"].attrs["bytes"] = b"abc"
    raw = call("inspect", "n.h5/x", "--json").text

    def refuse(word: str) -> None:
        raise AssertionError(word)

    attributes = json.loads(raw, parse_constant=refuse)["attributes"]
    assert attributes["missing_value"] == "NaN"
    assert attributes["range"] == ["-Infinity", 1.5]
    np.save("nan.npy", np.array([[np.nan], [1.0]]))
    for arguments in (["fit", "nan.npy", "--json"], ["apply", "nan.npy", "-o", "y.npy", "--json"]):
        ended = call(*arguments, "--nonfinite", "propagate")
        assert ended.code == 0, ended
        json.loads(ended.out, parse_constant=refuse)


def test_long_names_stay_on_one_line(folder: Path):
    with h5py.File("l.h5", "w") as file:
        file["n" * 500] = np.ones(2)
    assert len(call("inspect", "l.h5").text.splitlines()) == 2


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_names_that_are_no_unicode(folder: Path):
    os.rename(b"x.npy", b"\xff.npy")
    ended = run("inspect", os.fsdecode(b"\xff.npy"), cwd=folder)
    assert ended.code == 0
    assert r"\udcff.npy" in ended.text
    json.loads(run("inspect", os.fsdecode(b"\xff.npy"), "--json", cwd=folder).out)


@pytest.mark.parametrize("holes", [1, 3])
def test_a_member_that_is_damaged_does_not_hide_the_others(folder: Path, holes: int):
    whole = (folder / "x.npy").read_bytes()
    with zipfile.ZipFile("e.npz", "w") as archive:
        archive.writestr("a.npy", whole)
        for number in range(holes):
            archive.writestr(f"hole{number}.npy", b"")
        archive.writestr("z.npy", whole)
    ended = call("inspect", "e.npz")
    assert ended.code == 3
    assert [line.split()[0] for line in ended.text.splitlines()[1:]] == ["a", "z"]
    assert "normcli: error: e.npz/hole0 is empty" in ended.err
    assert ("; 2 more." in ended.err) == (holes == 3)
    found = json.loads(call("inspect", "e.npz", "--json").out)
    assert [array["name"] for array in found["arrays"]] == ["a", "z"]
    assert len(found["damaged"]) == holes
    # An array that is named is read whatever the others are.
    assert call("fit", "e.npz/z", "-o", "s.json").code == 0
