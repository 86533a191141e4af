"""Standard output carries data or JSON alone, pipes behave as pipes, lost streams are survived."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import normcli
from normcli.kernels import select
from tests.cli.terminal import (
    NORMCLI,
    SAMPLES,
    assert_told,
    drafts,
    environment,
    npy,
    printable_only,
    run,
    shell,
    zscore,
)


def test_json_is_all_that_goes_to_stdout(folder: Path):
    fitted = run("fit", "x.npy", "--json", cwd=folder)
    document = json.loads(fitted.out)
    assert document["report"]["count"] == 240
    assert document["statistics"]["arrays"]["mean"]["shape"] == [6]
    applied = run("apply", "x.npy", "-o", "y.npy", "--json", cwd=folder)
    assert json.loads(applied.out)["report"]["output"] == "y.npy"
    for ended in (fitted, applied):
        assert ended.code == 0
        assert ended.out.count(b"\n") == 1
        assert printable_only(ended.err)
        assert "normcli: measuring" in ended.err


def test_commands_without_a_result_on_stdout_leave_it_empty(folder: Path):
    for arguments in (
        ["fit", "x.npy", "-o", "s.json", "-v"],
        ["apply", "x.npy", "-o", "y.npy", "--progress"],
        ["fit", "x.npy", "--dry-run"],
    ):
        ended = run(*arguments, cwd=folder, FORCE_COLOR="" if "-v" in arguments else "1")
        assert (ended.code, ended.out) == (0, b"")
        assert "\r" not in ended.err
        assert "\x1b[2K" not in ended.err


def test_quiet_says_nothing_but_errors(folder: Path):
    assert run("fit", "x.npy", "-o", "s.json", "-q", cwd=folder).err == ""
    assert_told(run("fit", "x.npy", "-o", "s.json", "-q", cwd=folder), 2, "s.json exists")


def test_a_pipe_through_apply_equals_numpy(folder: Path):
    values = np.load("x.npy")
    ended = shell("cat x.npy | $N apply - -o - --mode layer | cat", folder)
    assert ended.code == 0
    np.testing.assert_allclose(np.load(io.BytesIO(ended.out)), zscore(values, [1]), atol=1e-6)
    assert os.listdir(folder) == ["x.npy"]  # no sidecar of a pipe

    fitted = shell(
        "cat x.npy | $N fit - -o s.json && $N apply - -o - --stats s.json < x.npy", folder
    )
    np.testing.assert_allclose(np.load(io.BytesIO(fitted.out)), zscore(values, [0]), atol=1e-6)


def test_two_passes_over_a_pipe_are_refused(folder: Path):
    ended = run("apply", "-", "-o", "-", cwd=folder, stdin=Path("x.npy").read_bytes())
    assert_told(ended, 2, "pipe", "Two passes", "--stats")
    assert ended.out == b""


def test_cut_pipes_are_inputs_that_cannot_be_read(folder: Path):
    data = Path("x.npy").read_bytes()
    for cut, word in ((300, "172 of 960 bytes"), (20, "header"), (0, "empty")):
        for arguments in (
            ["fit", "-", "-o", "s.json"],
            ["apply", "-", "-o", "y.npy", "--mode=layer"],
        ):
            if cut != 300 and arguments[0] == "apply":
                continue
            ended = run(*arguments, "-q", cwd=folder, stdin=data[:cut])
            assert_told(ended, 3, word, hint=False)
    assert os.listdir(folder) == ["x.npy"]


@pytest.mark.parametrize(
    "command",
    [
        "$N apply x.npy -o - --mode layer -q",
        pytest.param("$N inspect x.npy", marks=pytest.mark.slow),
        pytest.param("$N fit x.npy --json -q", marks=pytest.mark.slow),
        "$N --help",
    ],
)
def test_a_closed_pipe_is_quiet(folder: Path, command: str):
    np.save("x.npy", np.ones((300, 1000)) + np.arange(1000))
    ended = shell(f"{command} | head -c 0; exit ${{PIPESTATUS[0]}}", folder)
    assert (ended.code, ended.err) == (141, "")


@pytest.mark.parametrize(
    "command",
    [
        "$N apply x.npy -o - --mode layer -q",
        pytest.param("$N inspect x.npy", marks=pytest.mark.slow),
        "$N fit x.npy --json -q",
    ],
)
def test_a_full_stdout_is_a_failed_output(folder: Path, command: str):
    assert_told(shell(f"{command} > /dev/full", folder), 5, "No space left")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(exec <&-; sleep 0.2)"])
def test_a_lost_stderr_stops_nothing(folder: Path, redirection: str):
    ended = shell(f"$N apply x.npy -o y.npy -v {redirection}", folder)
    assert (ended.code, ended.out) == (0, b"")
    np.testing.assert_allclose(np.load("y.npy"), zscore(np.load("x.npy"), [0]), atol=1e-6)


def test_closed_descriptors_are_told(folder: Path):
    assert_told(shell("$N fit - -o s.json <&-", folder), 3, "Standard input is closed")
    assert_told(shell("$N fit x.npy --json -q >&-", folder), 5, "Standard output is closed")
    assert_told(shell("$N apply x.npy -o - -q >&-", folder), 5, "Standard output is closed")


def test_odd_locales_do_not_crash(folder: Path):
    np.savez("ü.npz", **{"größe\u2028x": np.ones((2, 3))})
    ended = run("inspect", "ü.npz", cwd=folder, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert ended.code == 0
    assert rb"gr\xf6\xdfe\u2028x" in ended.out


def test_no_log_of_a_long_pipe_holds_control_codes(folder: Path):
    ended = run(
        "apply", SAMPLES / "patches.zarr", "-o", "y.zarr", cwd=folder, TERM="dumb", FORCE_COLOR=""
    )
    assert printable_only(ended.err)
    assert "normalizing (pass 2 of 2): 100 %" in ended.err


@pytest.mark.parametrize(
    ("signal_number", "code", "output"),
    [
        (signal.SIGINT, 130, "y.npy"),
        (signal.SIGTERM, 143, "y.npy"),
        (signal.SIGHUP, 129, "y.npy"),
        (signal.SIGINT, 130, "y.zarr"),
        (signal.SIGTERM, 143, "y.h5"),
        pytest.param(signal.SIGTERM, 143, "y.zarr", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, "y.zarr", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "y.h5", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, "y.h5", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_at_once_and_leaves_nothing(folder, signal_number, code, output):
    process = subprocess.Popen(
        [NORMCLI, "apply", "-", "-o", output, "--mode", "layer", "--memory", "64MiB"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(npy(np.ones((1000, 1000)))[:3_000_000])
    process.stdin.flush()  # the rest never comes
    until = time.monotonic() + 20
    while not drafts(folder):
        assert time.monotonic() < until
        time.sleep(0.02)
    begin = time.monotonic()
    process.send_signal(signal_number)
    told = process.stderr.read().decode()
    assert process.wait(10) == code
    assert time.monotonic() - begin < 5
    process.stdin.close()
    process.stderr.close()
    assert f"stopped by {signal_number.name}" in told
    assert "Traceback" not in told
    assert sorted(os.listdir(folder)) == ["x.npy"]


def test_nohup_is_respected(folder: Path):
    script = (
        "trap '' HUP; (head -c 500 x.npy; sleep 1.5; tail -c +501 x.npy) | $N fit - -q -o s.json &"
        "sleep 0.9; kill -HUP $!; wait $!"
    )
    ended = shell(script, folder)
    assert (ended.code, ended.err) == (0, "")
    assert Path("s.json").exists()


# Linux counts the peak memory of a process from before its exec, so a small process starts it.
MEASURED = (
    "import resource, subprocess, sys\n"
    "code = subprocess.call(sys.argv[2:])\n"
    "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024\n"
    "open(sys.argv[1], 'w').write(str(peak))\n"
    "sys.exit(code)\n"
)


def _piped(rows: int, columns: int, folder: Path) -> tuple[int, int, int]:
    """Send an array through apply, in pieces; return exit code, bytes back, peak memory."""
    peak = folder / "peak.txt"
    command = [NORMCLI, "apply", "-", "-o", "-", "--mode", "layer", "--memory", "64MiB", "-q"]
    sink = subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURED, str(peak), *command],
        stdin=subprocess.PIPE,
        stdout=sink.stdin,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment(),
    )
    with sink, process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert sink.stdin is not None
        assert sink.stdout is not None
        sink.stdin.close()
        header = io.BytesIO()
        layout = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}
        np.lib.format.write_array_header_1_0(header, layout)
        piece = np.random.default_rng(1).normal(size=(64, columns)).astype(np.float32).tobytes()
        try:
            process.stdin.write(header.getvalue())
            for _ in range(rows // 64):
                process.stdin.write(piece)
            process.stdin.close()
        except BrokenPipeError:
            pytest.fail(process.stderr.read().decode())
        code = process.wait()
        return code, int(sink.stdout.read()), int(peak.read_text())


def test_a_big_pipe_takes_little_memory(folder: Path, monkeypatch):
    # To compile takes memory, too: kernels are kept by a run before, wherever this test comes.
    monkeypatch.setattr(select, "SMALL", 1)
    np.save("few.npy", np.random.default_rng(0).normal(size=(64, 16384)).astype("f4"))
    normcli.apply("few.npy", "kept.npy", mode="layer")
    code, back, most = _piped(4608, 16384, folder)  # 302 MB
    assert code == 0
    assert 0 < back - 4 * 4608 * 16384 < 300  # and its header
    # The budget of 64 MiB, and what Python and its libraries need (about 150 MB with numba).
    assert most < 270e6
