"""An output stands beside its own companions or beside none, whatever ends the renames."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from normcli.errors import OutputError
from normcli.publishing import Handover


def layout(folder: Path, earlier: bool) -> Handover:
    work = folder / "work"
    work.mkdir(parents=True)
    (work / "draft.zarr").mkdir()
    (work / "draft.zarr" / "c").write_text("new")
    (work / "stats").write_text("new")
    (work / "manifest").write_text("new")
    if earlier:
        (folder / "y.zarr").mkdir()
        (folder / "y.zarr" / "c").write_text("old")
        (folder / "y.stats").write_text("old")
        (folder / "y.manifest").write_text("old")
    return Handover(
        (
            (work / "draft.zarr", folder / "y.zarr"),
            (work / "manifest", folder / "y.manifest"),
            (work / "stats", folder / "y.stats"),
        )
    )


def seen(folder: Path) -> list[str | None]:
    paths = (folder / "y.zarr" / "c", folder / "y.manifest", folder / "y.stats")
    return [path.read_text() if path.exists() else None for path in paths]


@pytest.mark.parametrize("earlier", [False, True])
def test_all_names_are_given_and_nothing_else_stays(tmp_path, earlier):
    handover = layout(tmp_path, earlier)
    Handover.from_text(handover.as_text()).carry_out()
    assert seen(tmp_path) == ["new"] * 3
    assert os.listdir(tmp_path / "work") == []
    handover.carry_out()
    assert seen(tmp_path) == ["new"] * 3


class Killed(BaseException):
    pass


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("at", range(1, 8))
def test_killed_before_any_rename_and_repeated(tmp_path, monkeypatch, earlier, at):
    handover = layout(tmp_path, earlier)
    calls = 0
    real = os.replace

    def replace(a, b):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        real(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            handover.carry_out()
        except Killed:
            pass
        else:
            assert calls < at
    main, *companions = seen(tmp_path)
    assert {main, *companions} <= {"old", None} or {main, *companions} <= {"new", None}
    handover.carry_out()
    assert seen(tmp_path) == ["new"] * 3


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("at", range(1, 7))
def test_an_error_leaves_the_earlier_output_whole(tmp_path, monkeypatch, earlier, at):
    handover = layout(tmp_path, earlier)
    calls = 0
    real = os.replace

    def replace(a, b):
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.EIO, "Input/output error")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    failed = None
    try:
        handover.carry_out()
    except OutputError as error:
        failed = error.message
    if failed is not None:
        assert "could not be written: Input/output error" in failed
        found = seen(tmp_path)
        whole = [["old"] * 3] if earlier else [[None] * 3]
        assert found in [*whole, ["new", None, None], ["new", "new", None]]
    else:
        assert calls < at
    handover.carry_out()
    assert seen(tmp_path) == ["new"] * 3
