"""The numbers of real frameworks, through files, fit and apply. See tests/references/README.md."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normcli
from normcli.domain.conventions import CONVENTIONS, convention
from normcli.domain.layout import Layout
from normcli.domain.methods import DIVISORS
from normcli.domain.presets import make_spec
from normcli.domain.statistics import SourceDescription, Statistics
from tests.examples import thirds

REFERENCES = Path(__file__).parent.parent / "references"

# What normcli cannot say, and why.
CANNOT = {
    "torch_batch/nchw_cumulative_uneven_training": "--training takes one batch size, not 3, 1, 6",
    "keras/batch_ntc_m06_plain_training": "--training takes one batch size, not 3, 5, 2",
    "sklearn/constant_close": "without --convention sklearn, a column that varies is not called "
    "constant because of an error bound",
}


def _listed() -> dict[str, dict[str, Any]]:
    listed = json.loads((REFERENCES / "cases.json").read_text())
    rows = [listed["defaults"] | row for row in listed["cases"]]
    return {f"{row['file'].removesuffix('.npz')}/{row['case']}": row for row in rows}


CASES = _listed()
SOFT = [name for name, case in CASES.items() if case["family"] != "hard" and name not in CANNOT]
HARD = [name for name, case in CASES.items() if case["family"] == "hard"]


class Case:
    """One case, with its input and parameters written where normcli reads them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.row, self.folder = CASES[name], folder
        with np.load(REFERENCES / self.row["file"], allow_pickle=False) as archive:
            self.arrays = {key: archive[f"{self.row['case']}/{key}"] for key in self.row["arrays"]}
        self.input = self.write("input")
        self.known = {key: self.write(key) for key in ("scale", "bias") if key in self.arrays}

    def write(self, key: str) -> str:
        path = self.folder / f"{key}.npy"
        np.save(path, self.arrays[key])
        return str(path)

    @property
    def axes(self) -> dict[str, Any]:
        row = self.row
        options = {"layout": row["layout"], "mode": row["mode"], "method": row["method"]}
        if row["mode"] == "layer":
            options["aggregate"] = ",".join(map(str, row["aggregate"]))
        if row["range"]:
            options["range"] = tuple(row["range"])
        if row["groups"]:
            options |= {"groups": row["groups"], "group_axis": str(row["group_axis"])}
        if row["nonfinite"] == "omit":
            options["nonfinite"] = "omit"
        return options

    @property
    def formula(self) -> dict[str, Any]:
        row = self.row
        if row["method"] in DIVISORS:
            return {}
        return {"epsilon": row["epsilon"], "epsilon_placement": row["epsilon_placement"]}

    @property
    def batches(self) -> list[int]:
        return self.row["batch_sizes"]

    @property
    def moving(self) -> bool:
        return bool(self.batches) and "running_mean" in self.arrays

    def momentum(self) -> dict[str, Any]:
        """Return the options of the moving statistics, with the weight of the old value."""
        row, stated = self.row, self.row["momentum"]
        fed = {"moving_variance": row["moving_variance"], **self.formula}
        if row["mode"] == "instance":  # torch alone keeps those of instances
            return {"momentum": stated, "convention": "torch", **fed}
        torch = row["convention"] == "torch"
        return {"momentum": 1 - stated if torch and stated != "cumulative" else stated, **fed}

    def fit_moving(self, **options: Any) -> normcli.FittedStatistics:
        if "start_mean" in self.arrays:
            options["moving_start"] = str(self.start())
        return normcli.fit(self.input, batch_size=tuple(self.batches), **self.axes, **options)

    def start(self) -> Path:
        path = self.folder / "start.json"
        spec = make_spec(Layout(self.row["layout"]), np.dtype("f4"))
        source = SourceDescription(self.arrays["input"].shape, np.dtype("f4"))
        given = tuple(self.arrays[key].astype("f8") for key in ("start_mean", "start_var"))
        normcli.FittedStatistics(Statistics(spec, source, None, given=given)).save(path)
        return path

    def apply(self, **options: Any) -> np.ndarray:
        """Apply with the statistics that the case says, and everything else from `options`."""
        row = self.row
        output = self.folder / "output.npy"
        if row["estimate"] == "moving" and not self.batches:
            options["mean"], options["variance"] = (
                self.write("running_mean"),
                self.write("running_var"),
            )
        elif row["estimate"] == "input" and self.batches:
            options |= {"training": True, "batch_size": self.batches[0]}
        if "stats" not in options:
            options |= self.axes
        stats_out = self.folder / "statistics.json"
        normcli.apply(
            self.input, output, stats_out=stats_out, overwrite=True, **self.known, **options
        )
        return np.load(output)

    def measured(self) -> normcli.FittedStatistics:
        return normcli.read_statistics(self.folder / "statistics.json")


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("name", SOFT)
def test_the_numbers_of_a_framework(name, tmp_path):
    case = Case(name, tmp_path)
    arrays, settings = case.arrays, case.formula
    if case.moving:
        fitted = case.fit_moving(**case.momentum())
        close(fitted.moving_mean, arrays["running_mean"])
        close(fitted.moving_variance, arrays["running_var"])
        assert fitted.statistics.moving.batches == len(case.batches)
        if case.row["estimate"] == "moving":
            settings = {"stats": fitted}
    close(case.apply(dtype="float64", **settings), arrays["output"])
    measured = case.measured()
    if "mean_square" in arrays:
        close(measured.statistics.moments.mean_square(), arrays["mean_square"])
    elif "mean" in arrays:
        close(measured.mean, arrays["mean"])
        if "variance" in arrays:
            close(measured.variance, arrays["variance"])
    if "invstd" in arrays:
        close(1 / np.sqrt(measured.variance + case.row["epsilon"]), arrays["invstd"])
    if "count" in arrays:
        assert np.all(measured.count == arrays["count"])


