"""The two small grammars: axis expressions and layouts."""

from __future__ import annotations

import pytest

from normcli.domain.axes import parse_axes, parse_levels
from normcli.domain.layout import Layout, infer_layout, parse_layout
from normcli.errors import UsageError

NCHW = Layout("NCHW")
NAMED = Layout("TSS", ("time", "lat", "lon"))
SPACE = Layout("NSSC")


@pytest.mark.parametrize(
    ("text", "layout", "axes"),
    [
        ("0", NCHW, (0,)),
        ("-1", NCHW, (3,)),
        ("-4", NCHW, (0,)),
        ("3,1", NCHW, (1, 3)),
        (" 1 , 2 ", NCHW, (1, 2)),
        ("2:4", NCHW, (2, 3)),
        ("2:", NCHW, (2, 3)),
        (":2", NCHW, (0, 1)),
        (":", NCHW, (0, 1, 2, 3)),
        ("-2:", NCHW, (2, 3)),
        ("1:-1", NCHW, (1, 2)),
        ("0:1,3", NCHW, (0, 3)),
        ("HW", NCHW, (2, 3)),
        ("WH", NCHW, (2, 3)),
        ("S", NCHW, (2, 3)),
        ("N", NCHW, (0,)),
        ("B", NCHW, (0,)),
        ("NS", SPACE, (0, 1, 2)),
        ("S", SPACE, (1, 2)),
        ("SS", SPACE, (1, 2)),
        ("C,H", NCHW, (1, 2)),
        ("all", NCHW, (0, 1, 2, 3)),
        ("none", NCHW, ()),
        ("~C", NCHW, (0, 2, 3)),
        ("~N,C", NCHW, (2, 3)),
        ("~NC", NCHW, (2, 3)),
        ("~all", NCHW, ()),
        ("~none", NCHW, (0, 1, 2, 3)),
        ("~-1", NCHW, (0, 1, 2)),
        ("lat,lon", NAMED, (1, 2)),
        ("time", NAMED, (0,)),
        ("~time", NAMED, (1, 2)),
        ("T,lon", NAMED, (0, 2)),
        ("lat,-1", NAMED, (1, 2)),
    ],
)
def test_good_axis_expressions(text, layout, axes):
    assert parse_axes(text, layout) == axes


@pytest.mark.parametrize(
    ("text", "layout", "says"),
    [
        ("4", NCHW, "Axis 4 is out of range"),
        ("-5", NCHW, "Axis -5 is out of range"),
        ("1,1", NCHW, "twice"),
        ("3,-1", NCHW, "twice"),
        ("HW,2", NCHW, "twice"),
        ("NN", NCHW, "twice"),
        ("lat,1", NAMED, "twice"),
        ("1:3,2", NCHW, "twice"),
        ("2:2", NCHW, "names no axes"),
        ("3:1", NCHW, "names no axes"),
        ("2:5", NCHW, "names no axes"),
        ("4:", NCHW, "out of range"),
        ("D", NCHW, "names the axis D"),
        ("T", NCHW, "names the axis T"),
        ("nchw", NCHW, "names no axis"),
        ("depth", NAMED, "names no axis"),
        ("", NCHW, "names no axis"),
        ("1,,2", NCHW, "names no axis"),
        ("1.5", NCHW, "names no axis"),
        ("~", NCHW, "names no axis"),
        ("~9", NCHW, "out of range"),
        ("1;;2", NCHW, "names no axis"),
    ],
)
def test_bad_axis_expressions(text, layout, says):
    with pytest.raises(UsageError, match=says) as caught:
        parse_axes(text, layout)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "layout", "axes"),
    [
        ("1", Layout("CHW"), (0,)),
        ("1", NCHW, (1,)),
        ("2;;All", Layout("CHW"), (1, 2)),
        ("2;;All", NCHW, (2, 3)),
        ("2;;", NCHW, (2, 3)),
        (";;2", NCHW, (1, 2)),
        ("2;;3", NCHW, (2, 3)),
        ("2;;-1", NCHW, (2, 3)),
        ("-2;;-1", NCHW, (2, 3)),
        ("-1", NCHW, (3,)),
        ("{1,3}", NCHW, (1, 3)),
        ("{3, 1}", NCHW, (1, 3)),
        ("1,3", NCHW, (1, 3)),
        ("{1;;2,3}", NCHW, (1, 2, 3)),
        ("All", NCHW, (1, 2, 3)),
        ("None", NCHW, ()),
        # The batch axis is not counted wherever it stands, as in MATLAB's layouts.
        ("2;;All", Layout("SSCB"), (1, 2)),
        ("1", Layout("CNT"), (0,)),
        ("2", Layout("CNT"), (2,)),
    ],
)
def test_good_levels(text, layout, axes):
    assert parse_levels(text, layout) == axes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "out of range"),
        ("4", "out of range"),
        ("-4", "out of range"),
        ("2;;5", "out of range"),
        ("3;;2", "empty"),
        ("{1,1}", "twice"),
        ("{1;;2,2}", "twice"),
        ("{3,-1}", "twice"),
        ("HW", "no level"),
        ("1:2", "no level"),
        ("1.0", "no level"),
    ],
)
def test_bad_levels(text, says):
    with pytest.raises(UsageError, match=says):
        parse_levels(text, NCHW)


