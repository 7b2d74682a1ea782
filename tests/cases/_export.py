"""The cases of `ko.export`."""

import numpy as np

import kerasopt as ko
from tests.cases._case import IMAGES, NO_WEIGHTS, UNBUILT, Case, aware, photos, result, tflite

EXPORT = (
    Case("export", "ExportResult", "result", make=result),
    Case(
        "export",
        "Metadata",
        "result",
        make=lambda: ko.export.Metadata(name="flowers", labels=["daisy", "tulip"]),
        bad=(
            ({"name": 3}, TypeError, "`name` must be text"),
            ({"std": 0.0}, ValueError, "`std` must be a positive number"),
            ({"labels": ["a", ""]}, ValueError, "`labels` must be a list of class names"),
            ({"score_calibration": [(1.0,)]}, ValueError, "`score_calibration` must have"),
        ),
    ),
    Case(
        "export",
        "OperationMatch",
        "result",
        make=lambda: ko.export.OperationMatch("conv", 0.999, 1, 1024, "CONV_2D"),
    ),
    Case(
        "export",
        "OperationReport",
        "result",
        make=lambda: ko.export.OperationReport((), 1, (), ()),
    ),
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
                lambda: ko.export.TFLiteModel(tflite(), time_limit=0.0),
                ValueError,
                "`time_limit` must be a number",
            ),
            (
                lambda: ko.export.TFLiteModel(tflite()).predict(np.zeros((1, 3))),
                ValueError,
                "`images` must have the shape",
            ),
        ),
    ),
    Case(
        "export",
        "TFLiteTensor",
        "result",
        make=lambda: ko.export.TFLiteTensor("image", (1, 8, 8, 3), "uint8", 1.0, 0),
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
        "compare_operations",
        "function",
        make=lambda: ko.export.compare_operations(
            aware(), ko.export.to_tflite(aware(), quantize="int8").content, IMAGES, samples=1
        ),
        bad=(
            (
                lambda: ko.export.compare_operations(aware(), tflite(), IMAGES, samples=0),
                ValueError,
                "`samples` must be an integer >= 1",
            ),
            (
                lambda: ko.export.compare_operations(aware(), tflite(), IMAGES),
                ValueError,
                "`data` must have the shape",
            ),
            (
                lambda: ko.export.compare_operations(NO_WEIGHTS, tflite(), IMAGES),
                ValueError,
                "A quantization-aware model is needed",
            ),
        ),
    ),
    Case(
        "export",
        "read_metadata",
        "function",
        make=lambda: ko.export.read_metadata(tflite()),
        bad=(
            ({"path_or_bytes": "none.tflite"}, FileNotFoundError, "none.tflite"),
            ({"path_or_bytes": 3}, TypeError, "`content` must be the path or the bytes"),
            ({"path_or_bytes": b"nothing"}, ValueError, "must be a TFLite file"),
        ),
    ),
    Case(
        "export",
        "to_c_array",
        "function",
        make=lambda: ko.export.to_c_array(tflite(), photos() / "model.h"),
        bad=(
            ({"path_or_bytes": b"", "path": "m.h", "name": "2nd"}, ValueError, "identifier"),
            ({"path_or_bytes": b"nothing", "path": "m.h"}, ValueError, "must be a TFLite file"),
            ({"path_or_bytes": 3, "path": "m.h"}, TypeError, "must be the path or the bytes"),
            (
                lambda: ko.export.to_c_array("none.tflite", "m.h"),
                FileNotFoundError,
                "must be that of a file",
            ),
            (
                lambda: ko.export.to_c_array(tflite(), "no/folder/m.h"),
                ValueError,
                "in an existing folder",
            ),
        ),
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
                "need data to take their ranges",
            ),
            ({"model": NO_WEIGHTS, "labels": ["a"]}, ValueError, "`labels` must be a list of 4"),
            ({"model": NO_WEIGHTS, "labels": ["a", "b", "", "d"]}, ValueError, "`labels` must be"),
            ({"model": NO_WEIGHTS, "metadata": "yes"}, TypeError, "`metadata` must be a Metadata"),
            ({"model": NO_WEIGHTS, "input_dtype": "uint8"}, ValueError, "`input_dtype` must be"),
            ({"model": NO_WEIGHTS, "batch_size": 0}, ValueError, "`batch_size` must be an integer"),
            ({"model": NO_WEIGHTS, "min_agreement": 2}, ValueError, "`min_agreement` must be"),
            (lambda: ko.export.to_tflite(aware()), ValueError, "becomes one kind of file"),
        ),
    ),
)
