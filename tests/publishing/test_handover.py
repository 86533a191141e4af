"""An output stands beside its own companions or beside none, whatever ends the renames."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from normcli.errors import OutputError
from normcli.publishing import Draft, Handover, draft, handover
from normcli.publishing.exchanging import exchanged

WAYS = ("exchange", "two renames")


def layout(folder: Path, earlier: bool) -> Handover:
    work = folder / "work"
    work.mkdir(parents=True)
    (work / "draft.zarr").mkdir()
    (work / "draft.zarr" / "zarr.json").write_text("new")
    (work / "stats").write_text("new")
    (work / "manifest").write_text("new")
    if earlier:
        (folder / "y.zarr").mkdir()
        (folder / "y.zarr" / "zarr.json").write_text("old")
        (folder / "y.stats").write_text("old")
        (folder / "y.manifest").write_text("old")
    return Handover.of(
        [
            (work / "draft.zarr", folder / "y.zarr"),
            (work / "manifest", folder / "y.manifest"),
            (work / "stats", folder / "y.stats"),
        ]
    )


def seen(folder: Path) -> list[str | None]:
    paths = (folder / "y.zarr" / "zarr.json", folder / "y.manifest", folder / "y.stats")
    return [path.read_text() if path.exists() else None for path in paths]


@pytest.fixture(autouse=True, params=WAYS)
def way(request, monkeypatch, tmp_path):
    """How a folder is replaced: as this file system can, and as every one can."""
    if request.param == "two renames":
        for module in (draft, handover):
            monkeypatch.setattr(module, "exchanged", lambda a, b: False)
    else:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        known = exchanged(tmp_path / "a", tmp_path / "b")
        for name in ("a", "b"):
            (tmp_path / name).rmdir()
        if not known:
            pytest.skip("this system has no exchange of names")
    return request.param


@pytest.mark.parametrize("earlier", [False, True])
def test_all_names_are_given_and_nothing_else_stays(tmp_path, earlier):
    steps = layout(tmp_path, earlier)
    assert Handover.from_text(steps.as_text()) == steps
    Handover.from_text(steps.as_text()).carry_out()
    assert seen(tmp_path) == ["new"] * 3
    assert os.listdir(tmp_path / "work") == []
    steps.carry_out()
    assert seen(tmp_path) == ["new"] * 3


def test_a_folder_is_exchanged_with_a_file_and_missing_names_are_told(tmp_path, way):
    if way != "exchange":
        return
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    assert exchanged(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        exchanged(tmp_path / "a", tmp_path / "absent")


class Watch:
    """Looks for a name again and again, while others replace what bears it."""

    def __init__(self, path: Path) -> None:
        self._path, self._end = path, threading.Event()
        self.looks = self.missed = 0
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._end.is_set():
            self.looks += 1
            self.missed += not os.path.lexists(self._path)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()


def test_the_name_of_a_folder_is_never_missing(tmp_path, way):
    layout(tmp_path, earlier=True).carry_out()
    with Watch(tmp_path / "y.zarr") as watch:
        for number in range(100):
            made = layout(tmp_path / f"again-{number}", earlier=False)
            (source, _), *_ = made.steps
            Handover.of([(source, tmp_path / "y.zarr")]).carry_out()
            other = Draft.beside(tmp_path / "y.zarr", overwrite=True)
            other.path.mkdir()
            other.publish()
    assert watch.looks > 100
    if way == "exchange":
        assert watch.missed == 0
    assert sorted(os.listdir(tmp_path / "y.zarr")) == []
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


class Killed(BaseException):
    pass


class Calls:
    """Lets something happen before the N-th rename or exchange."""

    def __init__(self, monkeypatch, at: int, happens) -> None:
        self.count, self._at, self._happens = 0, at, happens
        for module, name in ((os, "replace"), (handover, "exchanged")):
            monkeypatch.setattr(module, name, self._counting(getattr(module, name)))

    def _counting(self, real):
        def call(a, b):
            self.count += 1
            if self.count == self._at:
                raise self._happens
            return real(a, b)

        return call


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("at", range(1, 10))
def test_killed_before_any_rename_and_repeated(tmp_path, monkeypatch, way, earlier, at):
    steps = Handover.from_text(layout(tmp_path, earlier).as_text())
    with monkeypatch.context() as patch:
        calls = Calls(patch, at, Killed())
        try:
            steps.carry_out()
        except Killed:
            pass
        else:
            assert calls.count < at
    main, *companions = seen(tmp_path)
    assert {main, *companions} <= {"old", None} or {main, *companions} <= {"new", None}
    if earlier and way == "exchange":
        assert main is not None
    steps.carry_out()
    assert seen(tmp_path) == ["new"] * 3
    assert os.listdir(tmp_path / "work") == []


@pytest.mark.parametrize("lost", ["inode", "time"])
def test_killed_after_the_exchange_on_a_file_system_that_forgets(tmp_path, monkeypatch, way, lost):
    """Overlays may number inodes anew; a copy of the folders has other inodes, and these times."""
    made = layout(tmp_path, earlier=True)
    assert made.mark is not None
    inode, time = made.mark
    steps = Handover(made.steps, (inode, 1) if lost == "time" else (1, time))
    if way != "exchange":
        return
    with monkeypatch.context() as patch:
        Calls(patch, 4, Killed())  # two companions step aside, the exchange, and then
        with pytest.raises(Killed):
            steps.carry_out()
    assert seen(tmp_path) == ["new", None, None]
    assert (tmp_path / "work" / "draft.zarr" / "zarr.json").read_text() == "old"
    steps.carry_out()
    assert seen(tmp_path) == ["new"] * 3


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("at", range(1, 9))
def test_an_error_leaves_the_earlier_output_whole(tmp_path, monkeypatch, earlier, at):
    steps = layout(tmp_path, earlier)
    with monkeypatch.context() as patch:
        calls = Calls(patch, at, OSError(errno.EIO, "Input/output error"))
        failed = None
        try:
            steps.carry_out()
        except OutputError as error:
            failed = error.message
    if failed is not None:
        assert "could not be written: Input/output error" in failed
        found = seen(tmp_path)
        whole = [["old"] * 3] if earlier else [[None] * 3]
        assert found in [*whole, ["new", None, None], ["new", "new", None]]
    else:
        assert calls.count < at
    steps.carry_out()
    assert seen(tmp_path) == ["new"] * 3
