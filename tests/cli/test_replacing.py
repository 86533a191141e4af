"""``--overwrite`` replaces what the same command could have written, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from tests.cli.terminal import call
from tests.faults.shim import tree

FILES = (".json", ".npz", ".h5", ".zarr", ".safetensors")
# Every command that writes, and the suffixes it writes to; {} is the output.
COMMANDS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "fit": (["fit", "x.npy", "-o", "{}", "--layout", "NC"], FILES),
    "fit by block": (["fit", "x.npy", "-o", "{}", "--mode", "layer"], FILES),
    "merge": (["merge", "p1.json", "p2.json", "-o", "{}"], FILES),
    "learn": (["learn", "x.npy", "t.npy", "-o", "{}", "--layout", "NC"], FILES),
    "learn one": (
        ["learn", "x.npy", "t.npy", "-o", "{}", "--layout", "NC", "--bias", "none"],
        (".npy",),
    ),
    "init": (["init", "x.npy", "-o", "{}", "--layout", "NC"], FILES),
    "init one": (["init", "x.npy", "-o", "{}", "--layout", "NC", "--bias", "none"], (".npy",)),
    "stats-out": (
        ["apply", "x.npy", "-o", "y.npy", "--layout", "NC", "--stats-out", "{}"],
        FILES,
    ),
    "apply": (["apply", "x.npy", "-o", "{}", "--layout", "NC"], (".npz", ".h5", ".zarr")),
    "apply inside": (
        ["apply", "x.npy", "-o", "{}/a/y", "--layout", "NC", "--no-stats-out"],
        (".npz", ".h5", ".zarr"),
    ),
    "extract": (["extract", "s.json", "mean", "-o", "{}"], (".npy", ".txt", *FILES)),
    "convert": (["convert", "s.json", "-o", "{}", "--to", "normcli"], FILES),
    "torch": (["convert", "s.json", "-o", "{}", "--to", "torch"], (*FILES, ".pt")),
    "keras": (
        ["convert", "s.json", "-o", "{}", "--to", "keras"],
        (*FILES, ".keras", ".weights.h5"),
    ),
    "onnx": (["convert", "s.json", "-o", "{}"], (".onnx",)),
    "sklearn": (["convert", "s.json", "-o", "{}", "--to", "sklearn"], (".json",)),
    "torchvision": (["convert", "s.json", "-o", "{}", "--to", "torchvision"], (".json",)),
    "kaldi": (["convert", "s.json", "-o", "{}", "--to", "kaldi"], (".txt", ".ark")),
}
CASES = [(name, suffix) for name, (_, suffixes) in COMMANDS.items() for suffix in suffixes]
# Of each command, some of its suffixes, by turns; in the whole suite each.
SOME = [
    pytest.param(
        *(name, suffix),
        marks=[] if (i + j) % 3 == 0 or len(suffixes) == 1 else [pytest.mark.slow],
    )
    for i, (name, (_, suffixes)) in enumerate(COMMANDS.items())
    for j, suffix in enumerate(suffixes)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the commands read; each test has a copy of it."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.save("x.npy", rng.normal(3, 2, (12, 5)).astype(np.float32))
        np.save("t.npy", rng.normal(0, 1, (12, 5)).astype(np.float32))
        fit = ["fit", "x.npy", "--layout", "NC", "-o"]
        for more in (["s.json"], ["p1.json", "--part", "1/2"], ["p2.json", "--part", "2/2"]):
            assert call(*fit, *more).code == 0
    return folder


@pytest.fixture(autouse=True)
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def command_for(name: str, output: str) -> list[str]:
    if name == "onnx":
        pytest.importorskip("onnx")
    if output.endswith(".pt"):
        pytest.importorskip("torch")
    return [word.replace("{}", output) for word in COMMANDS[name][0]]


def foreign(path: str) -> None:
    """Write somebody's data under a name."""
    suffix = Path(path).suffix
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["mine"], file["other"] = np.arange(10.0), np.arange(4)
    elif suffix == ".zarr":
        group = zarr.open_group(path, mode="w")
        group.create_array("mine", data=np.arange(10.0))
        group.create_array("other", data=np.arange(4))
    elif suffix == ".npz":
        np.savez(path, mine=np.arange(10.0), other=np.arange(4))
    elif suffix == ".npy":
        np.save(path, np.arange(1000.0).reshape(10, 100))
    elif suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"layers.1.weight": np.ones(3, np.float32)}, path)
    elif suffix == ".json":
        Path(path).write_text('{"project": "mine", "mean": [1, 2], "notes": [1, 2]}')
    elif suffix in (".pt", ".keras"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", '{"keras_version": "3.9", "date_saved": "today"}')
            archive.writestr("m/data.pkl", b"\x80\x02}q\x00.")
    elif suffix == ".onnx":
        Path(path).write_bytes(b"\x08\x08\x12\x07pytorch:\x00")
    else:
        Path(path).write_text("Notes of two years [1 2]\nthe second line\n")


def contents(path: str) -> object:
    return tree(Path(path)) if os.path.isdir(path) else Path(path).read_bytes()


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_others_data_stay(name: str, suffix: str):
    output = f"data{suffix}"
    foreign(output)
    before = contents(output)
    ended = call(*command_for(name, output), "--overwrite")
    assert ended.code == 2, ended.err
    assert output in ended.err
    assert "Hint: " in ended.err
    assert contents(output) == before
    assert not Path("y.npy").exists()
    assert not [p for p in os.listdir() if p.startswith(".")]


@pytest.mark.parametrize(("name", "suffix"), SOME)
def test_a_folder_of_files_stays(name: str, suffix: str):
    output = f"data{suffix}"
    Path(output).mkdir()
    Path(output, "notes.txt").write_text("mine")
    ended = call(*command_for(name, output), "--overwrite")
    assert ended.code == 2, ended.err
    assert contents(output) == {"notes.txt": b"mine"}


@pytest.mark.parametrize(("name", "suffix"), SOME)
def test_its_own_output_is_replaced(name: str, suffix: str):
    output = f"data{suffix}"
    command = command_for(name, output)
    ended = call(*command)
    assert ended.code == 0, ended.err
    assert call(*command).code == 2
    ended = call(*command, "--overwrite")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(("name", "suffix"), [c for c in SOME if c.values[1] != ".zarr"])
def test_an_empty_file_is_nobodys(name: str, suffix: str):
    output = f"data{suffix}"
    Path(output).touch()
    ended = call(*command_for(name, output), "--overwrite")
    assert ended.code == 0, ended.err
    assert os.path.getsize(output)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".h5", ".zarr", ".safetensors"])
