"""The cases of `ko.profiling`."""

import keras
import numpy as np

import kerasopt as ko
from tests.cases._case import IMAGES, UNBUILT, Case, layer_profile, photos, tflite

DENSE = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)], name="three_outputs")
TWO = keras.Model(inputs := keras.Input((8,)), [inputs * 2, inputs + 1], name="two_outputs")
X = np.ones((4, 8), "float32")
LAYER = ko.profiling.LayerDifference("conv", "conv/Relu", 0.01, 0.5, 0.999)

PROFILING = (
    Case(
        "profiling",
        "Disagreement",
        "result",
        make=lambda: ko.profiling.Disagreement(3, (0, 1), (0.6, 0.7)),
    ),
    Case("profiling", "LayerDifference", "result", make=lambda: LAYER),
    Case("profiling", "LayerProfile", "result", make=layer_profile),
    Case(
        "profiling",
        "ModelDiff",
        "result",
        make=lambda: ko.profiling.ModelDiff(("a", "b"), 9, 4, (LAYER,), LAYER, (), 0.1),
    ),
    Case(
        "profiling",
        "Profile",
        "result",
        make=lambda: ko.profiling.Profile("model", (layer_profile(),)),
    ),
    Case(
        "profiling",
        "arena_bytes",
        "function",
        make=lambda: ko.profiling.arena_bytes(tflite()),
        bad=(
            ({"content": b"nothing"}, ValueError, "`content` must be a TFLite file"),
            ({"content": 3}, TypeError, "`content` must be the path or the bytes"),
            ({"content": "none.tflite"}, FileNotFoundError, "none.tflite"),
        ),
    ),
    Case(
        "profiling",
        "ProfileComparison",
        "result",
        make=lambda: ko.profiling.ProfileComparison(
            {"a": ko.profiling.Profile("a", (layer_profile(),))}, ((layer_profile(), None),)
        ),
    ),
    Case(
        "profiling",
        "compare",
        "function",
        of_model=lambda model: ko.profiling.compare({"keras": model, "file": tflite()}),
        bad=(
            ({"models": "model.tflite"}, TypeError, "`models` must be a list of models"),
            ({"models": [tflite()]}, ValueError, "`models` must hold two models or more"),
            ({"models": [3, tflite()]}, TypeError, "must be a Keras 3 model"),
            ({"models": ["none.tflite", tflite()]}, FileNotFoundError, "none.tflite"),
        ),
    ),
    Case(
        "profiling",
        "diff",
        "function",
        of_model=lambda model: ko.profiling.diff(model, model, IMAGES),
        bad=(
            ({"a": 3, "b": tflite(), "data": X}, TypeError, "`a` must be a Keras 3 model"),
            ({"a": tflite(), "b": None, "data": X}, TypeError, "`b` must be a Keras 3 model"),
            ({"a": "none.tflite", "b": tflite(), "data": X}, FileNotFoundError, "none.tflite"),
            ({"a": tflite(), "b": TWO, "data": X}, ValueError, "`b` must have one output"),
            ({"a": UNBUILT, "b": tflite(), "data": X}, ValueError, "`a` must be a built model"),
            ({"a": tflite(), "b": tflite(), "data": X[:0]}, ValueError, "at least one example"),
            ({"a": tflite(), "b": tflite(), "data": IMAGES}, ValueError, "which `a` takes"),
            ({"a": tflite(), "b": DENSE, "data": X}, ValueError, "outputs of the same shape"),
            ({"a": tflite(), "b": tflite(), "data": 3}, TypeError, "`data` must be an array"),
            (
                {"a": tflite(), "b": tflite(), "data": photos()},
                ValueError,
                "`data` may be a folder of photos for",
            ),
            (
                lambda: ko.profiling.diff(tflite(), tflite(), X, samples=0),
                ValueError,
                "`samples` must be an integer >= 1",
            ),
            (
                lambda: ko.profiling.diff(tflite(), tflite(), X, tolerance=-1.0),
                ValueError,
                "`tolerance` must be a number",
            ),
        ),
    ),
    Case(
        "profiling",
        "profile",
        "function",
        of_model=lambda model: ko.profiling.profile(model),
        bad=(
            ({"model_or_tflite": 3}, TypeError, "`model_or_tflite` must be a Keras 3 model"),
            ({"model_or_tflite": UNBUILT}, ValueError, "`model_or_tflite` must be a built model"),
            ({"model_or_tflite": "none.tflite"}, FileNotFoundError, "none.tflite"),
            ({"model_or_tflite": b"nothing"}, ValueError, "must be a TFLite file"),
        ),
    ),
    Case(
        "profiling",
        "tflite_operators",
        "function",
        make=lambda: ko.profiling.tflite_operators(tflite()),
        bad=(
            ({"content": b"nothing"}, ValueError, "`content` must be a TFLite file"),
            ({"content": 3}, TypeError, "`content` must be the path or the bytes"),
        ),
    ),
)
