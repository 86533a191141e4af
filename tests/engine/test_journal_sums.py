"""Sums of every method in a journal: to the last bit, and never of other elements."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from normcli.domain.geometry import bind
from normcli.domain.grid import Grid
from normcli.domain.layout import Layout
from normcli.domain.norm_moments import NormMoments, PowerMoments
from normcli.domain.presets import make_spec
from normcli.domain.quantile_moments import QuantileMoments, SketchedMoments
from normcli.engine.done import Done, done_from_json, done_to_json
from normcli.engine.journal import Journal
from normcli.engine.journal_file import pack_named
from normcli.engine.journal_sums import pack_sums, unpack_sums
from normcli.engine.measuring import Measurer
from normcli.errors import OutputError
from normcli.kernels.select import kernels
from normcli.planning.plan import Pass, Plan

pytest.importorskip("datasketches")

X = np.random.default_rng(3).normal(size=(5000, 4)).astype("f4")
SETTINGS = [{"method": "robust"}, {"method": "lp", "p": 3.0}, {"method": "lp", "p": np.inf}]
PLAN = Plan((Pass("measure", Grid((8, 3), (4, 3)), 1, 1, 0, "why"),), 1, 1, 1, "numpy", "one")


class Held:
    """An array in memory, all of whose chunks are stored."""

    def stored_parts(self, block):
        return None


def measured(settings: dict, x: np.ndarray = X):
    spec = make_spec(Layout("NC"), x.dtype, **settings)
    measurer = Measurer.of(spec, bind(spec, x.shape), kernels("numpy"))
    grid = Grid(x.shape, x.shape)
    return measurer.sums(Held(), x, grid.block(0)), measurer


def text(sums) -> str:
    return json.dumps(pack_sums(sums))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sums_keep_every_bit(settings):
    sums, measurer = measured(settings)
    assert isinstance(sums, SketchedMoments | PowerMoments)
    again = unpack_sums(json.loads(text(sums)))
    assert type(again) is type(sums)
    assert text(again) == text(sums)
    # And what is merged with them afterwards.
    more, _ = measured(settings, X[:7] + 1)
    a, b = (measurer.finish(one.merge(more)) for one in (sums, again))
    assert pack_named(a, compared(a)) == pack_named(b, compared(b))


def test_powers_that_leave_float64_keep_every_bit():
    x = np.geomspace(1e-300, 1e300, 400).reshape(100, 4)
    sums, measurer = measured({"method": "lp", "p": 7.0}, x)
    assert isinstance(sums, PowerMoments)
    assert sums.far is not None
    again = unpack_sums(json.loads(text(sums)))
    assert text(again) == text(sums)
    more, _ = measured({"method": "lp", "p": 7.0}, x[::-1] * 1e3)
    a, b = (measurer.finish(one.merge(more)) for one in (sums, again))
    assert pack_named(a, a.names()) == pack_named(b, b.names())
    assert np.isfinite(a.norm).all()


def compared(moments) -> tuple[str, ...]:
    # A sketch that is full draws random bits: its quantiles are not compared to the last bit.
    left_out = ("lower", "center", "upper")
    return tuple(name for name in moments.names() if name not in left_out)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rounded_moments_keep_every_bit(settings):
    sums, measurer = measured(settings)
    moments = measurer.finish(sums)
    assert isinstance(moments, QuantileMoments | NormMoments)
    again = unpack_sums(json.loads(text(moments)))
    assert type(again) is type(moments)
    assert text(again) == text(moments)
    assert getattr(again, "p", None) == getattr(moments, "p", None)


def cut(packed: dict) -> None:
    packed["sketches"][0] = base64.b64encode(base64.b64decode(packed["sketches"][0])[:-8]).decode()


def swap(packed: dict) -> None:
    other, _ = measured({"method": "robust"}, X[:100])
    packed["sketches"][1] = base64.b64encode(other.sketches.images[0]).decode()


DAMAGE = {
    "cut": cut,
    "of other elements": swap,
    "no base64": lambda packed: packed["sketches"].__setitem__(0, "!"),
    "a number": lambda packed: packed["sketches"].__setitem__(0, 5),
    "one less": lambda packed: packed["sketches"].pop(),
    "of nothing": lambda packed: packed["sketches"].__setitem__(0, ""),
    "one level": lambda packed: packed.update(levels=[0.5]),
    "no sums": lambda packed: packed.pop("plain"),
    "another shape": lambda packed: packed["plain"]["count"].__setitem__(1, [2**40]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_journal_with_other_sketches_is_not_taken_up(tmp_path, damage):
    sums, _ = measured({"method": "robust"})
    done = Done(runs={0}, nodes={(0, 0, 0): ((slice(0, 4),), sums)}, blocks=1)
    line = done_to_json(done)
    assert text(done_from_json(line).nodes[0, 0, 0][1]) == text(sums)
    packed = json.loads(text(sums))
    damage(packed)
    with pytest.raises((KeyError, TypeError, ValueError)):
        unpack_sums(packed)
    line["nodes"][0][-1] = packed
    first = Journal(tmp_path / "journal", {"a": 1}, lambda error: OutputError(str(error)))
    first.begin(PLAN, lambda done: None)
    first._file.append([{"pass": 0, **line}])
    first.close()
    second = Journal(tmp_path / "journal", {"a": 1}, lambda error: OutputError(str(error)))
    assert (second.changed, second.plan, second.take(0).runs) == (("journal",), None, set())