@pytest.mark.parametrize(
    "name", thirds(name for name in SOFT if "output_native" in CASES[name]["arrays"])
)
def test_the_precision_of_the_input(name, tmp_path):
    case = Case(name, tmp_path)
    settings = case.formula
    if case.moving and case.row["estimate"] == "moving":
        fitted = case.fit_moving(**case.momentum())
        for key, own in (
            ("running_mean_native", fitted.moving_mean),
            ("running_var_native", fitted.moving_variance),
        ):
            close(own, case.arrays[key], 2e-4)
        settings = {"stats": fitted}
    output, native = case.apply(**settings), case.arrays["output_native"]
    kind = case.arrays["input"].dtype
    if kind.kind == "f":
        assert output.dtype == kind
    close(output.astype("f8"), native.astype("f8"), 2e-2 if kind == np.float16 else 2e-4)
    # Ours is the exact result rounded once: within one unit in the last place.
    exact = case.arrays["output"]
    unit = np.spacing(np.abs(exact).astype(output.dtype)).astype("f8")
    wrong = np.abs(output.astype("f8") - exact) > unit + 1e-12
    assert not wrong[np.isfinite(exact)].any()
    np.testing.assert_array_equal(np.isnan(output), np.isnan(exact))


def _by_defaults(name: str) -> bool:
    """Whether a case uses its framework's own epsilon, and momentum where it has one."""
    case = CASES[name]
    if case["convention"] not in CONVENTIONS:
        return False
    if case["convention"] == "sklearn":
        return True
    if case["epsilon_placement"] != "inside":
        return False
    system = convention(case["convention"])
    epsilon = system.rms_epsilon if case["method"] == "rms" else system.epsilon
    if case["method"] == "rms" and epsilon is None:
        if case["epsilon_stated"] != "None":
            return False
    elif not np.isclose(case["epsilon"], epsilon, rtol=1e-6, atol=0):
        return False
    if "running_mean" not in case["arrays"] or not case["batch_sizes"]:
        return True
    if case["momentum"] == "cumulative":
        return False
    return bool(np.isclose(case["momentum"], system.momentum, rtol=1e-6, atol=0))


DEFAULTS = [name for name in [*SOFT, "sklearn/constant_close"] if _by_defaults(name)]


@pytest.mark.parametrize("name", thirds(DEFAULTS))
def test_a_convention_alone_is_enough(name, tmp_path):
    case = Case(name, tmp_path)
    which = case.row["convention"]
    # ONNX keeps epsilon and momentum in float32, normcli takes the numbers that are meant.
    tolerance = 1e-6 if which == "onnx" else 1e-12
    settings: dict[str, Any] = {"convention": which}
    if case.moving:
        fitted = case.fit_moving(convention=which)
        close(fitted.moving_mean, case.arrays["running_mean"], tolerance)
        close(fitted.moving_variance, case.arrays["running_var"], tolerance)
        if case.row["estimate"] == "moving":
            settings = {"stats": fitted}
    close(case.apply(dtype="float64", **settings), case.arrays["output"], tolerance)


@pytest.mark.parametrize(
    "name", [n for n in SOFT if n.startswith("torch_batch") and n.endswith("_evaluation")]
)
def test_torch_states_the_weight_of_the_new_value(name, tmp_path):
    case = Case(name, tmp_path)
    fitted = case.fit_moving(momentum=case.row["momentum"], convention="torch")
    close(fitted.moving_mean, case.arrays["running_mean"])
    close(fitted.moving_variance, case.arrays["running_var"])


