"""Names that drive a terminal, secrets in addresses, odd files, and folders that hold modules."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import normcli
from normcli.arrays.opening import open_source
from normcli.domain.grid import Block
from tests.cli.terminal import call, on_terminal, printable_only
from tests.faults.shim import COMPILER
from tests.hostile.commands import limited

VALUES = np.random.default_rng(4).normal(size=(8, 3)).astype("f4")
NAMES = [
    "\x1b[2J\x1b]0;owned\x07",
    "[red]x[/red]",
    "[/]",
    "two\nlines",
    "\u202egnp",
    "%s%n",
    "{0.__class__}",
    "-rf",
    "a" * 200,
    "\u200b",
]
HTTPS = "https://user:hunter2@host/x.npy?X-Amz-Signature=hunter3"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES, ids=ascii)
class TestNames:
    def test_of_a_file(self, here, name):
        name = name.replace("/", "")
        np.save(here / f"{name}.npy", VALUES)
        ended = call("fit", f"./{name}.npy", "-o", "s.json")
        assert ended.code == 0, ended
        assert printable_only(ended.err)

    def test_of_a_missing_file(self, here, name):
        ended = call("fit", f"./{name}.npy", "-o", "s.json")
        assert ended.code == 3
        assert printable_only(ended.err)
        assert ended.err.count("\n") <= 2

    def test_of_a_dataset(self, here, name):
        with h5py.File("x.h5", "w") as file:
            file[name] = VALUES
            file["other"] = VALUES
            file[name].attrs[name] = name
        for arguments in (("inspect", "x.h5"), ("fit", "x.h5", "-o", "s.json")):
            ended = call(*arguments)
            assert ended.code in (0, 3)
            assert printable_only(ended.err)
            assert printable_only(ended.text)

    def test_of_dimensions(self, here, name):
        zarr.create_array("x.zarr", data=VALUES, dimension_names=["N", name])
        ended = call("fit", "x.zarr", "-o", "s.json")
        assert ended.code in (0, 2, 3)
        assert printable_only(ended.err)


class TestNamesOfNoUtf8:
    """HDF5 keeps names as bytes; as text they have surrogates, as those of files do."""

    @pytest.fixture
    def named(self, here):
        with h5py.File("x.h5", "w") as file:
            for name in (b"gr\xfcn", b"z"):
                group = h5py.h5g.create(file.id, name)
                space = h5py.h5s.create_simple(VALUES.shape)
                made = h5py.h5d.create(group, b"\xe4", h5py.h5t.IEEE_F64LE, space)
                h5py.Dataset(made)[...] = VALUES
            file.id.links.create_soft(b"s\xfc", b"/z")
        return "x.h5/gr\udcfcn/\udce4"

    @pytest.mark.parametrize("output", ["y.h5/\udce4/\udcfc", "y.zarr/\udce4", "y.npz", "y.npy"])
    def test_apply(self, named, output):
        ended = call("apply", named, "-o", output)
        assert ended.code == 0, ended
        assert printable_only(ended.err)
        assert call("verify", output.split("/")[0]).code == 0
        wide = VALUES.astype("f8")
        wanted = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
        source = open_source(output)
        block = Block(0, (0, 0), VALUES.shape)
        np.testing.assert_allclose(source.read(block), wanted, rtol=1e-6)
        source.close()

    def test_no_member_of_a_zip(self, named):
        ended = call("apply", named, "-o", "y.npz/\udce4")
        assert ended.code == 2, ended
        assert "no UTF-8" in ended.err
        assert not list(Path().glob(".y*"))

    def test_which(self, named):
        ended = call("fit", "x.h5", "-o", "s.json")
        assert ended.code == 3
        assert r"gr\udcfcn/\udce4 (" in ended.err
        assert call("inspect", "x.h5").code == 0

    @pytest.mark.parametrize("name", ["gr\udcfcn/no", "gr\udcfcn/\udce5", "s\udcfc/\udce4"])
    def test_none(self, named, name):
        ended = call("fit", f"x.h5/{name}", "-o", "s.json")
        assert ended.code in (3, 4), ended
        assert printable_only(ended.err)


@pytest.mark.parametrize("name", NAMES[:3], ids=ascii)
def test_on_a_terminal(here, name):
    """What rich draws holds the markup of a name as it is, and none of its control codes."""
    with h5py.File("x.h5", "w") as file:
        file[name] = VALUES
        file["other"] = VALUES
    for arguments in (("inspect", "x.h5"), ("fit", "x.h5", "-o", "s.json")):
        _, screen = on_terminal(*arguments, cwd=here)
        assert "\x07" not in screen
        assert "\x1b[2J" not in screen
        if "red" in name:
            assert name in screen


def test_a_name_of_a_megabyte(here):
    ended = call("fit", "x" * (1 << 20) + ".npy", "-o", "s.json")
    assert ended.code in (2, 3)
    assert len(ended.err) < 20_000


@pytest.mark.parametrize("option", [(), ("--json",), ("--debug",)], ids=" ".join)
def test_secrets_of_addresses(here, option):
    np.save("x.npy", VALUES)
    address = HTTPS.replace("/", "_").replace("_", "/", 3)
    for arguments in (
        ("fit", HTTPS, "-o", "s.json"),
        ("fit", "x.npy", "-o", HTTPS.replace(".npy", ".json")),
        ("fit", "x.npy", "-o", "s3://key:hunter4@bucket/s.json"),
        ("apply", "x.npy", "-o", HTTPS),
        ("apply", "x.npy", "-o", "y.npy", "--stats", address),
        ("apply", "x.npy", "-o", "y.npy", "--scale", address),
        ("inspect", HTTPS),
        ("clean", HTTPS),
        ("verify", HTTPS),
        ("extract", HTTPS, "mean"),
        ("convert", HTTPS, "-o", "c.json"),
    ):
        ended = call(*arguments, *option)
        assert ended.code, arguments
        assert "hunter" not in ended.err, ended.err
        assert "hunter" not in ended.text
        assert ("Traceback" in ended.err) == (option == ("--debug",)), ended


def test_no_secret_in_a_sidecar(here, monkeypatch):
    """The command is kept in the sidecar, with every argument of it."""
    np.save("x.npy", VALUES)
    monkeypatch.setattr(sys, "argv", ["normcli", "fit", "x.npy", "--option", HTTPS])
    normcli.fit("x.npy", "s.json")
    text = Path("s.json").read_text()
    assert "hunter" not in text
    assert "https://***@host/x.npy?***" in text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.h5", "x.zarr"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_inputs_that_are_no_files(here, name, kind):
    """A pipe would wait for a writer for ever, and a device never end."""
    if kind == "folder" and name == "x.zarr":
        pytest.skip("a store is a folder")
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(name)
    elif kind == "folder":
        Path(name).mkdir()
    else:
        os.symlink("/dev/zero", name)
    ended = call("fit", name, "-o", "s.json")
    assert ended.code in (2, 3), ended
    assert ended.err.count("normcli: error: ") == 1


MODULES = ("zarr", "h5py", "numpy", "json", "numcodecs", "normcli")


@pytest.mark.parametrize(
    "modules",
    [MODULES, *(pytest.param((m,), marks=pytest.mark.slow, id=m) for m in MODULES)],
    ids=["all"] + [""] * len(MODULES),
)
def test_modules_of_the_current_folder_are_not_run(here, modules):
    canary = here / "canary"
    for module in modules:
        (here / f"{module}.py").write_text(f"open({str(canary)!r}, 'w')\n")
    with h5py.File("x.h5", "w") as file:
        file["a"] = VALUES
    ended, _, _ = limited("fit", "x.h5/a", "-o", "s.json", cwd=here)
    assert ended.code == 0, ended
    assert not canary.exists()


CANARY = """
#include <stdio.h>
__attribute__((constructor)) static void sing(void) { fclose(fopen("%s", "w")); }
"""


def test_plugins_of_hdf5_are_not_loaded(here):
    """HDF5 would load every library of that folder when it meets an unknown filter."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    (here / "plugins").mkdir()
    (here / "canary.c").write_text(CANARY % (here / "canary"))
    library = str(here / "plugins" / "libh5canary.so")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, "canary.c"], check=True)
    with h5py.File("x.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((40,))
        h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, plist)
    folder = str(here / "plugins")
    ended, _, _ = limited("fit", "x.h5/a", "-o", "s.json", cwd=here, HDF5_PLUGIN_PATH=folder)
    assert ended.code == 3
    assert "filter 31999" in ended.err
    assert not (here / "canary").exists()
    ctypes.CDLL(library)
    assert (here / "canary").exists()
