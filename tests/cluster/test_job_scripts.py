"""The job scripts of docs/clusters.md, run with what SLURM sets and sends."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import zarr

import normcli

from .slurm import Slurm, begun

X = np.random.default_rng(41).normal(3, 2, (64, 4, 64, 64)).astype("f4")
SMALL = {"NORMCLI_FIT_MEMORY": "4400KiB", "NORMCLI_APPLY_MEMORY": "5MiB"}


@pytest.fixture
def slurm(tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(1, 4, 64, 64))
    made = Slurm(tmp_path)
    try:
        yield made
    finally:
        made.close()


def assert_fitted(folder: Path) -> None:
    fitted = normcli.read_statistics(folder / "stats.json")
    assert fitted.count.tolist() == [64**3] * 4
    np.testing.assert_allclose(fitted.mean, X.mean((0, 2, 3), dtype="f8"), rtol=1e-13)
    np.testing.assert_allclose(fitted.variance, X.var((0, 2, 3), dtype="f8"), rtol=1e-12)
    whole = normcli.fit(folder / "x.zarr", layout="NCHW").statistics.moments
    merged = fitted.statistics.moments
    for name in ("count", "minimum", "maximum", "nonfinite"):
        assert getattr(whole, name).tobytes() == getattr(merged, name).tobytes()


def assert_normalized(folder: Path) -> None:
    normcli.apply(folder / "x.zarr", folder / "here.npy", stats=folder / "stats.json")
    written = zarr.open_array(folder / "y.zarr", mode="r")[...]
    assert written.tobytes() == np.load(folder / "here.npy").tobytes()


def test_an_array_with_a_preempted_task_and_a_dead_node(slurm, tmp_path):
    tasks = slurm.sbatch("fit-part.sh", slow=0.2, **SMALL)
    assert sorted(tasks) == [1, 2, 3, 4]
    begun(tasks[2], "parts/2.json")
    assert tasks[2].preempt(grace=5) == 143, tasks[2].text()
    begun(tasks[3], "parts/3.json")
    tasks[3].lose_node()
    assert [tasks[number].wait() for number in (1, 4)] == [0, 0]

    # Parts are missing: the merge says which, and how to run them.
    early = slurm.sbatch("merge.sh")[0]
    assert early.wait() == 3
    assert "2 of the 4 parts of x.zarr missing: 2-3." in early.text()
    assert "--array=2-3" in early.text()
    assert not (tmp_path / "stats.json").exists()

    for number in (2, 3):
        tasks[number].requeue(SLOW="0")
    for number in (2, 3):
        assert tasks[number].wait() == 0
        text = tasks[number].text()
        assert re.search(r"continuing: [1-9]\d* of \d+ blocks were done", text), text
    assert "interrupted" in tasks[2].text() or "kept" in tasks[2].text()
    merge = slurm.sbatch("merge.sh")[0]
    assert merge.wait() == 0, merge.text()
    assert_fitted(tmp_path)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        f"{number}.json" for number in (1, 2, 3, 4)
    ]


@pytest.mark.slow
def test_failed_tasks_that_are_submitted_again_are_the_same_parts(slurm, tmp_path):
    """SLURM_ARRAY_TASK_COUNT is 2 then, but there are still 4 parts."""
    first = slurm.sbatch("fit-part.sh", array="1,4", **SMALL)
    again = slurm.sbatch("fit-part.sh", array="2-3", **SMALL)
    assert [task.wait() for task in (*first.values(), *again.values())] == [0] * 4
    # Requeued although complete: nothing to do, and nothing is changed.
    before = (tmp_path / "parts/2.json").read_bytes()
    again[2].requeue()
    assert again[2].wait() == 0
    assert (tmp_path / "parts/2.json").read_bytes() == before
    assert slurm.sbatch("merge.sh")[0].wait() == 0
    assert_fitted(tmp_path)


def test_one_job_that_is_preempted(slurm, tmp_path):
    normcli.fit(tmp_path / "x.zarr", tmp_path / "stats.json", layout="NCHW")
    job = slurm.sbatch("apply.sh", slow=0.2, **SMALL)[0]
    begun(job, "y.zarr")
    assert job.preempt(grace=5) == 143, job.text()
    assert not (tmp_path / "y.zarr").exists()
    job.requeue(SLOW="0")
    assert job.wait() == 0, job.text()
    assert re.search(r"continuing: [1-9]\d* of \d+ blocks were done", job.text()), job.text()
    assert_normalized(tmp_path)


@pytest.mark.slow
def test_scheduler_workers_and_client_in_one_job(slurm, tmp_path):
    pytest.importorskip("distributed")
    job = slurm.sbatch("dask.sh", TMPDIR=str(tmp_path), **SMALL)[0]
    assert job.wait() == 0, job.text()
    assert_fitted(tmp_path)
    assert_normalized(tmp_path)
    assert "warning" not in job.text()
    assert not list(tmp_path.glob("sched-*.json"))


@pytest.mark.slow
def test_a_dask_job_whose_node_dies_is_continued(slurm, tmp_path):
    pytest.importorskip("distributed")
    job = slurm.sbatch("dask.sh", slow=0.2, TMPDIR=str(tmp_path), **SMALL)[0]
    begun(job, "y.zarr")
    job.lose_node()
    job.requeue(SLOW="0")
    assert job.wait() == 0, job.text()
    assert re.search(r"continuing: [1-9]\d* of \d+ blocks were done", job.text()), job.text()
    assert_normalized(tmp_path)


def test_the_documentation_shows_no_option_that_does_not_exist():
    import click

    from normcli.cli.main import main

    from .slurm import DOCS

    known = {
        option
        for command in main.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    lines = re.sub(r"\\\n\s*", "", DOCS.read_text()).splitlines()
    used = {
        option
        for line in lines
        if re.search(r"(^|\s|`)normcli (fit|apply|merge) ", line)
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", line)
    }
    assert used >= {"--part", "--scheduler-file", "--layout"}
    assert used <= known, used - known
