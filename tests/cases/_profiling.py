"""The cases of `ko.profiling`."""

import kerasopt as ko
from tests.cases._case import UNBUILT, Case, layer_profile, tflite

PROFILING = (
    Case("profiling", "LayerProfile", "result", make=layer_profile),
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
