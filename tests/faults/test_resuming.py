"""What the next run makes of one that was interrupted, and what `clean` does with it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.faults.commands import BUDGETS, apply_command, with_workers
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome


def test_the_next_run_says_how_much_was_done(forks: Forks, inputs, tmp_path):
    command = apply_command(inputs, "x.npy")
    faulty = forks.run(
        *command, cwd=tmp_path, at=3, signal=9, match="journal", ops="write", delay=20000
    )
    assert faulty.code == -9
    assert hidden(tmp_path) == [".y.npy.normcli-work"]
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "continuing: " in ended.err
    assert "were done by an interrupted run" in ended.err


def interrupted(forks: Forks, inputs, folder, *more) -> list[str]:
    command = apply_command(inputs, "x.npy", *more)
    faulty = forks.run(*command, cwd=folder, at=3, signal=9, match="journal", ops="write")
    assert faulty.code == -9
    return command


def test_other_settings_begin_afresh_and_say_so(forks: Forks, inputs, tmp_path, whole):
    command = interrupted(forks, inputs, tmp_path)
    ended = forks.run(*command, "--epsilon", "0.5", cwd=tmp_path)
    assert ended.code == 0
    assert "had other settings (normalization), so this one begins afresh" in ended.err
    assert "continuing" not in ended.err
    assert outcome(tmp_path, "y")["y.npy"] != whole(apply_command(inputs, "x.npy"))["y.npy"]
    assert hidden(tmp_path) == []


def test_a_changed_input_begins_afresh(forks: Forks, inputs, tmp_path):
    np.save(tmp_path / "in.npy", np.load(inputs / "x.npy"))
    command = ["apply", "in.npy", "-o", "y.npy", "--memory", BUDGETS["x.npy"]]
    faulty = forks.run(*command, cwd=tmp_path, at=3, signal=9, match="journal", ops="write")
    assert faulty.code == -9
    np.save(tmp_path / "in.npy", np.load(inputs / "x.npy") * 2)
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "had other settings (input)" in ended.err
    np.save(tmp_path / "in.npy", np.load(inputs / "x.npy") * 2)
    again = forks.run("apply", "in.npy", "-o", "z.npy", cwd=tmp_path)
    assert again.code == 0
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "z.npy").read_bytes()


@pytest.mark.parametrize("mode", ["batch", "instance"])
def test_a_range_is_continued_and_another_range_is_not(forks: Forks, inputs, tmp_path, whole, mode):
    more = ("--mode", mode, "--method", "minmax", "--range")
    command = interrupted(forks, inputs, tmp_path, *more, "-1,1")
    ended = forks.run(*command, cwd=tmp_path)
    assert (ended.code, "continuing: " in ended.err) == (0, True)
    assert outcome(tmp_path, "y")["y.npy"] == whole(command)["y.npy"]
    (tmp_path / "other").mkdir()
    interrupted(forks, inputs, tmp_path / "other", *more, "-1,1")
    again = apply_command(inputs, "x.npy", *more, "0,1")
    ended = forks.run(*again, cwd=tmp_path / "other")
    assert "had other settings (normalization), so this one begins afresh" in ended.err
    assert outcome(tmp_path / "other", "y")["y.npy"] == whole(again)["y.npy"]


@pytest.mark.parametrize(
    ("mode", "memory", "more"),
    [
        ("batch", "8900KiB", ("--method", "robust", "--quantiles", "10,90")),
        ("instance", "6200KiB", ("--method", "robust")),
        ("instance", "9300KiB", ("--method", "lp", "--p", "3")),
        ("batch", "9300KiB", ("--method", "lp", "--p", "1")),
    ],
)
@pytest.mark.parametrize("command", ["fit", "apply"])
def test_quantiles_and_norms_are_continued(
    forks: Forks, inputs, tmp_path, whole, command, mode, memory, more
):
    output = "y.npz" if command == "fit" else "y.npy"
    name = str(inputs / "x.npy")
    given = [command, name, "-o", output, "--memory", memory, "-j", "1", "--mode", mode, *more]
    faulty = forks.run(
        *given, cwd=tmp_path, at=3, signal=9, match="journal", ops="write", delay=20000
    )
    assert faulty.code == -9
    ended = forks.run(*given, cwd=tmp_path)
    assert (ended.code, "continuing: " in ended.err) == (0, True), ended.err
    if command == "apply":
        assert (tmp_path / output).read_bytes() == whole(given)[output]
        return
    (tmp_path / "whole").mkdir()
    assert forks.run(*given, cwd=tmp_path / "whole").code == 0
    with np.load(tmp_path / output) as found, np.load(tmp_path / "whole" / output) as want:
        names = set(want) - {"normcli"}
        assert set(found) - {"normcli"} == names
        # Groups of so few elements have sketches that keep them all: the same bits again.
        for array in names:
            assert found[array].tobytes() == want[array].tobytes(), array


@pytest.mark.parametrize("base", [0, 17 * 10**17])
def test_sketches_of_many_elements_are_continued(forks: Forks, tmp_path, base):
    x = np.random.default_rng(2).normal(size=(400_000, 2)).astype("f4")
    if base:
        # Nanoseconds since 1970, of one millisecond.
        x = np.rint(x * 1e6).astype("i8")
    np.save(tmp_path / "in.npy", x + base if base else x)
    given = ["fit", "in.npy", "-o", "y.npz", "--layout", "NC", "--method", "robust"]
    given += ["--memory", "45MiB", "-j", "2"]
    faulty = forks.run(
        *given, cwd=tmp_path, at=3, signal=9, match="journal", ops="write", delay=20000
    )
    assert faulty.code == -9
    ended = forks.run(*given, cwd=tmp_path)
    assert ended.code == 0, ended.err
    with np.load(tmp_path / "y.npz") as found:
        np.testing.assert_array_equal(found["count"], 400_000)
        np.testing.assert_array_equal(found["maximum"], (x.max(0) + base).astype("f8"))
        assert 0 < found["rank_error"][0] < 1e-4
        for name, point in (("lower", 0.25), ("center", 0.5), ("upper", 0.75)):
            quantile = found[name] - base
            if base:
                quantile = (found[name].astype("i8") - base) + found[f"{name}_rest"]
            ranks = (x <= quantile).mean(0)
            assert np.all(np.abs(ranks - point) <= 2 * found["rank_error"])


def test_restart_begins_afresh(forks: Forks, inputs, tmp_path, whole):
    command = interrupted(forks, inputs, tmp_path)
    ended = forks.run(*command, "--restart", cwd=tmp_path)
    assert ended.code == 0
    assert "continuing" not in ended.err
    assert outcome(tmp_path, "y") == whole(apply_command(inputs, "x.npy"))


def test_more_workers_and_another_budget_continue(forks: Forks, inputs, tmp_path, whole):
    command = interrupted(forks, inputs, tmp_path)
    ended = forks.run(*with_workers(command, 2), cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "continuing: " in ended.err
    assert outcome(tmp_path, "y") == whole(apply_command(inputs, "x.npy"))


def test_too_small_a_budget_for_the_blocks_begun_is_refused(forks: Forks, inputs, tmp_path):
    command = interrupted(forks, inputs, tmp_path)
    at = command.index("--memory")
    ended = forks.run(*command[:at], "--memory", "4100KiB", *command[at + 2 :], cwd=tmp_path)
    assert ended.code == 2
    assert "was planned for blocks that need" in ended.err
    assert "--restart" in ended.err


def test_clean_lists_and_removes(forks: Forks, inputs, tmp_path):
    interrupted(forks, inputs, tmp_path)
    listed = forks.run("clean", "--dry-run", "y.npy", cwd=tmp_path)
    assert listed.code == 0
    assert ".y.npy.normcli-work" in listed.out
    assert "would be removed" in listed.out
    assert hidden(tmp_path) == [".y.npy.normcli-work"]
    assert forks.run("clean", ".", cwd=tmp_path).code == 0
    assert hidden(tmp_path) == []
    again = forks.run("clean", "y.npy", cwd=tmp_path)
    assert (again.code, again.out) == (0, "")
    assert "nothing was left" in again.err