@pytest.mark.parametrize(
    ("text", "letters", "names"),
    [
        ("NCHW", "NCHW", None),
        ("nchw", "NCHW", None),
        ("SSCB", "SSCN", None),
        ("BTC", "NTC", None),
        ("UUUU", "UUUU", None),
        ("time,lat,lon,channel", "TSSC", ("time", "lat", "lon", "channel")),
        ("sample,band,y,x", "NCSS", ("sample", "band", "y", "x")),
        ("N,C,H,W", "NCHW", ("N", "C", "H", "W")),
        ("foo,lat,lon,N", "USSN", ("foo", "lat", "lon", "N")),
    ],
)
def test_good_layouts(text, letters, names):
    layout = parse_layout(text, 4 if len(letters) == 4 else 3)
    assert layout.letters == letters == str(layout)
    assert layout.names == names


def test_one_name_is_a_layout_of_one_axis():
    assert parse_layout("time", 1).letters == "T"
    assert parse_layout("T", 1).letters == "T"


@pytest.mark.parametrize(
    ("text", "ndim", "says"),
    [
        ("NCHW", 3, "names 4 axes, but the array has 3"),
        ("NC", 3, "names 2 axes"),
        ("NCXY", 4, "unknown letter 'X'"),
        ("NCCH", 4, "C more than once"),
        ("NBHW", 4, "N more than once"),
        ("NHHC", 4, "H more than once"),
        ("time,lat", 3, "names 2 axes"),
        ("sample,batch,x", 3, "N more than once"),
        ("N1", 2, "unknown letter"),
    ],
)
def test_bad_layouts(text, ndim, says):
    with pytest.raises(UsageError, match=says):
        parse_layout(text, ndim)


def test_letters_keep_the_names_of_the_file():
    layout = parse_layout("NSS", 3, ("time", "lat", "lon"))
    assert (layout.letters, layout.names) == ("NSS", ("time", "lat", "lon"))
    assert parse_axes("lat,lon", layout) == (1, 2)
    assert layout.axis_label(1) == "lat"
    assert parse_layout("NSS", 3, ("", "", "")).names is None
    assert Layout("NC", ("", "band")).axis_label(0) == "N"


@pytest.mark.parametrize(
    ("ndim", "dims", "letters", "says"),
    [
        (1, None, "N", "by rank"),
        (2, None, "NC", "by rank"),
        (3, None, "NCS", "by rank"),
        (5, None, "NCSSS", "by rank"),
        (3, ("time", "lat", "lon"), "TSS", "dimension names"),
        (4, ("Batch", "Height", "Width", "Channel"), "NSSC", "dimension names"),
        (2, ("obs", "feature"), "NC", "dimension names"),
        # One unknown name, or two axes for one letter, is no layout.
        (3, ("time", "lat", "quux"), "NCS", "by rank"),
        (2, ("sample", "batch"), "NC", "by rank"),
        (2, ("", ""), "NC", "by rank"),
    ],
)
def test_inferred_layouts(ndim, dims, letters, says):
    layout, reason = infer_layout(ndim, dims)
    assert layout.letters == letters
    assert says in reason
    if dims and all(dims):
        assert layout.names == dims


def test_b_is_n():
    assert Layout("BCHW") == Layout("NCHW")
    assert Layout("SSCB").batch_axis == 3
    assert Layout("SSCB").channel_axis == 2
    assert Layout("HW").batch_axis is None
    assert Layout("HW").channel_axis is None
