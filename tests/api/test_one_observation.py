"""One observation without its batch axis, normalized by the statistics of a dataset."""

from __future__ import annotations

import numpy as np
import pytest

import normcli
from normcli.errors import InputError, UsageError
from tests.examples import pairs

from .stores import load, store, suffix

X = np.random.default_rng(6).normal(2, 3, (7, 3, 9, 5)).astype("f4")
AFFINE = {"scale": np.array([2.0, -1.0, 0.5]), "bias": np.array([1.0, 0.0, -3.0])}


@pytest.mark.parametrize(
    ("order", "storage"), pairs(["NCHW", "CHNW", "HWCN"], ["npy", "h5-chunked", "zarr3"])
)
def test_it_is_normalized_as_in_its_batch(tmp_path, order, storage):
    turned = np.ascontiguousarray(X.transpose(["NCHW".index(letter) for letter in order]))
    place, example = order.index("N"), order.replace("N", "")
    for name, values in AFFINE.items():
        np.save(tmp_path / f"{name}.npy", values)
    given = {name: tmp_path / f"{name}.npy" for name in AFFINE}
    whole = store(tmp_path, "x", turned, storage, tuple(max(1, n // 2) for n in turned.shape))
    normcli.fit(whole, tmp_path / "s.json", layout=order, momentum=0.5, batch_size=3)
    for estimate in ("pooled", "moving"):
        options = {"stats": tmp_path / "s.json", "estimate": estimate, "overwrite": True, **given}
        output = tmp_path / f"y{suffix(storage)}"
        normcli.apply(whole, output, **options)
        batch = load(str(output))
        alone = np.take(turned, 4, axis=place)
        single = store(
            tmp_path, f"one-{estimate}", alone, storage, tuple(max(1, n // 2) for n in alone.shape)
        )
        result = tmp_path / f"z{suffix(storage)}"
        normcli.apply(single, result, layout=example, num_channels=3, **options)
        made = load(str(result))
        np.testing.assert_array_equal(made, np.take(batch, 4, axis=place))
    # Its sidecar is that of the dataset, so it undoes itself and normalizes batches too.
    sidecar = f"{result}.stats.json"
    normcli.apply(
        str(result),
        tmp_path / "back.npy",
        stats=sidecar,
        layout=example,
        inverse=True,
        estimate="moving",
        dtype="float64",
    )
    np.testing.assert_allclose(np.load(tmp_path / "back.npy"), alone, rtol=1e-5, atol=1e-5)
    normcli.apply(whole, output, stats=sidecar, estimate="moving", overwrite=True)
    np.testing.assert_array_equal(load(str(output)), batch)


def test_vectors(tmp_path):
    np.save(tmp_path / "x.npy", X[:, :, 0, 0])
    np.save(tmp_path / "one.npy", X[3, :, 0, 0])
    fitted = normcli.fit(tmp_path / "x.npy", layout="NC")
    normcli.apply(tmp_path / "one.npy", tmp_path / "y.npy", stats=fitted, layout="C")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), fitted.normalize(X[:, :, 0, 0])[3])


def test_it_has_to_be_said(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "one.npy", X[0])
    np.save(tmp_path / "four.npy", np.zeros((4, 9, 5), "f4"))
    fitted = normcli.fit(tmp_path / "x.npy", layout="NCHW")
    with pytest.raises(UsageError, match="is for 4 axes") as caught:
        normcli.apply(tmp_path / "one.npy", tmp_path / "y.npy", stats=fitted)
    assert "--layout CHW" in caught.value.hint
    for layout in ("HWC", "NHW"):
        with pytest.raises(UsageError):
            normcli.apply(tmp_path / "one.npy", tmp_path / "y.npy", stats=fitted, layout=layout)
    with pytest.raises(InputError, match=r"\(3,\).*\(4,\)"):
        normcli.apply(tmp_path / "four.npy", tmp_path / "y.npy", stats=fitted, layout="CHW")
    with pytest.raises(InputError, match="says 4"):
        normcli.apply(
            tmp_path / "one.npy", tmp_path / "y.npy", stats=fitted, layout="CHW", num_channels=4
        )
    each = normcli.fit(tmp_path / "x.npy", layout="NCHW", mode="instance")
    with pytest.raises(UsageError):
        normcli.apply(tmp_path / "one.npy", tmp_path / "y.npy", stats=each, layout="CHW")
    assert not (tmp_path / "y.npy").exists()
