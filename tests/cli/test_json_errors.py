"""--json-errors: what failed, for machines; and what is told of very long names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.cli.terminal import NORMCLI, Ended, call, environment, npy, run

FIELDS = {"error", "hint", "exit_code", "kind", "file"}


def objects(ended: Ended) -> list[dict]:
    return [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]


def the_error(ended: Ended) -> dict:
    (found,) = [line for line in objects(ended) if "error" in line]
    assert set(found) == FIELDS
    assert found["exit_code"] == ended.code
    assert "normcli: error" not in ended.err
    assert "Hint: " not in ended.err
    return found


CASES = [
    (2, "UsageError", ["apply", "x.npy", "-o", "y.npy", "--mode", "group"], "--groups"),
    (2, "UsageError", ["apply", "x.npy", "-o", "y.npy", "--layuot", "NC"], "--layuot"),
    (2, "UsageError", ["apply", "x.npy"], "--output"),
    (2, "UsageError", ["fit", "x.npy", "-o", "s.json", "--ddof", "7"], "ddof"),
    (2, "PlanError", ["apply", "x.npy", "-o", "y.npy", "--memory", "1KiB"], "budget"),
    (3, "InputError", ["fit", "missing.npy", "-o", "s.json"], "missing.npy"),
    (4, "SafetyError", ["fit", "pickle.npy", "-o", "s.json"], "pickle"),
    (5, "OutputError", ["apply", "x.npy", "-o", "no/such/y.npy"], "no/such"),
    (7, "DataPolicyError", ["apply", "nan.npy", "-o", "y.npy", "--nonfinite", "error"], "1 NaN"),
    (7, "DataPolicyError", ["check", "s1.json", "other.npy"], "does not fit"),
    (7, "DataPolicyError", ["verify", "damaged.npy"], "damaged.npy"),
]


@pytest.fixture
def files(folder):
    np.save("nan.npy", np.array([[1, np.nan], [2, 3.0]]))
    np.save("pickle.npy", np.array([{}], object), allow_pickle=True)
    np.save("other.npy", np.zeros((4, 9)))
    assert call("fit", "x.npy", "-o", "s1.json", "-q").code == 0
    assert call("apply", "x.npy", "-o", "damaged.npy", "-q").code == 0
    with open("damaged.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    return folder


@pytest.mark.parametrize(("code", "kind", "arguments", "word"), CASES)
def test_every_kind(files, code, kind, arguments, word):
    ended = call(*arguments, "--json-errors")
    assert ended.code == code, ended.err
    found = the_error(ended)
    assert found["kind"] == kind
    assert word in found["error"]
    assert ended.err.isascii()


def test_before_the_command_and_by_variables(folder):
    for ended in (
        call("--json-errors", "fit", "missing.npy", "-o", "s.json"),
        call("fit", "missing.npy", "-o", "s.json", NORMCLI_JSON_ERRORS="1"),
        call("fit", "missing.npy", "-o", "s.json", NORMCLI_FIT_JSON_ERRORS="true"),
        call("fit", "missing.npy", "-o", "s.json", "--frob", NORMCLI_FIT_JSON_ERRORS="1"),
        call("--json-errors", "frob"),
    ):
        assert the_error(ended)["exit_code"] in (2, 3)
    plain = call("fit", "missing.npy", "-o", "s.json", NORMCLI_JSON_ERRORS="0")
    assert plain.err.startswith("normcli: error: missing.npy")
    assert call("fit", "-o", "s.json", "--", "--json-errors").err.startswith("normcli: error: ")


def test_the_file_that_an_error_begins_with(files):
    for arguments, file in (
        (["fit", "missing.npy", "-o", "s.json"], "missing.npy"),
        (["fit", "./missing.npy", "-o", "s.json"], "missing.npy"),
        (["apply", "x.npy", "-o", "y.npy", "--stats=no.json"], "no.json"),
        (["apply", "x.npy", "-o", "y.npy", "--ddof", "7"], None),
    ):
        assert the_error(call(*arguments, "--json-errors"))["file"] == file


def test_warnings(folder):
    np.save("flat.npy", np.ones((4, 2)))
    ended = call("apply", "flat.npy", "-o", "y.npy", "--json-errors")
    assert ended.code == 0
    (found,) = objects(ended)
    assert set(found) == {"warning", "hint"}
    assert "constant" in found["warning"]
    assert objects(call("apply", "flat.npy", "-o", "z.npy", "--json-errors", "-q")) == []


def test_several_inputs_have_an_object_each(folder):
    ended = call("apply", "x.npy", "no.npy", "not.npy", "-o", "out", "--json-errors", "-q")
    assert ended.code == 8
    found = [(o["file"], o["exit_code"], o["kind"]) for o in objects(ended)]
    assert found == [("no.npy", 3, "InputError"), ("not.npy", 3, "InputError")]


def test_names_are_escaped_and_secrets_masked(folder):
    ended = call("fit", "s3://key:secret@bucket/\x1b[31mx.npy", "-o", "s.json", "--json-errors")
    assert "secret" not in ended.err
    assert "\x1b" not in ended.err
    assert "\x1b[31m" in the_error(ended)["error"]


def test_a_signal(folder):
    process = subprocess.Popen(
        [NORMCLI, "fit", "-", "-o", "s.json", "--json-errors"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=folder,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(npy(np.zeros((1000, 1000)))[:1000])
    process.stdin.flush()
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    found = the_error(Ended(process.returncode, b"", err.decode()))
    assert (found["kind"], found["exit_code"]) == ("Stopped", 143)


@pytest.mark.parametrize("words", [100_000 * "x", 50_000 * "y "])
def test_long_arguments_are_shortened_on_screen(folder, words):
    for arguments in (
        ("fit", f"{words}.npy", "-o", "s.json"),
        ("fit", "x.npy", "-o", f"{words}.json"),
        ("fit", "x.npy", "-o", "s.json", "--layout", words),
        ("fit", "x.npy", "-o", "s.json", "--mode", words),
        (words,),
    ):
        ended = call(*arguments)
        assert ended.code in (2, 3, 5)
        assert max(map(len, ended.err.splitlines())) < 4000, ended.err[:300]
        assert "characters) …" in ended.err
    # Whole paths stay.
    path = "/".join(["d" * 200] * 4) + "/x.npy"
    assert path in call("fit", path, "-o", "s.json").err


def test_it_is_the_same_for_a_process(folder):
    ended = run("fit", "missing.npy", "-o", "s.json", "--json-errors", cwd=folder)
    assert the_error(ended)["kind"] == "InputError"
