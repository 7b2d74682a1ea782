"""The cases of `ko.export`."""

import numpy as np

import kerasopt as ko
from tests.cases._case import IMAGES, NO_WEIGHTS, UNBUILT, Case, aware, result, tflite

EXPORT = (
    Case("export", "ExportResult", "result", make=result),
    Case(
        "export",
        "TFLiteModel",
        "class",
        make=lambda: ko.export.TFLiteModel(tflite(), num_threads=1),
        bad=(
            ({"path_or_bytes": "none.tflite"}, FileNotFoundError, "`path_or_bytes` must be"),
            ({"path_or_bytes": b"nothing"}, ValueError, "must be a TFLite file"),
            (
                lambda: ko.export.TFLiteModel(tflite(), num_threads=0),
                ValueError,
                "`num_threads` must be an integer >= 1",
            ),
            (
                lambda: ko.export.TFLiteModel(tflite()).predict(np.zeros((1, 3))),
                ValueError,
                "`images` must have the shape",
            ),
        ),
    ),
    Case("export", "Timing", "result", make=lambda: ko.export.Timing(1, 2.0, 3.0, 50)),
    Case(
        "export",
        "VerificationError",
        "class",
        make=lambda: ko.export.VerificationError("They differ.", result()),
    ),
    Case(
        "export",
        "to_tflite",
        "function",
        of_model=lambda model: ko.export.to_tflite(model, verify=IMAGES),
        bad=(
            ({"model": "model.keras"}, TypeError, "`model` must be a keras.Model"),
            ({"model": UNBUILT}, ValueError, "`model` must be built"),
            ({"model": NO_WEIGHTS, "quantize": "int4"}, ValueError, "`quantize` must be one of"),
            (
                {"model": NO_WEIGHTS, "quantize": "int8"},
                ValueError,
                "needs data to take its ranges",
            ),
            ({"model": NO_WEIGHTS, "labels": ["a"]}, ValueError, "`labels` must be a list of 4"),
            ({"model": NO_WEIGHTS, "input_dtype": "uint8"}, ValueError, "`input_dtype` must be"),
            ({"model": NO_WEIGHTS, "min_agreement": 2}, ValueError, "`min_agreement` must be"),
            (lambda: ko.export.to_tflite(aware()), ValueError, "becomes an int8 file"),
        ),
    ),
)
