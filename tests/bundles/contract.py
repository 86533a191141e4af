"""What every format of bundles promises; each format inherits this class."""

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import read_bundle, write_bundle
from normcli.domain.dtypes import bfloat16
from normcli.errors import InputError, OutputError, UsageError
from tests.examples import examples

TYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
TYPES += ["float16", "float32", "float64", "bfloat16"]
EXTREMES = [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, -2.2e-308, 1.7976931348623157e308]
EXTREMES += [0.1, 1 / 3, 1.0, -1e-200]


def dtype_of(name):
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def same_bits(one, other):
    one, other = np.asarray(one), np.asarray(other)
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


class BundleContract:
    """A format: `suffix`, whether it has `attributes` and `several` named arrays."""

    suffix: str
    attributes = True
    several = True

    @pytest.fixture
    def path(self, tmp_path):
        return str(tmp_path / f"file{self.suffix}")

    def name(self, name):
        return name if self.several else ""

    def round_trip(self, path, arrays, attrs=None):
        write_bundle(path, Bundle(arrays, attrs or {}), overwrite=True)
        return read_bundle(path)

    @pytest.mark.parametrize("dtype", TYPES)
    def test_every_type_keeps_its_bits(self, path, dtype):
        values = np.arange(24).reshape(2, 3, 4).astype(dtype_of(dtype))
        back = self.round_trip(path, {"a": values})
        assert same_bits(back.arrays[self.name("a")], values)

    def test_extreme_floats_keep_their_bits(self, path):
        values = np.array(EXTREMES)
        assert same_bits(self.round_trip(path, {"a": values}).arrays[self.name("a")], values)

    def test_extreme_integers_keep_their_bits(self, path):
        values = np.array([-(2**63), 2**63 - 1, 2**53 + 1, 0, -1])
        assert same_bits(self.round_trip(path, {"a": values}).arrays[self.name("a")], values)

    @pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (2, 0, 1), (1, 1, 5)])
    @pytest.mark.parametrize("dtype", ["float64", "int64", "bfloat16"])
    def test_every_shape_is_kept(self, path, shape, dtype):
        values = np.ones(shape, dtype_of(dtype))
        assert same_bits(self.round_trip(path, {"a": values}).arrays[self.name("a")], values)

    def test_an_array_without_axes_holds_nan(self, path):
        values = np.array(np.nan)
        assert same_bits(self.round_trip(path, {"a": values}).arrays[self.name("a")], values)

    def test_order_and_byte_order_in_memory_do_not_matter(self, path):
        values = np.arange(12.0).reshape(3, 4)
        for odd in (np.asfortranarray(values), values.astype(">f8"), np.tile(values, 2)[:, ::2]):
            back = self.round_trip(path, {"a": odd}).arrays[self.name("a")]
            assert same_bits(back, np.ascontiguousarray(odd, dtype="<f8"))

    def test_what_was_read_can_be_changed(self, path):
        back = self.round_trip(path, {"a": np.zeros(3)}).arrays[self.name("a")]
        back[0] = 1

    @settings(
        max_examples=examples(25),
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        values=hnp.arrays(
            st.sampled_from(["f2", "f4", "f8", "i8", "u8", "i1"]), hnp.array_shapes(min_side=0)
        )
    )
    def test_any_array_comes_back(self, path, values):
        back = self.round_trip(path, {"a": values}).arrays[self.name("a")]
        assert back.dtype == values.dtype
        assert np.array_equal(back, values, equal_nan=values.dtype.kind == "f")
        assert np.array_equal(np.signbit(back * 1.0), np.signbit(values * 1.0)) or np.any(
            values != values
        )

    def test_attributes_and_names_come_back(self, path):
        if not self.several:
            pytest.skip("a nameless array")
        attrs = {"text": "Grüße, 世界\u0000\n\x1b[31m", "ünïcode": [1, 2.5, None, True, {"a": []}]}
        attrs["long"] = "x" * 100_000
        arrays = {"mean": np.zeros(3), "layers.3.norm.weight": np.ones(2), "größe": np.arange(4)}
        back = self.round_trip(path, arrays, attrs)
        assert back.attrs == attrs
        assert set(back.arrays) == set(arrays)
        assert all(same_bits(back.arrays[name], arrays[name]) for name in arrays)

    def test_no_attributes_are_no_attributes(self, path):
        assert self.round_trip(path, {"a": np.zeros(3)}).attrs == {}

    def test_the_same_bundle_is_written_twice_alike(self, path, tmp_path):
        other = str(tmp_path / f"other{self.suffix}")
        for name in (path, other):
            write_bundle(name, Bundle({"a": np.arange(5.0)}))
        assert list(contents(path).values()) == list(contents(other).values())

    def test_an_existing_file_is_refused_and_kept(self, path):
        write_bundle(path, Bundle({"a": np.zeros(3)}))
        with pytest.raises(UsageError, match="exists"):
            write_bundle(path, Bundle({"a": np.ones(3)}))
        assert read_bundle(path).arrays[self.name("a")].sum() == 0
        write_bundle(path, Bundle({"a": np.ones(3)}), overwrite=True)
        assert read_bundle(path).arrays[self.name("a")].sum() == 3

    @pytest.mark.parametrize("bad", [np.array(["text"]), np.array([None]), np.array([1j])])
    def test_nothing_is_left_when_writing_fails(self, path, tmp_path, bad):
        with pytest.raises(UsageError):
            write_bundle(path, Bundle({"bad": bad}))
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_left_when_storage_fails(self, path, tmp_path):
        noise = np.random.default_rng(0).integers(0, 2**62, 100_000)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
        try:
            with pytest.raises(OutputError, match="too large"):
                write_bundle(path, Bundle({"a": noise}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_file_survives_a_failed_overwrite(self, path, tmp_path):
        write_bundle(path, Bundle({"a": np.zeros(3)}))
        before = contents(path)
        with pytest.raises(UsageError):
            write_bundle(path, Bundle({"a": np.array([1j])}), overwrite=True)
        assert contents(path) == before
        assert len(list(tmp_path.iterdir())) == 1

    def test_attributes_that_json_lacks_are_refused(self, path, tmp_path):
        for value in (float("nan"), {1, 2}, b"bytes"):
            with pytest.raises(UsageError):
                write_bundle(path, Bundle({"a": np.zeros(2)}, {"bad": value}))
        assert list(tmp_path.iterdir()) == []

    def test_numpy_scalars_are_good_attributes(self, path):
        if not self.attributes:
            pytest.skip("no attributes")
        attrs = {"n": np.int64(3), "x": np.float32(0.5)}
        assert self.round_trip(path, {"a": np.zeros(1)}, attrs).attrs == {"n": 3, "x": 0.5}

    def test_only_chosen_arrays_are_read(self, path):
        if not self.several:
            pytest.skip("one array")
        write_bundle(path, Bundle({"l.a": np.zeros(1), "l.b": np.ones(1), "c": np.ones(2)}))
        assert set(read_bundle(path, lambda names: names[:1]).arrays) < {"l.a", "l.b", "c"}
        assert set(read_bundle(path + "#l").arrays) == {"a", "b"}
        assert set(read_bundle(path + "#l.b").arrays) == {"b"}
        assert set(read_bundle(path + "#c").arrays) == {"c"}
        with pytest.raises(InputError, match="nothing under 'm'") as caught:
            read_bundle(path + "#m")
        assert "'l'" in caught.value.hint

    def test_a_missing_file(self, path):
        with pytest.raises(InputError, match="does not exist"):
            read_bundle(path)

    @pytest.mark.parametrize(
        ("start", "hint"),
        [
            (b"", "empty"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"\x00" * 100, None),
            (b"1,2,3\n", None),
        ],
    )
    def test_a_file_of_another_kind(self, path, start, hint):
        with open(path, "wb") as file:
            file.write(start)
        with pytest.raises(InputError, match="file") as caught:
            read_bundle(path)
        assert hint is None or hint in caught.value.hint

    def test_a_cut_file_is_never_read_wrong(self, path, tmp_path):
        values = np.arange(1000.0)
        write_bundle(path, Bundle({"a": values}))
        for file, whole in contents(path).items():
            for size in {0, 1, 7, 9, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
                (tmp_path / file).write_bytes(whole[:size])
                try:
                    back = read_bundle(path).arrays
                except InputError:
                    continue
                assert same_bits(back[self.name("a")], values)
            (tmp_path / file).write_bytes(whole)


def contents(path):
    """Return the bytes of a file, or of every file in a folder, by their names beside `path`."""
    root = Path(path)
    files = [root] if root.is_file() else [f for f in sorted(root.rglob("*")) if f.is_file()]
    return {str(file.relative_to(root.parent)): file.read_bytes() for file in files}
