"""Names of axes, from attributes of whatever type a stranger gave them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from normcli.arrays.hdf5_dims import dimension_names


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as opened:
        yield opened


def test_labels_go_before_scales(file):
    x = file.create_dataset("x", data=np.zeros((2, 3, 4)))
    assert dimension_names(x) is None
    x.dims[0].label = "time"
    assert dimension_names(x) == ("time", "", "")
    lat = file.create_dataset("where/lat", data=np.arange(3))
    lat.make_scale("latitude")
    x.dims[1].attach_scale(lat)
    x.dims[0].attach_scale(file.create_dataset("seconds", data=np.arange(2)))
    assert dimension_names(x) == ("time", "lat", "")
    assert dimension_names(lat) == ("lat",)
    y = file.create_dataset("y", data=np.zeros(3))
    y.dims[0].attach_scale(lat)
    assert dimension_names(y) == ("lat",)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(2),
        np.array([2.0**60, -1.0]),
        np.array([b"a", b"b", b"c"]),
        np.array([[b"a", b"b"]]),
        "one string",
        7,
        np.zeros(2, [("a", "f8"), ("b", "i8")]),
        h5py.Empty("S8"),
    ],
    ids=lambda value: str(getattr(value, "dtype", type(value).__name__)),
)
@pytest.mark.parametrize("name", ["DIMENSION_LABELS", "DIMENSION_LIST", "CLASS"])
def test_attributes_of_another_type_or_shape_name_nothing(file, name, value):
    x = file.create_dataset("x", data=np.zeros((2, 2)))
    x.attrs[name] = value
    assert dimension_names(x) is None
    one = file.create_dataset("one", data=np.zeros(2))
    one.attrs[name] = value
    if not (name == "DIMENSION_LABELS" and np.shape(value) == (1,)):
        assert dimension_names(one) is None


def test_labels_of_fixed_length_are_read(file):
    x = file.create_dataset("x", data=np.zeros((2, 2)))
    x.attrs["DIMENSION_LABELS"] = np.array([b"lat", b"lon"])
    assert dimension_names(x) == ("lat", "lon")


def test_a_scale_that_is_gone_names_nothing(file):
    x = file.create_dataset("x", data=np.zeros((2, 2)))
    scale = file.create_dataset("scale", data=np.arange(2))
    scale.make_scale("scale")
    x.dims[0].attach_scale(scale)
    del scale, file["scale"]
    assert dimension_names(x) in (None, ("", ""))
