"""What is looked at before anything is read: versions, files, folders, memory, exposure."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr

import normcli
from normcli.errors import InputError, TransientError, UsageError
from tests.cli.terminal import run

pytest.importorskip("distributed")

from .processes import Cluster, cluster

X = np.random.default_rng(78).normal(5, 3, (32, 4, 64, 64)).astype("f4")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "x.npy", X)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """One scheduler for all tests, without workers."""
    with cluster(tmp_path_factory.mktemp("cluster"), 0) as made:
        yield made


@pytest.fixture
def lone(scheduler: Cluster):
    """A scheduler whose workers each test starts."""
    yield scheduler
    scheduler.end_workers()


def own_mounts(script: str) -> tuple[str, ...]:
    """Return what starts a process with file systems of its own, as on another node."""
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"]).returncode:
        pytest.skip("mount namespaces are not allowed here")
    return (*prefix, f'{script} && exec "$@"', "sh")


def test_another_version_is_refused(lone: Cluster, data, tmp_path):
    other = tmp_path / "other-environment"
    shutil.copytree(Path(normcli.__file__).parent, other / "normcli")
    about = other / "normcli-9.9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: normcli\nVersion: 9.9.9\n")
    lone.start_worker(PYTHONPATH=str(other))
    lone.wait_for_workers(1)
    with pytest.raises(TransientError) as caught:
        normcli.fit(data / "x.npy", layout="NCHW", scheduler_file=str(lone.file))
    message = caught.value.message
    assert "The worker tcp://127.0.0.1:" in message
    assert f"has version 9.9.9 of normcli, but this process has {normcli.__version__}" in message
    assert "same environment" in caught.value.hint


@pytest.mark.parametrize("change", ["gone", "size", "time"])
def test_another_input_is_refused(lone: Cluster, data, tmp_path, change):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if change == "size":
        np.save(hidden / "x.npy", X[:5])
    elif change == "time":
        shutil.copy(data / "x.npy", hidden)
        os.utime(hidden / "x.npy", (1, 1))
    lone.start_worker(prefix=own_mounts(f"mount --bind {hidden} {data}"))
    lone.wait_for_workers(1)
    with pytest.raises(InputError) as caught:
        normcli.fit(data / "x.npy", layout="NCHW", scheduler_file=str(lone.file))
    message = caught.value.message
    assert "The worker tcp://127.0.0.1:" in message
    assert socket.gethostname() in message
    assert str(data / "x.npy") in message
    said = {"gone": "cannot see", "size": "its size is", "time": "its mtime_ns is"}
    assert said[change] in message
    assert caught.value.hint


def test_a_zarr_input_is_compared_by_its_documents(lone: Cluster, data, tmp_path):
    zarr.create_array(data / "x.zarr", data=X, chunks=(4, 4, 64, 64))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    lone.start_worker(prefix=own_mounts(f"mount --bind {hidden} {data}"))
    lone.start_worker()
    lone.wait_for_workers(2)
    with pytest.raises(InputError, match=r"x\.zarr") as caught:
        normcli.fit(data / "x.zarr", layout="NCHW", scheduler_file=str(lone.file))
    assert "cannot see" in caught.value.message
    assert names(data) == ["x.npy", "x.zarr"]


@pytest.mark.parametrize("output", ["y.npy", "y.zarr"])
@pytest.mark.parametrize("kind", [pytest.param("elsewhere", marks=pytest.mark.slow), "read-only"])
def test_an_output_folder_that_workers_do_not_share(lone: Cluster, data, tmp_path, kind, output):
    place, hidden = tmp_path / "out", tmp_path / "hidden"
    place.mkdir()
    hidden.mkdir()
    mount = f"mount --bind {hidden} {place}"
    if kind == "read-only":
        mount = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
    lone.start_worker(prefix=own_mounts(mount))
    lone.wait_for_workers(1)
    with pytest.raises(InputError) as caught:
        normcli.apply(
            *(data / "x.npy", place / output), mode="instance", scheduler_file=str(lone.file)
        )
    reason = "there is no such folder" if kind == "elsewhere" else "Read-only file system"
    assert f"cannot write to {place}" in caught.value.message
    assert reason in caught.value.message
    assert "The worker tcp://127.0.0.1:" in caught.value.message
    assert names(place) == []
    assert names(hidden) == []


def test_nothing_is_left_of_the_probes(lone: Cluster, data):
    lone.start_worker()
    lone.start_worker()
    lone.wait_for_workers(2)
    command = ["apply", data / "x.npy", "-o", data / "y.npy", "--layout", "NCHW"]
    command += ["--scheduler-file", lone.file]
    assert run(*command, "--dry-run").code == 0
    assert names(data) == ["x.npy"]
    assert run(*command).code == 0
    assert names(data) == ["x.npy", "y.npy", "y.npy.manifest.jsonl", "y.npy.stats.json"]


@pytest.mark.slow
def test_the_memory_limit_of_workers_is_the_budget(lone: Cluster, data):
    big = data / "big.npy"
    values = np.random.default_rng(1).normal(3, 2, (96, 4, 512, 512)).astype("f4")  # 384 MiB
    np.save(big, values)
    lone.start_worker("--memory-limit", "300MB", nanny=True)
    lone.wait_for_workers(1)
    before = [process.pid for process in lone.worker_processes()]
    output = data / "y.npy"
    ended = run(
        *("apply", big, "-o", output, "--layout", "NCHW", "--memory", "2GiB", "--json"),
        *("--scheduler-file", lone.file),
    )
    assert ended.code == 0, ended.err
    plan = json.loads(ended.text)["plan"]
    assert plan["peak_memory"] <= plan["memory_budget"] < 0.9 * 300e6
    assert "the smallest worker has" in ended.err
    assert [process.pid for process in lone.worker_processes()] == before
    assert "restarting" not in lone.log().lower()
    expected = (values[7, 2] - values[:, 2].mean(dtype="f8")) / values[:, 2].std(dtype="f8")
    written = np.load(output, mmap_mode="r")
    np.testing.assert_allclose(written[7, 2], expected, atol=1e-5)
    del written


@pytest.mark.slow
def test_fewer_blocks_at_once_than_threads(lone: Cluster, data):
    lone.start_worker("--nthreads", "8")
    lone.wait_for_workers(1)
    for workers, expected in ((None, 8), (3, 3)):
        options = [] if workers is None else ["-j", workers]
        ended = run(
            *("fit", data / "x.npy", "--layout", "NCHW", "--momentum", 0.9, "--batch-size", 1),
            *("--memory", "1GiB", "--json", "--scheduler-file", lone.file, *options),
        )
        assert ended.code == 0, ended.err
        plan = json.loads(ended.text)["plan"]
        assert plan["workers"] <= expected


def test_memory_that_no_block_fits(lone: Cluster, data):
    lone.start_worker("--memory-limit", "60MB", DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE="False")
    lone.wait_for_workers(1)
    with pytest.raises(UsageError) as caught:
        normcli.fit(data / "x.npy", layout="NCHW", scheduler_file=str(lone.file))
    assert "memory" in caught.value.message


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation; nothing is sent
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("this machine has no other address than loopback")
    return address


@pytest.mark.slow
def test_plain_tcp_on_the_network_is_refused(data, tmp_path):
    host = own_address()
    made = Cluster(tmp_path / "cluster")
    try:
        made.start_scheduler("--host", host)
        made.start_worker("--host", host)
        made.wait_for_workers(1)
        command = ["fit", data / "x.npy", "--layout", "NCHW", "--json"]
        refused = run(*command, "--scheduler-file", made.file)
        allowed = run(*command, "--scheduler-file", made.file, "--insecure")
    finally:
        made.close()
    assert refused.code == 4, refused.err
    assert f"The dask scheduler at tcp://{host}:" in refused.err
    assert "--insecure" in refused.err
    assert allowed.code == 0, allowed.err
    assert "warning" not in allowed.err


@pytest.mark.slow
def test_tls_by_dasks_own_configuration(data, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    host = own_address()
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=normcli"),
        ],
        check=True,
        capture_output=True,
    )
    tls = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(certificate)
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(key)
    tls["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(certificate)
    made = Cluster(tmp_path / "cluster")
    try:
        made.start_scheduler("--host", host, "--protocol", "tls", **tls)
        made.start_worker("--host", host, "--protocol", "tls", **tls)
        fit = ("fit", data / "x.npy", "--layout", "NCHW", "--json")
        ended = run(*fit, "--scheduler-file", made.file, **tls)
        assert ended.code == 0, ended.err
        assert "warning" not in ended.err
        assert json.loads(ended.text)["report"]["count"] == X.size
        assert json.loads(made.file.read_text())["address"].startswith("tls://")
        refused = run(*fit, "--scheduler-file", made.file)
        assert refused.code == 2, refused.err
        assert "wants TLS" in refused.err
    finally:
        made.close()
