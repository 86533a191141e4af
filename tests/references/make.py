"""Make the reference values of this folder with real frameworks, and check them.

    python make.py            makes every ``*.npz`` and ``cases.json`` anew, then checks them
    python make.py --check    only checks what is stored; needs NumPy and nothing else

Made with the versions below; another version stops the script unless ``--any-version`` is given.
Every random number comes from ``np.random.default_rng`` seeded by the name of its case, and
archives carry no time.

``output`` is the operator applied in float64 to the stored values; ``output_native`` is what the
framework gives in the dtype of the input. Each case is then recomputed from its own description by
the plain formula of ``formula.py`` in extended precision.
"""

import argparse
import warnings
from importlib.metadata import version

from formula import check

VERSIONS = {
    "torch": "2.13.0",
    "scikit-learn": "1.9.1",
    "keras": "3.15.1",
    "onnx": "1.23.2",
    "flax": "0.12.8",
    "jax": "0.10.2",
    "mpmath": "1.3.0",
    "numpy": "2.4.6",
}


def make(any_version: bool) -> None:
    """Make everything anew."""
    found = {name: version(name).partition("+")[0] for name in VERSIONS}  # 2.13.0+cpu
    if found != VERSIONS and not any_version:
        raise SystemExit(f"the values are made with {VERSIONS}, but here is {found}")
    # Imported here, so that a check needs none of the frameworks.
    from by_flax import flax
    from by_keras import keras
    from by_mpmath import hard
    from by_onnx import onnx
    from by_sklearn import sklearn
    from by_torch import torch_batch, torch_group, torch_instance, torch_layer, torch_rms
    from store import Store

    store = Store()
    for family in (torch_batch, torch_instance, torch_layer, torch_group, torch_rms):
        family(store)
    for family in (sklearn, keras, onnx, flax, hard):
        family(store)
    store.write(found)


def main() -> None:
    """Make and check, or only check."""
    parser = argparse.ArgumentParser(description="Make the reference values, and check them.")
    parser.add_argument("--check", action="store_true", help="only check what is stored")
    parser.add_argument("--any-version", action="store_true", help="let other versions make it")
    options = parser.parse_args()
    if not options.check:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            make(options.any_version)
    check()


if __name__ == "__main__":
    main()
