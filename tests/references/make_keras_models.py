"""Write the same small model in the three formats of Keras: keras_model.keras, .weights.h5, .h5.

Made with keras 3.15.1 (torch backend) and h5py; run it again with ``python make_keras_models.py``.
Variable number i of a layer counts up from 10 * i, so that the tests know what they must read.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import layers


def build() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.BatchNormalization(name="first", epsilon=0.002, momentum=0.9),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="no_scale", scale=False),
            keras.Sequential(
                [
                    layers.LayerNormalization(name="inner", center=False),
                    layers.GroupNormalization(groups=2, name="groups"),
                ],
                name="sub",
            ),
            layers.RMSNormalization(name="rms"),
        ]
    )
    for layer in (*model.layers, *model.get_layer("sub").layers):
        if not isinstance(layer, keras.Sequential):
            layer.set_weights(
                [
                    (10 * i + np.arange(w.size) + 1).reshape(w.shape)
                    for i, w in enumerate(layer.get_weights())
                ]
            )
    return model


if __name__ == "__main__":
    here = Path(__file__).parent
    model = build()
    model.save(here / "keras_model.keras")
    model.save_weights(here / "keras_model.weights.h5")
    model.save(here / "keras_model.h5")
