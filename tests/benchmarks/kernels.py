"""Kernels beside numpy, torch and the memory bus: figures K1 to K5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from normcli.domain.affine import Affine
from normcli.domain.geometry import Geometry, bind
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.domain.statistics import pooled_estimate
from normcli.domain.transform import forward, normalizer
from normcli.domain.usability import require_usable
from normcli.engine.tables import normalizer_of
from normcli.kernels.normalizing import Recipe
from normcli.kernels.select import kernels
from tests.benchmarks.harness import Comparison, Scale, Work

BLOCK = 16 << 20


def comparisons(scale: Scale) -> Iterator[Comparison]:
    """Yield the comparisons of kernels."""
    yield from _measuring(scale)
    yield from _channels_last(scale)
    yield from _applying(scale)
    yield from _fused(scale)
    yield from _narrow_types(scale)


def in_threads(scale: Scale, parts: list[Any], work: Callable[[Any], Any]) -> Work:
    """Return a call that does `work` on every part, on the threads of `scale`."""

    def call() -> None:
        with ThreadPoolExecutor(scale.threads) as pool:
            list(pool.map(work, parts))

    return call


def split(array: np.ndarray) -> list[np.ndarray]:
    """Cut an array along its first axis into blocks of about 16 MiB."""
    rows = max(1, BLOCK // max(1, array.nbytes // len(array)))
    return [array[i : i + rows] for i in range(0, len(array), rows)]


def _measure_all(array: np.ndarray, geometry: Geometry, scale: Scale) -> Work:
    compute = kernels("numba")
    origin = (0,) * array.ndim
    compute.measure(array[:1], geometry, origin)
    return in_threads(scale, split(array), lambda part: compute.measure(part, geometry, origin))


def _copy(part: np.ndarray) -> None:
    # Not np.copy itself: the pool would keep all copies, whose memory is new to the process each
    # time (18 GB/s, where a block that is let go of and taken again is copied at 39).
    np.copy(part)


def _numpy_float64(part: np.ndarray, axes: tuple[int, ...]) -> None:
    np.mean(part, axis=axes, dtype=np.float64)
    np.var(part, axis=axes, dtype=np.float64)


def _images(scale: Scale, dtype: str = "float32") -> np.ndarray:
    size = max(4, scale.nbytes // (8 * 64 * 64 * np.dtype(dtype).itemsize))
    values = np.random.default_rng(0).standard_normal((64, 8, 64, 64), dtype=np.float32)
    values = (values * 20 + 50).astype(dtype)
    return np.concatenate([values] * -(-size // 64))[:size]


def _sum(scale: Scale, array: np.ndarray) -> Work:
    return in_threads(scale, split(array), np.sum)


def _measuring(scale: Scale) -> Iterator[Comparison]:
    x = _images(scale)
    geometry = _geometry("NCHW", x, "batch")
    ours = _measure_all(x, geometry, scale)
    work = "measure, NCHW float32"
    yield Comparison("K1", work, ours, "np.sum", _sum(scale, x), 0.6, x.nbytes)
    numpy = in_threads(scale, split(x), lambda part: _numpy_float64(part, (0, 2, 3)))
    yield Comparison("K1", work, ours, "numpy mean+var, float64", numpy, 8, x.nbytes)
    torch = _torch()
    if torch is not None:
        tensor = torch.from_numpy(x)

        def peer() -> None:
            torch.var_mean(tensor, dim=(0, 2, 3))

        yield Comparison("K1", work, ours, "torch var_mean", peer, 8, x.nbytes)


def _channels_last(scale: Scale) -> Iterator[Comparison]:
    base = _images(scale).reshape(-1)
    for channels in (3, 8, 64, 1024):
        x = base[: base.size // channels * channels].reshape(-1, channels)
        ours = _measure_all(x, _geometry("NC", x, "batch"), scale)
        work = f"measure, channels last, C = {channels}"
        yield Comparison("K2", work, ours, "np.sum", _sum(scale, x), 0.4, x.nbytes)


def _applying(scale: Scale) -> Iterator[Comparison]:
    x = _images(scale)
    geometry = _geometry("NCHW", x, "batch")
    compute = kernels("numba")
    spec = make_spec(Layout("NCHW"), x.dtype)
    moments = compute.finish(compute.measure(x[:64], geometry, (0, 0, 0, 0)))
    mean, variance = pooled_estimate(moments, spec)
    transform = forward(normalizer(spec, mean, variance, np.zeros(8, bool)), Affine())

    def apply(part: np.ndarray) -> None:
        compute.transform(part, transform, geometry, (0, 0, 0, 0), x.dtype)

    apply(x[:1])
    ours = in_threads(scale, split(x), apply)
    # Both sides write into new memory for each block and let go of it, as a run does.
    copy = in_threads(scale, split(x), _copy)
    work = "apply, float32 to float32"
    yield Comparison("K3", work, ours, "memcpy", copy, 0.85, 2 * x.nbytes)
    torch = _torch()
    if torch is not None:
        tensor = torch.from_numpy(x)
        running = (torch.from_numpy(mean).float(), torch.from_numpy(variance).float())

        def peer() -> None:
            torch.nn.functional.batch_norm(tensor, *running)

        yield Comparison("K3", work, ours, "torch batch_norm", peer, 3, 2 * x.nbytes)


def _fused(scale: Scale) -> Iterator[Comparison]:
    x = _images(scale)
    compute = kernels("numba")
    torch = _torch()
    for mode, layout, view in (
        ("instance", "NCHW", x),
        ("layer", "NC", x.reshape(-1, 1024)),
        ("layer", "NCHW", x),
    ):
        aggregate = "CHW" if layout == "NCHW" and mode == "layer" else None
        spec = make_spec(Layout(layout), x.dtype, mode=mode, aggregate=aggregate)
        geometry = bind(spec, view.shape)
        start = (0,) * view.ndim

        def fused(
            part: np.ndarray,
            spec: Any = spec,
            geometry: Geometry = geometry,
            start: tuple[int, ...] = start,
        ) -> None:
            fold = partial(_fold, spec, part.dtype)
            recipe = Recipe(spec, geometry, Affine(), part.dtype, part.dtype, fold)
            assert compute.normalize(part, recipe, start) is not None

        fused(view[:1])
        ours = in_threads(scale, split(view), fused)
        copy = in_threads(scale, split(view), _copy)
        over = {"instance": "HW of NCHW", "layer": "the last axis"}[mode]
        over = "all but N" if aggregate else over
        work = f"measure and apply, {mode}, {over}"
        yield Comparison("K4", work, ours, "memcpy", copy, 0.5, 2 * view.nbytes)
        if torch is not None:
            tensor = torch.from_numpy(view)

            def peer(tensor: Any = tensor, mode: str = mode) -> None:
                functional = torch.nn.functional
                if mode == "instance":
                    functional.instance_norm(tensor)
                else:
                    functional.layer_norm(tensor, tuple(tensor.shape[1:]))

            name = f"torch {mode}_norm"
            yield Comparison("K4", work, ours, name, peer, 5, 2 * view.nbytes)


def _fold(spec: Any, dtype: np.dtype, moments: Any) -> Any:
    require_usable(moments, spec, dtype, "the array")
    return normalizer_of(moments, spec, dtype)


def _narrow_types(scale: Scale) -> Iterator[Comparison]:
    for dtype in ("uint8", "int16", "int32", "float16"):
        x = _images(scale, dtype)
        ours = _measure_all(x, _geometry("NCHW", x, "batch"), scale)
        # As many bytes of float32, which is what np.sum reads fastest.
        work = f"measure, NCHW {dtype}"
        peer = "np.sum of as many bytes"
        yield Comparison("K5", work, ours, peer, _sum(scale, _images(scale)), 0.35, x.nbytes)


def _geometry(layout: str, x: np.ndarray, mode: str) -> Geometry:
    return bind(make_spec(Layout(layout), x.dtype, mode=mode), x.shape)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(2)
    return torch