def test_one_kind_does_not_replace_another(suffix: str):
    fit, init = command_for("fit", f"f{suffix}"), command_for("init", f"a{suffix}")
    assert call(*fit).code == 0
    assert call(*init).code == 0
    for command in (command_for("init", f"f{suffix}"), command_for("fit", f"a{suffix}")):
        ended = call(*command, "--overwrite")
        assert ended.code == 2, ended.err
        assert "holds something else than" in ended.err


def _array_in_h5() -> None:
    with h5py.File("s.h5", "a") as file:
        file["mine"] = np.arange(3)


def _array_in_zarr() -> None:
    zarr.open_group("s.zarr", mode="a").create_array("mine", data=np.arange(3))


def _array_in_npz() -> None:
    with zipfile.ZipFile("s.npz", "a") as archive, archive.open("mine.npy", "w") as file:
        np.lib.format.write_array(file, np.arange(3))


def _file_in_zarr() -> None:
    Path("s.zarr/notes.txt").write_text("mine")


def _file_beside_chunks() -> None:
    Path("s.zarr/mean/notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("output", "add"),
    [
        ("s.h5", _array_in_h5),
        ("s.zarr", _array_in_zarr),
        ("s.npz", _array_in_npz),
        ("s.zarr", _file_in_zarr),
        ("s.zarr", _file_beside_chunks),
    ],
)
@pytest.mark.parametrize("name", ["fit", "fit by block"])
def test_what_was_added_to_statistics_stays(name: str, output: str, add: Callable[[], None]):
    command = command_for(name, output)
    assert call(*command).code == 0
    add()
    before = contents(output)
    ended = call(*command, "--overwrite")
    assert ended.code == 2, ended.err
    assert contents(output) == before


