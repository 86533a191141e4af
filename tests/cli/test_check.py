"""check: whether statistics fit an array, told in lines and by the exit code."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import zarr

import normcli
from normcli.api import sampling
from normcli.arrays.opening import open_source
from normcli.domain.geometry import bind
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.errors import InputError, UsageError
from tests.cli.terminal import assert_told, call


def fit(*arguments: object) -> None:
    ended = call("fit", *arguments, "-o", "stats.json", "-q", "--overwrite")
    assert ended.code == 0, ended.err


def check(name: str, code: int = 0, *options: str, stats: str = "stats.json") -> dict:
    ended = call("check", stats, name, "--json", *options)
    assert ended.code == code, ended.err
    found = json.loads(ended.text)
    assert found["fits"] == (code == 0)
    return found


def told(found: dict, about: str, verdict: str) -> str:
    texts = [f["text"] for f in found["findings"] if (f["about"], f["verdict"]) == (about, verdict)]
    assert len(texts) == 1, found["findings"]
    return texts[0]


def verdicts(found: dict) -> set[str]:
    return {f["verdict"] for f in found["findings"]}


@pytest.fixture
def images(folder):
    values = np.random.default_rng(7).integers(0, 256, (50, 3, 8, 8)).astype(np.uint8)
    np.save("images.npy", values)
    fit("images.npy", "--layout", "NCHW")
    return values


class TestFitting:
    def test_its_own_data(self, images):
        found = check("images.npy")
        assert verdicts(found) == {"fits"}
        assert found["same_data"]
        assert found["looked_at"] == found["elements"] == images.size
        assert told(found, "channels", "fits") == "axis 1 (C): 3, as in the fit"

    def test_other_data_of_the_kind_and_another_size(self, images):
        np.save("more.npy", images[:20, :, :5, ::-1])
        found = check("more.npy")
        assert verdicts(found) == {"fits"}
        assert not found["same_data"]

    def test_for_people(self, images):
        ended = call("check", "stats.json", "images.npy")
        assert ended.code == 0
        assert ended.out == b""
        assert ended.err.splitlines()[0] == (
            "normcli: stats.json fits images.npy (what they were fitted on)"
        )
        assert call("check", "stats.json", "images.npy", "-q").err == ""

    @pytest.mark.parametrize(
        ("mode", "options"),
        [("instance", ()), ("layer", ()), ("group", ("--groups", "2"))],
    )
    def test_statistics_of_each_observation(self, folder, mode, options):
        values = np.random.default_rng(3).normal(5, 2, (6, 4, 5, 7))
        np.save("v.npy", values)
        call("apply", "v.npy", "-o", "y.npy", "--layout", "NCHW", "--mode", mode, *options, "-q")
        assert verdicts(check("v.npy", stats="y.npy.stats.json")) == {"fits"}
        np.save("less.npy", values[:5])
        found = check("less.npy", 7, stats="y.npy.stats.json")
        assert "the input has 5, but the statistics are of 6" in str(found["findings"])


class TestOneObservation:
    """What apply takes with ``--layout CHW`` is checked with it too."""

    @pytest.mark.parametrize("order", ["NCHW", "CHNW", "HWCN"])
    def test_it_fits_as_apply_takes_it(self, images, order):
        turned = images.transpose(["NCHW".index(letter) for letter in order])
        np.save("images.npy", turned)
        fit("images.npy", "--layout", order)
        one = order.replace("N", "")
        np.save("one.npy", np.take(turned, 4, axis=order.index("N")))
        assert call("apply", "one.npy", "-o", "y.npy", "--stats", "stats.json", "--layout", one,
                    "-q").code == 0  # fmt: skip
        found = check("one.npy", 0, "--layout", one)
        assert verdicts(found) == {"fits"}
        assert told(found, "axes", "fits").endswith("one observation")
        axis = one.index("C")
        assert told(found, "channels", "fits") == f"axis {axis} (C): 3, as in the fit"
        assert found["looked_at"] == 3 * 8 * 8
        assert normcli.check("stats.json", "one.npy", layout=one).fits

    def test_its_values_and_extents_are_compared(self, images):
        np.save("one.npy", images[0].astype("f4") * 4)
        highest = int(images[0, 0].max()) * 4
        text = told(check("one.npy", 7, "--layout", "CHW"), "range", "misfit")
        assert f"to {highest} here, 0 to 255 in the fit" in text
        np.save("one.npy", np.zeros((4, 8, 8), np.uint8))
        assert "the input has 4" in told(
            check("one.npy", 7, "--layout", "CHW"), "channels", "misfit"
        )

    def test_it_has_to_be_said(self, images):
        np.save("one.npy", images[0])
        assert told(check("one.npy", 7), "axes", "misfit").endswith(
            "one observation without its batch axis is --layout CHW"
        )
        for layout in ("HWC", "NHW"):
            text = told(check("one.npy", 7, "--layout", layout), "axes", "misfit")
            assert text == f"the input has layout {layout}, but the fit was of NCHW"
        assert "NHWC" in told(check("images.npy", 7, "--layout", "NHWC"), "axes", "misfit")
        assert verdicts(check("images.npy", 0, "--layout", "NCHW")) == {"fits"}
        assert_told(call("check", "stats.json", "one.npy", "--layout", "CW"), 2, "names 2 axes")

    def test_dimension_names(self, folder):
        values = np.random.default_rng(2).normal(280, 5, (9, 4, 50))
        zarr.create_array("a.zarr", data=values, dimension_names=("sample", "channel", "time"))
        fit("a.zarr")
        zarr.create_array("one.zarr", data=values[3], dimension_names=("channel", "time"))
        found = check("one.zarr", 0, "--layout", "CT")
        assert told(found, "dimensions", "fits") == "channel, time"
        zarr.create_array("odd.zarr", data=values[3], dimension_names=("channel", "lat"))
        found = check("odd.zarr", 7, "--layout", "CT")
        assert told(found, "dimensions", "misfit") == (
            "axis 1 is lat in the input, but was time in the fit"
        )

    def test_vectors(self, folder):
        values = np.random.default_rng(2).normal(5, 2, (40, 6))
        np.save("v.npy", values)
        zarr.create_array("v.zarr", data=values, dimension_names=("sample", "channel"))
        np.save("one.npy", values[7])
        for name, layout in (("v.npy", ["--layout", "NC"]), ("v.zarr", [])):
            fit(name, *layout)
            assert verdicts(check("one.npy", 0, "--layout", "C")) == {"fits"}

    def test_scale_and_bias_along_other_axes(self, images):
        np.save("scale.npy", np.ones(8))
        call("apply", "images.npy", "-o", "y.npy", "--layout", "NCHW", "--mode", "custom",
             "--aggregate", "NHW", "--scale-axes", "W", "--scale", "scale.npy", "-q")  # fmt: skip
        np.save("one.npy", images[0, :, :, :5])
        found = check("one.npy", 7, "--layout", "CHW", stats="y.npy.stats.json")
        assert told(found, "scale and bias", "misfit") == (
            "The scale has shape (8,), but the scale axes W have (5,)"
        )

    def test_statistics_of_each_observation_have_no_other(self, images):
        call("apply", "images.npy", "-o", "y.npy", "--mode", "instance", "--layout", "NCHW", "-q")
        np.save("one.npy", images[0])
        found = check("one.npy", 7, "--layout", "CHW", stats="y.npy.stats.json")
        assert "layout CHW" in told(found, "axes", "misfit")


class TestMisfits:
    def test_channels(self, images):
        np.save("rgba.npy", np.zeros((2, 4, 3, 3), np.uint8))
        found = check("rgba.npy", 7)
        assert told(found, "channels", "misfit") == (
            "axis 1 (C): the input has 4, but the statistics are of 3"
        )
        ended = call("check", "stats.json", "rgba.npy")
        assert_told(ended, 7, "axis 1 (C): the input has 4, but the statistics are of 3")

    def test_rank(self, images):
        text = told(check_of(np.zeros((3, 3)), 7), "axes", "misfit")
        assert "2 axes (shape (3, 3))" in text
        assert "layout NCHW of the fit has 4" in text

    def test_empty(self, images):
        assert "no elements" in told(check_of(np.zeros((0, 3, 2, 2)), 7), "axes", "misfit")

    def test_scaled_up_and_down(self, images):
        text = told(check_of(images * np.float32(4), 7), "range", "misfit")
        wide = images.astype("f8") * 4
        low, high = (f(images, axis=(0, 2, 3), keepdims=True) for f in (np.min, np.max))
        reach = (high - low.astype("f8")) / 2
        assert text.startswith(f"{int((wide > high + reach).sum())} elements of 3 groups (C=0; ")
        assert "to 1020 here, 0 to 255 in the fit" in text
        found = check_of((images / 255).astype("f4"), 7)
        assert "other units" in told(found, "spread", "misfit")
        assert "float32, but the fit was of uint8" in told(found, "dtype", "note")

    def test_a_few_elements_outside_are_a_note(self, images):
        values = images.astype("f4")
        values[0, 1, 2, 3] = 300
        text = told(check_of(values), "range", "note")
        assert text.startswith("1 elements lie outside")
        assert "C=1: " in text
        assert "to 300 here, 0 to 255 in the fit" in text

    def test_a_constant_group_that_varies(self, folder):
        values = np.random.default_rng(1).normal(size=(100, 3))
        values[:, 1] = 4
        np.save("flat.npy", values)
        fit("flat.npy", "--layout", "NC")
        values[7, 1] = 5
        assert "1 groups (C=1) hold one value" in told(check_of(values, 7), "range", "misfit")

    def test_a_group_without_a_mean(self, folder):
        values = np.random.default_rng(1).normal(size=(100, 3))
        values[:, 2] = np.nan
        np.save("empty.npy", values)
        fit("empty.npy", "--layout", "NC")
        values[:, 2] = 0
        assert "1 groups (C=2)" in told(check_of(values, 7), "non-finite", "misfit")

    def test_nonfinite(self, images):
        values = images.astype("f4")
        values[0, 0, 0, :2] = np.nan, np.inf
        assert told(check_of(values), "non-finite", "note").startswith("2 values")
        fit("images.npy", "--layout", "NCHW", "--nonfinite", "error")
        assert told(check_of(values, 7), "non-finite", "misfit").startswith("2 values")

    def test_epsilon_as_apply_sees_it(self, folder):
        values = np.random.default_rng(1).normal(size=(100, 3)) * [1, 1e-3, 1]
        np.save("small.npy", values)
        fit("small.npy", "--layout", "NC")
        text = told(check("small.npy", 7), "epsilon", "misfit")
        assert text.startswith("1e-05 exceeds 1 % of the variance of 1 of 3 groups")
        assert call("apply", "small.npy", "-o", "y.npy", "--stats", "stats.json", "-q").code == 7
        fit("small.npy", "--layout", "NC", "--epsilon", "1e-5")
        told(check("small.npy"), "epsilon", "note")


class TestNamesAndUnits:
    def dataset(self, name, units=None, dims=("sample", "channel", "time"), shape=(9, 4, 50)):
        values = np.random.default_rng(2).normal(280, 5, shape).astype("f4")
        made = zarr.create_array(name, data=values, chunks=(2, 4, 50), dimension_names=dims)
        if units:
            made.attrs["units"] = units

    def test_units(self, folder):
        self.dataset("a.zarr", "K")
        fit("a.zarr")
        assert json.loads((folder / "stats.json").read_text())["source"]["units"] == "K"
        assert told(check("a.zarr"), "units", "fits") == "K, as in the fit"
        self.dataset("b.zarr", "degC")
        assert told(check("b.zarr", 7), "units", "misfit") == (
            "degC in the input, but the fit was of K"
        )
        self.dataset("c.zarr")
        told(check("c.zarr"), "units", "note")

    def test_units_of_hdf5(self, folder):
        with h5py.File("a.h5", "w") as file:
            made = file.create_dataset("x", data=np.random.default_rng(4).normal(size=(30, 2)))
            made.attrs["units"] = np.bytes_(b"m s-1")
        fit("a.h5/x", "--layout", "NC")
        assert told(check("a.h5/x"), "units", "fits") == "m s-1, as in the fit"

    def test_dimension_names(self, folder):
        self.dataset("a.zarr")
        fit("a.zarr")
        assert told(check("a.zarr"), "dimensions", "fits") == "sample, channel, time"
        self.dataset("turned.zarr", dims=("sample", "time", "channel"))
        assert "another order" in told(check("turned.zarr", 7), "dimensions", "misfit")
        self.dataset("alike.zarr", dims=("sample", "band", "time"))
        told(check("alike.zarr"), "dimensions", "note")
        self.dataset("other.zarr", dims=("sample", "lat", "time"))
        assert told(check("other.zarr", 7), "dimensions", "misfit") == (
            "axis 1 is lat in the input, but was channel in the fit"
        )


class TestRefusals:
    def test_what_is_not_there(self, images):
        assert_told(call("check", "stats.json", "none.npy"), 3, "none.npy")
        assert_told(call("check", "none.json", "images.npy"), 3, "none.json", hint=False)
        assert_told(call("check", "stats.json", "-"), 2, "pipe")

    def test_no_moving_statistics(self, images):
        ended = call("check", "stats.json", "images.npy", "--estimate", "moving")
        assert_told(ended, 3, "no moving mean")

    def test_nothing_is_written(self, images, folder):
        before = sorted(p.name for p in folder.iterdir())
        check("images.npy")
        assert sorted(p.name for p in folder.iterdir()) == before


class TestSample:
    def test_a_large_array_is_looked_at_in_bounded_pieces(self, folder):
        shape = (40_000, 3, 16, 16)
        values = np.lib.format.open_memmap("big.npy", "w+", np.float32, shape)
        values[0, 0, 0, 0] = 1  # the rest are holes
        values.flush()
        grid = sampling.sample_grid(open_source("big.npy").info)
        numbers = sampling.sample_numbers(grid, sampling.BLOCKS)
        assert numbers == sampling.sample_numbers(grid, sampling.BLOCKS)
        assert len(numbers) == sampling.BLOCKS
        assert numbers == sorted(set(numbers))
        assert numbers[-1] - numbers[0] > 0.8 * len(grid)
        assert all(grid.block(n).size * 4 <= sampling.BLOCK_BYTES for n in numbers)
        geometry = bind(make_spec(Layout("NCHW"), np.dtype("f4")), shape)
        looked = sum(f.block.size for f in sampling.sampled(open_source("big.npy"), geometry))
        assert looked == sum(grid.block(n).size for n in numbers) < np.prod(shape) / 5

    def test_slow_storage_ends_it_early(self, images, monkeypatch):
        monkeypatch.setattr(sampling, "BLOCK_BYTES", 1000)
        monkeypatch.setattr(sampling, "SECONDS", -1)
        assert "slow storage" in told(check("images.npy"), "sample", "note")

    @pytest.mark.parametrize(
        ("mode", "options", "axes"),
        [
            ("batch", {}, (0, 2)),
            ("instance", {}, (2,)),
            ("layer", {"aggregate": "1,2"}, (1, 2)),
            ("group", {"groups": 3}, None),
            ("custom", {"aggregate": "all"}, (0, 1, 2)),
        ],
    )
    def test_counts_of_elements_outside(self, folder, monkeypatch, mode, options, axes):
        values = np.random.default_rng(6).normal(size=(11, 6, 7))
        values[3, 2, :4] = np.nan, np.inf, -np.inf, 9
        np.save("v.npy", values)
        monkeypatch.setattr(sampling, "BLOCK_BYTES", 300)
        monkeypatch.setattr(sampling, "BLOCKS", 1000)
        spec = make_spec(Layout("NCS"), values.dtype, mode=mode, **options)
        geometry = bind(spec, values.shape)
        counts = np.zeros(geometry.statistics_shape, np.int64)
        random = np.random.default_rng(8)
        low, high = random.uniform(-2, 0, counts.shape), random.uniform(0, 2, counts.shape)
        blocks = 0
        for found in sampling.sampled(open_source("v.npy"), geometry):
            i = found.index
            counts[i] += sampling.count_outside(found, geometry, low[i], high[i])
            blocks += 1
        assert blocks > 5
        if mode == "group":
            grouped, axes = values.reshape(11, 3, 2, 7), (2, 3)
        else:
            grouped = values
        a, b = (np.expand_dims(bound, axes) for bound in (low, high))
        outside = ((grouped < a) | (grouped > b)) & np.isfinite(grouped)
        np.testing.assert_array_equal(counts, outside.sum(axis=axes))


def check_of(values: np.ndarray, code: int = 0) -> dict:
    """Check another array against ``stats.json``."""
    np.save("other.npy", values)
    return check("other.npy", code)


def test_statistics_that_stay_in_their_file(folder, monkeypatch):
    values = np.random.default_rng(9).normal(size=(30, 4, 20))
    np.save("v.npy", values)
    call("apply", "v.npy", "-o", "y.npy", "--layout", "NCS", "--mode", "instance",
         "--stats-out", "s.zarr", "-q")  # fmt: skip
    monkeypatch.setattr("normcli.api.parameters.GROUPS_IN_MEMORY", 10)
    assert verdicts(check("v.npy", stats="s.zarr")) == {"fits"}
    values[2, 3] += 100
    np.save("w.npy", values)
    text = told(check("w.npy", 7, stats="s.zarr"), "range", "misfit")
    assert text.startswith("20 elements of 1 groups (N=2, C=3)")


def test_supplied_statistics_have_no_extremes(folder, images):
    np.save("mean.npy", np.full(3, 127.0))
    np.save("var.npy", np.full(3, 5400.0))
    call("apply", "images.npy", "-o", "y.npy", "--layout", "NCHW", "--mean", "mean.npy",
         "--variance", "var.npy", "-q")  # fmt: skip
    assert "no extremes" in told(check("images.npy", stats="y.npy.stats.json"), "range", "fits")
    np.save("far.npy", images.astype("f4") + 5000)
    found = check("far.npy", 7, stats="y.npy.stats.json")
    assert "3 groups (C=0; C=1; C=2)" in told(found, "range", "misfit")


class TestPython:
    def test_it_finds_what_the_command_finds(self, images):
        stats = normcli.read_statistics("stats.json")
        np.save("gray.npy", images[:, :1])
        for name in ("images.npy", "gray.npy"):
            expected = check(name, 7 if name == "gray.npy" else 0)
            for given in ("stats.json", stats):
                found = normcli.check(given, name)
                assert found.fits == expected["fits"]
                told = found.as_dict()
                for key in ("findings", "same_data", "looked_at", "elements", "input"):
                    assert told[key] == expected[key], key
            assert found.misfits == tuple(f for f in found.findings if f.verdict == "misfit")

    def test_what_cannot_be_compared(self, images):
        with pytest.raises(InputError, match="no moving"):
            normcli.check("stats.json", "images.npy", estimate="moving")
        with pytest.raises(InputError, match=r"gone\.npy"):
            normcli.check("stats.json", "gone.npy")
        with pytest.raises(UsageError, match="pipe"):
            normcli.check("stats.json", "-")