@pytest.mark.parametrize("name", [n for n in SOFT if n.startswith("sklearn/") and "partial" in n])
def test_several_inputs_and_updates(name, tmp_path):
    case = Case(name, tmp_path)
    edges = np.cumsum([0, *case.batches])
    parts = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        parts.append(tmp_path / f"part{i}.npy")
        np.save(parts[-1], case.arrays["input"][low:high])
    joined = normcli.fit(parts, layout="NC", epsilon=0.0)
    continued = None
    for i, part in enumerate(parts):
        path = tmp_path / f"{i}.json"
        normcli.fit(part, path, layout="NC", epsilon=0.0, update=continued)
        continued = path
    for fitted in (joined, normcli.read_statistics(continued)):
        close(fitted.mean, case.arrays["mean"])
        close(fitted.variance, case.arrays["variance"])
        assert np.all(fitted.count == case.arrays["count"])


@pytest.mark.parametrize("name", HARD)
def test_hard_values(name, tmp_path):
    case = Case(name, tmp_path)
    arrays = case.arrays
    options = {"layout": case.row["layout"], "mode": "batch", "epsilon": 0.0}
    fitted = normcli.fit(case.input, **options)
    np.testing.assert_allclose(fitted.mean, arrays["mean"], rtol=1e-12)
    # A variance below float64 is the least number above 0.
    np.testing.assert_allclose(fitted.variance, arrays["variance"], rtol=1e-12, atol=5e-324)
    np.testing.assert_allclose(fitted.std, arrays["deviation"], rtol=1e-12)
    output = tmp_path / "output.npy"
    normcli.apply(case.input, output, dtype="float64", **options)
    head = np.load(output)[: len(arrays["output_head"])]
    # A mean kept in float64 moves a z-score by up to its unit in the last place over the deviation.
    unit = np.spacing(np.abs(arrays["mean"]))
    deviation = np.where(arrays["deviation"] > 0, arrays["deviation"], np.inf)
    slack = 1e-12 * np.maximum(1, np.abs(arrays["output_head"])) + unit / deviation
    assert np.all(np.abs(head - arrays["output_head"]) <= slack)


@pytest.mark.parametrize("values", [[1e200, -1e200], [1e308, -1e308], [0.0, 1e-170]])
def test_squares_beyond_float64_are_exact(values, tmp_path):
    x = np.array(values * 8)
    np.save(tmp_path / "input.npy", x)
    normcli.apply(tmp_path / "input.npy", tmp_path / "y.npy", layout="N", epsilon=0.0)
    signs = np.sign([1, -1] * 8) * np.sign(values[0] - values[1])
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), signs)
    # Batches that are all alike have the average that each of them has.
    options = {"layout": "N", "epsilon": 0.0, "batch_size": 8}
    for more in ({"momentum": 0.1, "moving_start": "first-batch"}, {"momentum": "cumulative"}):
        fitted = normcli.fit(tmp_path / "input.npy", **options, **more)
        np.testing.assert_allclose(fitted.normalize(x), signs, rtol=1e-15)


def test_the_lists_are_not_stale():
    assert set(CANNOT) <= set(CASES)
    assert not set(CANNOT) & {name for name in CASES if CASES[name]["family"] == "hard"}
    assert len(SOFT) + len(HARD) + len(CANNOT) == len(CASES)
    assert {CASES[name]["convention"] for name in DEFAULTS} == {"torch", "keras", "onnx", "sklearn"}
    for name in CANNOT:
        if "--training" in CANNOT[name]:
            sizes = CASES[name]["batch_sizes"]
            assert len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0], f"{name} is one batch size"


def test_what_cannot_be_said_is_refused(tmp_path):
    case = Case("torch_batch/nchw_cumulative_uneven_training", tmp_path)
    with pytest.raises(normcli.errors.UsageError, match="one --batch-size"):
        normcli.apply(
            case.input, tmp_path / "y.npy", training=True, batch_size=(3, 1, 6), layout="NCHW"
        )
    case = Case("torch_instance/nchw_running", tmp_path)
    for system in (None, "keras", "wolfram", "matlab", "onnx"):
        with pytest.raises(normcli.errors.UsageError, match="batch axis that is aggregated"):
            case.fit_moving(momentum=0.9, convention=system)
    with pytest.raises(normcli.errors.UsageError, match="no plain average"):
        case.fit_moving(momentum="cumulative", convention="torch")
