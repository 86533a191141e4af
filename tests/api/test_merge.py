"""fit --part and merge: what was measured apart is what one fit measures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import normcli
from normcli.domain.part import Part
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError, InputError, UsageError
from tests.cli.terminal import call

from .stores import STORAGES, store

X = np.random.default_rng(31).normal(-3, 2, (23, 6, 10, 14)).astype("f4")
X[4, 2, 3, 5:9] = [np.nan, np.inf, -np.inf, np.nan]
CHUNKS = (5, 4, 10, 6)

# Sums are exact and rounded once, however the data were cut.
RELATIVE = 0


def fit_parts(folder: Path, name: str | list[str], of: int, suffix: str = ".json", **options):
    paths = []
    for number in range(1, of + 1):
        paths.append(folder / f"part-{number}-of-{of}{suffix}")
        normcli.fit(name, paths[-1], part=f"{number}/{of}", **options)
    return paths


def assert_same(a: normcli.FittedStatistics, b: normcli.FittedStatistics) -> None:
    ours, theirs = a.statistics.moments, b.statistics.moments
    for exact in ("count", "minimum", "maximum", "nonfinite"):
        assert getattr(ours, exact).tobytes() == getattr(theirs, exact).tobytes()
    for close in ("mean", "m2"):
        np.testing.assert_allclose(getattr(ours, close), getattr(theirs, close), rtol=RELATIVE)
    assert a.statistics.spec == b.statistics.spec
    assert a.statistics.source == b.statistics.source


@pytest.mark.parametrize(
    ("storage", "of"),
    [
        # How an array is cut into parts follows from its chunks, if it has any.
        pytest.param(storage, of, marks=[] if of == 7 or storage == "zarr3" else [pytest.mark.slow])
        for storage in STORAGES
        for of in (2, 7, 50)
    ],
)
def test_parts_give_what_one_fit_gives(tmp_path, storage, of):
    name = store(tmp_path, "x", X, storage, CHUNKS)
    paths = fit_parts(tmp_path, name, of, layout="NCHW")
    whole = normcli.fit(name, tmp_path / "whole.json", layout="NCHW")
    merged = normcli.merge(paths[::-1], tmp_path / "merged.json")
    assert_same(merged, whole)
    assert_same(normcli.read_statistics(tmp_path / "merged.json"), whole)
    wide = np.where(np.isfinite(X), X, np.nan).astype(np.float64)
    np.testing.assert_allclose(merged.mean, np.nanmean(wide, (0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(merged.variance, np.nanvar(wide, (0, 2, 3)), rtol=1e-13)
    assert merged.count.sum() == X.size - 4
    # What was merged normalizes as what was fitted.
    normcli.apply(name, tmp_path / "a.npy", stats=tmp_path / "merged.json")
    normcli.apply(name, tmp_path / "b.npy", stats=tmp_path / "whole.json")
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


BY_PARTS: dict[str, dict[str, Any]] = {
    "instance": {"mode": "instance", "layout": "NCHW"},
    "group": {"mode": "group", "groups": 3, "layout": "NCHW"},
    "layer": {"mode": "layer", "layout": "NHWC"},
    "custom": {"mode": "custom", "aggregate": "NH", "layout": "NCHW"},
    "rms": {"mode": "batch", "method": "rms", "ddof": 1, "layout": "NHWC"},
    "no-N": {"mode": "batch", "layout": "HWCT"},
}


@pytest.mark.parametrize(
    ("kind", "storage"),
    [
        # By turns: each mode is in the fast cut for one of them.
        pytest.param(kind, storage, marks=[] if (i + j) % 2 == 0 else [pytest.mark.slow])
        for i, kind in enumerate(BY_PARTS)
        for j, storage in enumerate(["npy-fortran", "zarr3"])
    ],
)
def test_every_mode_by_parts(tmp_path, storage, kind):
    options = BY_PARTS[kind]
    name = store(tmp_path, "x", X, storage, CHUNKS)
    merged = normcli.merge(fit_parts(tmp_path, name, 9, ".npz", **options))
    assert_same(merged, normcli.fit(name, **options))


def test_a_budget_and_workers_cut_no_part_otherwise(tmp_path):
    name = store(tmp_path, "x", X, "zarr3", CHUNKS)
    for i, run in enumerate(({"memory": "4400KiB", "workers": 1}, {"memory": "1GiB"}, {})):
        normcli.fit(name, tmp_path / f"{i}.json", part=f"{i + 1}/3", layout="NCHW", **run)
    merged = normcli.merge([tmp_path / f"{i}.json" for i in range(3)])
    assert_same(merged, normcli.fit(name, layout="NCHW"))


def test_an_empty_part_is_valid(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3.0))
    paths = fit_parts(tmp_path, str(tmp_path / "x.npy"), 8, layout="N")
    assert sum(normcli.read_statistics(path).count == 0 for path in paths) == 5
    merged = normcli.merge(paths)
    assert (float(merged.mean), float(merged.variance)) == (1.0, 2 / 3)


def test_part_one_of_one_is_the_whole(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    fitted = normcli.fit(name, tmp_path / "s.json", part="1/1", layout="NCHW")
    assert fitted.statistics.source.part is None
    assert "part" not in json.loads((tmp_path / "s.json").read_text())["source"]


def test_several_inputs_by_parts(tmp_path):
    names = [store(tmp_path, f"x{i}", X[i * 8 : i * 8 + 8], "h5-chunked", CHUNKS) for i in range(3)]
    merged = normcli.merge(fit_parts(tmp_path, names, 5, layout="NCHW"))
    assert_same(merged, normcli.fit(names, layout="NCHW"))


@pytest.mark.parametrize("mode", ["batch", "instance"])
def test_separate_fits_are_merged_as_one_dataset(tmp_path, mode):
    names = [
        store(tmp_path, f"x{i}", X[a:b], "npy")
        for i, (a, b) in enumerate([(0, 4), (4, 5), (5, 23)])
    ]
    options = {"layout": "NCHW", "mode": mode}
    for i, name in enumerate(names):
        normcli.fit(name, tmp_path / f"{i}.json", **options)
    two = normcli.merge([tmp_path / "0.json", tmp_path / "1.json"], tmp_path / "01.zarr")
    assert two.statistics.source.shape[0] == 5
    merged = normcli.merge([tmp_path / "01.zarr", tmp_path / "2.json"])
    assert_same(merged, normcli.fit(names, **options))


def test_parts_of_several_inputs_and_a_whole_one(tmp_path):
    names = [store(tmp_path, f"x{i}", X[i * 6 : i * 6 + 6], "npy") for i in range(3)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = fit_parts(tmp_path / "a", names[0], 3, layout="NCHW")
    paths += fit_parts(tmp_path / "b", names[1], 3, layout="NCHW")
    normcli.fit(names[2], tmp_path / "c.json", layout="NCHW")
    merged = normcli.merge([*paths, tmp_path / "c.json"])
    assert_same(merged, normcli.fit(names, layout="NCHW"))
    with pytest.raises(InputError, match=r"1 of the 3 parts of x1.npy missing: 2\."):
        normcli.merge([*paths[:4], *paths[5:], tmp_path / "c.json"])


def test_a_copy_of_the_input_on_another_node(tmp_path):
    paths = []
    for number in (1, 2):
        node = tmp_path / f"node-{number}"
        node.mkdir()
        name = store(node, "x", X, "npy")
        paths.append(node / "s.json")
        normcli.fit(name, paths[-1], layout="NCHW", part=f"{number}/2")
    whole = normcli.fit(name, layout="NCHW")
    np.testing.assert_array_equal(normcli.merge(paths).count, whole.count)


def refused(paths, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        normcli.merge(paths)
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message, caught.value.message


def test_missing_and_doubled_parts_are_listed(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    paths = fit_parts(tmp_path, name, 9, layout="NCHW")
    refused([paths[i] for i in (0, 2, 6, 8)], "5 of the 9 parts of x.npy missing: 2,4-6,8.")
    refused([*paths, paths[3]], "given twice: 4/9 in", "part-4-of-9.json")
    refused([*fit_parts(tmp_path, name, 2, layout="NCHW")[:1]], "1 of the 2 parts")
    refused([*paths[1:], tmp_path / "gone.json"], "gone.json")


def test_parts_of_an_input_that_changed_do_not_meet(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    first = tmp_path / "1.json"
    normcli.fit(name, first, layout="NCHW", part="1/2")
    store(tmp_path, "x", X + 1, "npy")
    second = tmp_path / "2.json"
    normcli.fit(name, second, layout="NCHW", part="2/2")
    refused([first, second], "1 of the 2 parts of x.npy missing")


def test_parts_that_were_cut_otherwise_are_refused(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    parts = [normcli.fit(name, layout="NCHW", part=f"{i}/2") for i in (1, 2)]
    source = parts[1].statistics.source
    part = source.part
    assert part is not None
    for i, other in enumerate(
        (
            replace(part, first=part.first + 1),
            replace(part, stop=part.stop - 1),
            replace(part, cell=(1, 1, 1, 2)),
            Part(2, 2, part.cell, part.first, part.stop + 5),
        )
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        parts[0].save(folder / "1.json")
        changed = replace(parts[1].statistics, source=replace(source, part=other))
        normcli.FittedStatistics(changed).save(folder / "2.json")
        with pytest.raises(InputError, match=r"cut otherwise|cells") as caught:
            normcli.merge([folder / "1.json", folder / "2.json"])
        assert "one version" in caught.value.hint


def test_the_same_input_is_not_counted_twice(tmp_path):
    name, other = store(tmp_path, "x", X, "npy"), store(tmp_path, "z", X, "npy")
    for key, inputs in (("a", name), ("b", [other, name]), ("c", other)):
        normcli.fit(inputs, tmp_path / f"{key}.json", layout="NCHW")
    refused([tmp_path / "a.json", tmp_path / "b.json"], "x.npy", "counted twice", "a.json")
    refused([tmp_path / "a.json", tmp_path / "a.json"], "counted twice")
    parts = fit_parts(tmp_path, name, 2, layout="NCHW")
    refused([tmp_path / "a.json", *parts], "counted twice")
    # A copy by another name may be meant; it is told.
    told: list[str] = []

    class Listening(Observer):
        def warn(self, message: str, hint: str | None = None) -> None:
            told.append(message)

    merged = normcli.merge([tmp_path / "a.json", tmp_path / "c.json"], observer=Listening())
    assert len(told) == 1
    assert re.search(r"x\.npy and .*z\.npy have the same size", told[0])
    assert merged.count.sum() == 2 * (X.size - 4)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "instance"}, "mode"),
        ({"layout": "NHWC"}, "layout"),
        ({"method": "center"}, "method"),
        ({"ddof": 1}, "ddof 0"),
        ({"epsilon": 0.5}, "epsilon 1e-05"),
        ({"nonfinite": "propagate"}, "nonfinite omit"),
        ({"convention": "keras"}, "epsilon"),
        ({"aggregate": "NH", "mode": "custom"}, "mode batch"),
        ({"scale_axes": "HW"}, "scale_axes"),
    ],
)
def test_different_settings_are_named(tmp_path, options, field):
    names = [store(tmp_path, f"x{i}", X, "npy") for i in range(2)]
    normcli.fit(names[0], tmp_path / "0.json", layout="NCHW")
    normcli.fit(names[1], tmp_path / "1.json", **{"layout": "NCHW", **options})
    refused([tmp_path / "0.json", tmp_path / "1.json"], field, "0.json", "1.json")


def test_different_data_are_refused(tmp_path):
    normcli.fit(store(tmp_path, "a", X, "npy"), tmp_path / "a.json", layout="NCHW")
    normcli.fit(store(tmp_path, "b", X[:, :3], "npy"), tmp_path / "b.json", layout="NCHW")
    normcli.fit(store(tmp_path, "c", X.astype("f8"), "npy"), tmp_path / "c.json", layout="NCHW")
    refused([tmp_path / "a.json", tmp_path / "b.json"], "(6, 10, 14)", "(3, 10, 14)")
    refused([tmp_path / "a.json", tmp_path / "c.json"], "float32", "float64")


def test_what_cannot_be_merged(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    moving = {"layout": "NCHW", "momentum": 0.9, "batch_size": 4}
    normcli.fit(name, tmp_path / "moving.json", **moving)
    refused([tmp_path / "moving.json"], "moving.json holds moving statistics")
    with pytest.raises(UsageError, match="cannot be merged"):
        normcli.fit(name, part="1/2", **moving)
    with pytest.raises(UsageError, match="once for each part"):
        normcli.fit(name, part="1/2", update=tmp_path / "moving.json", layout="NCHW")
    for key in "ab":
        data = store(tmp_path, key, X[0, 0] + ord(key), "npy")
        normcli.fit(data, tmp_path / f"{key}.json", layout="HW", mode="batch")
    refused([tmp_path / "a.json", tmp_path / "b.json"], "no N")
    with pytest.raises(UsageError, match="no statistics"):
        normcli.merge([])


def test_scale_and_bias_stay_where_they_agree(tmp_path):
    for key in "ab":
        name = store(tmp_path, key, X + ord(key), "npy")
        np.savez(tmp_path / "affine.npz", scale=np.full(6, 2.0), bias=np.zeros(6))
        normcli.apply(
            name, tmp_path / f"{key}-y.npy", affine=tmp_path / "affine.npz", layout="NCHW"
        )
    sidecars = [tmp_path / f"{key}-y.npy.stats.json" for key in "ab"]
    merged = normcli.merge(sidecars)
    np.testing.assert_array_equal(merged.statistics.affine.scale, np.full(6, 2.0))
    normcli.fit(store(tmp_path, "c", X, "npy"), tmp_path / "c.json", layout="NCHW")
    with pytest.raises(InputError, match="different scale"):
        normcli.merge([*sidecars, tmp_path / "c.json"])


def test_a_part_is_of_no_use_before_it_is_merged(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    for suffix in (".json", ".npz", ".h5", ".zarr", ".safetensors"):
        path = fit_parts(tmp_path, name, 2, suffix, layout="NCHW")[0]
        with pytest.raises(InputError, match="part 1 of 2") as caught:
            normcli.apply(name, tmp_path / "y.npy", stats=path)
        assert "normcli merge" in caught.value.hint
    part = normcli.read_statistics(path)
    for use in (
        lambda: normcli.apply(name, tmp_path / "y.npy", stats=part),
        lambda: part.normalize(X),
        lambda: normcli.fit(name, update=path, layout="NCHW"),
        lambda: normcli.fit(
            name, layout="NCHW", momentum=0.9, batch_size=4, moving_start=str(path)
        ),
    ):
        with pytest.raises(InputError, match="part 1 of 2"):
            use()
    assert not (tmp_path / "y.npy").exists()


def test_policies_are_those_of_the_whole(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    options = {"layout": "NCHW", "nonfinite": "error"}
    normcli.fit(name, part="2/3", **options)
    with pytest.raises(DataPolicyError, match="4 NaN"):
        normcli.fit(name, part="1/3", **options)
    # One element of a group in one part is no group of one element.
    np.save(tmp_path / "n.npy", np.arange(4.0))
    paths = fit_parts(tmp_path, str(tmp_path / "n.npy"), 4, layout="N", ddof=1)
    assert float(normcli.merge(paths).variance) == np.arange(4.0).var(ddof=1)
    # Squares that leave float64 only together, and are kept in other units then.
    np.save(tmp_path / "big.npy", np.array([0.0, 1e200]))
    paths = fit_parts(tmp_path, str(tmp_path / "big.npy"), 2, layout="N")
    assert float(normcli.merge(paths).std) == 5e199


def test_the_output_of_a_merge(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    paths = fit_parts(tmp_path, name, 2, layout="NCHW")
    normcli.merge(paths, tmp_path / "s.json")
    with pytest.raises(UsageError, match="exists"):
        normcli.merge(paths, tmp_path / "s.json")
    normcli.merge(paths, tmp_path / "s.json", overwrite=True)
    with pytest.raises(UsageError, match=r"exists|input and the output"):
        normcli.merge(paths, paths[0])
    with pytest.raises(UsageError, match="suffix"):
        normcli.merge(paths, tmp_path / "s.txt")
    assert not list(tmp_path.glob(".*"))


class _Warned(Observer):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str, hint: str | None = None) -> None:
        self.texts.append(text)


def test_units_must_agree(tmp_path):
    """Kelvin and degrees are never counted together: not by merge, an update, or a joint fit."""
    values = np.random.default_rng(3).normal(280, 3, (4, 3))
    names = {}
    for name, units in (("a", "K"), ("b", "K"), ("c", "degC"), ("d", None)):
        names[name] = str(tmp_path / f"{name}.zarr")
        array = zarr.create_array(names[name], data=values + len(names))
        if units:
            array.attrs["units"] = units
        normcli.fit(names[name], tmp_path / f"{name}.json", layout="NC")

    def sidecars(*letters: str) -> list[Path]:
        return [tmp_path / f"{letter}.json" for letter in letters]

    assert normcli.merge(sidecars("a", "b")).statistics.source.units == "K"
    told = _Warned()
    merged = normcli.merge(sidecars("d", "a"), observer=told)
    assert merged.statistics.source.units == "K"
    assert any("names no units" in text for text in told.texts)
    for attempt in (
        lambda: normcli.merge(sidecars("d", "b", "c"), tmp_path / "no.json"),
        lambda: normcli.fit(names["a"], tmp_path / "no.json", update=sidecars("c")[0]),
        lambda: normcli.fit([names["a"], names["c"]], tmp_path / "no.json", layout="NC"),
    ):
        with pytest.raises(InputError, match=r"K.*degC|degC.*K"):
            attempt()
        assert not (tmp_path / "no.json").exists()
    assert normcli.fit(names["d"], update=sidecars("a")[0]).statistics.source.units == "K"


def test_what_a_fit_counts_twice_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.arange(12.0).reshape(4, 3))
    np.save("b.npy", np.arange(12.0).reshape(4, 3) + 1)
    plain = call("fit", "a.npy", "b.npy", "-o", "ab.json")
    assert "more than once" not in plain.err
    for words in (["a.npy", "a.npy"], ["a.npy", "--update", "ab.json"]):
        ended = call("fit", *words, "-o", "twice.json", "--overwrite")
        assert ended.code == 0
        told = " ".join(ended.err.split())
        assert f"warning: {tmp_path / 'a.npy'} is counted more than once." in told
    assert call("extract", "twice.json", "count").text.split() == ["12"] * 3