def _attributes_h5() -> None:
    with h5py.File("y.h5", "a") as file:
        file.attrs["experiment"] = "three years"


def _link_h5() -> None:
    with h5py.File("y.h5", "a") as file:
        file["raw"] = h5py.ExternalLink("raw.h5", "/x")


def _attributes_of_a_group() -> None:
    with h5py.File("y.h5", "a") as file:
        file.create_group("run").attrs["by"] = "me"


def _nothing_numpy_knows() -> None:
    with h5py.File("y.h5", "a") as file:
        file.create_dataset("nothing", data=h5py.Empty("f4"))


def _attributes_zarr() -> None:
    zarr.open_group("y.zarr", mode="a").attrs["experiment"] = "three years"


def _unreadable_zarr() -> None:
    group = zarr.open_group("y.zarr", mode="a")
    group.create_array("mine", data=np.arange(3))
    path = Path("y.zarr/mine/zarr.json")
    path.write_text(path.read_text().replace('"zstd"', '"of_next_year"'))


def _folder_zarr() -> None:
    Path("y.zarr/photos").mkdir()
    Path("y.zarr/photos/one.jpg").write_bytes(b"\xff\xd8")


def _member_npz() -> None:
    with zipfile.ZipFile("y.npz", "a") as archive:
        archive.writestr("notes.txt", "mine")


@pytest.mark.parametrize(
    ("output", "add", "told"),
    [
        ("y.h5", _attributes_h5, "attributes of /"),
        ("y.h5", _link_h5, "raw"),
        ("y.h5", _attributes_of_a_group, "attributes of run"),
        ("y.h5", _nothing_numpy_knows, "nothing"),
        ("y.zarr", _attributes_zarr, "attributes of /"),
        ("y.zarr", _unreadable_zarr, "mine"),
        ("y.zarr", _folder_zarr, "photos/one.jpg"),
        ("y.npz", _member_npz, "notes.txt"),
    ],
)
def test_what_is_no_array_is_not_lost_either(output: str, add: Callable[[], None], told: str):
    command = ["apply", "x.npy", "-o", f"{output}/y", "--layout", "NC", "--no-stats-out"]
    assert call(*command).code == 0
    assert call(*command, "--overwrite").code == 0
    add()
    before = contents(output)
    ended = call(*command, "--overwrite")
    assert ended.code == 2, ended.err
    assert "would be lost" in ended.err
    assert told in ended.err
    assert contents(output) == before


def test_what_is_no_npy_file_stays():
    Path("y.npy").write_text("my notes")
    ended = call("apply", "x.npy", "-o", "y.npy", "--layout", "NC", "--overwrite")
    assert ended.code == 2, ended.err
    assert "cannot be read, so it is not replaced" in ended.err
    assert Path("y.npy").read_text() == "my notes"


@pytest.mark.parametrize("companion", ["y.npy.manifest.jsonl", "y.npy.stats.json"])
def test_companions_of_an_output_may_be_others_files(companion: str):
    Path(companion).write_text('{"mine": 1}\n')
    ended = call("apply", "x.npy", "-o", "y.npy", "--layout", "NC", "--overwrite")
    assert ended.code == 2, ended.err
    assert f"{companion} holds something else than" in ended.err
    assert Path(companion).read_text() == '{"mine": 1}\n'
    assert not Path("y.npy").exists()


def test_litter_in_a_store_is_nobodys():
    command = command_for("apply", "y.zarr")
    assert call(*command).code == 0
    Path("y.zarr/.DS_Store").write_bytes(b"")
    Path("y.zarr/c").mkdir(exist_ok=True)
    Path("y.zarr/c/0.abc.partial").write_bytes(b"")
    assert call(*command, "--overwrite").code == 0
    assert not Path("y.zarr/.DS_Store").exists()


def test_a_link_is_replaced_and_not_what_it_names():
    Path("mine.json").write_text("[1, 2]")
    Path("data.json").symlink_to("mine.json")
    ended = call(*command_for("extract", "data.json"), "--overwrite")
    assert ended.code == 0, ended.err
    assert Path("mine.json").read_text() == "[1, 2]"
    assert len(json.loads(Path("data.json").read_text())) == 5
