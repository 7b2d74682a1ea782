"""The cases of `ko.export`."""

import pathlib

import numpy as np

import kerasopt as ko
from tests.cases._case import IMAGES, NO_WEIGHTS, UNBUILT, Case, aware, photos, result, tflite

TIMING = ko.export.Timing(1, 2.0, 3.0, 50, file="model.tflite", operators=8, delegated=8)
OPERATOR = ko.export.OperatorTiming("relu/Relu", "CONV_2D", 1.0, 1.5, delegated=True)


def _folder() -> pathlib.Path:
    """A place for a folder, beside that of the photos, so that it goes with them."""
    return photos().parent / "saved_model"


EXPORT = (
    Case(
        "export",
        "Activation",
        "result",
        make=lambda: ko.export.Activation("relu/Relu", "CONV_2D", np.zeros((1, 4), "float32")),
    ),
    Case(
        "export",
        "BenchmarkReport",
        "result",
        make=lambda: ko.export.BenchmarkReport((TIMING,)),
    ),
    Case("export", "ExportResult", "result", make=result),
    Case(
        "export",
        "InterpreterRun",
        "result",
        make=lambda: ko.export.InterpreterRun(
            True, 1, 16, 1.0, max_error=1e-5, relative_error=1e-6
        ),
    ),
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
        "OperatorTimes",
        "result",
        make=lambda: ko.export.OperatorTimes((OPERATOR,), TIMING),
    ),
    Case("export", "OperatorTiming", "result", make=lambda: OPERATOR),
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
    Case("export", "Timing", "result", make=lambda: TIMING),
    Case(
        "export",
        "VerificationError",
        "class",
        make=lambda: ko.export.VerificationError("They differ.", result()),
    ),
    Case(
        "export",
        "activations",
        "function",
        make=lambda: ko.export.activations(tflite(), np.ones((2, 8))),
        bad=(
            ({"file": "none.tflite", "images": IMAGES}, FileNotFoundError, "none.tflite"),
            ({"file": b"nothing", "images": IMAGES}, ValueError, "must be a TFLite file"),
            (
                lambda: ko.export.activations(tflite(), np.ones((2, 3))),
                ValueError,
                "`images` must have the shape",
            ),
            (
                lambda: ko.export.activations(tflite(), np.ones((0, 8))),
                ValueError,
                "`images` must fill batches of 1",
            ),
        ),
    ),
    Case(
        "export",
        "benchmark",
        "function",
        make=lambda: ko.export.benchmark({"dense": tflite()}, threads=[1], runs=2, warmup=0),
        bad=(
            ({"files": "model.tflite"}, TypeError, "`files` must be a list of TFLite files"),
            ({"files": []}, ValueError, "`files` must hold at least one"),
            ({"files": ["none.tflite"]}, FileNotFoundError, "must be a TFLite file"),
            (lambda: ko.export.benchmark([tflite()], threads=()), ValueError, "`threads` must be"),
            (lambda: ko.export.benchmark([tflite()], threads=0), ValueError, "`threads` must be"),
            (lambda: ko.export.benchmark([tflite()], runs=0), ValueError, "`runs` must be"),
            (lambda: ko.export.benchmark([tflite()], warmup=-1), ValueError, "`warmup` must be"),
            (lambda: ko.export.benchmark([tflite()], xnnpack=1), TypeError, "`xnnpack` must be"),
        ),
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
        "time_operators",
        "function",
        make=lambda: ko.export.time_operators(tflite(), runs=2, warmup=0),
        bad=(
            ({"file": "none.tflite"}, FileNotFoundError, "must be a TFLite file"),
            ({"file": b"nothing"}, ValueError, "must be a TFLite file"),
            ({"file": b"nothing", "threads": 0}, ValueError, "`threads` must be an integer >= 1"),
            ({"file": b"nothing", "runs": 0}, ValueError, "`runs` must be an integer >= 1"),
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
        "to_onnx",
        "function",
        of_model=lambda model: ko.export.to_onnx(model, verify=IMAGES),
        bad=(
            ({"model": "model.keras"}, TypeError, "`model` must be a keras.Model"),
            ({"model": UNBUILT}, ValueError, "`model` must be built"),
            ({"model": NO_WEIGHTS, "opset": 3}, ValueError, r"`opset` must be an integer in \[9"),
            ({"model": NO_WEIGHTS, "labels": ["a"]}, ValueError, "`labels` must be a list of 4"),
            ({"model": NO_WEIGHTS, "path": "no/folder/m.onnx"}, ValueError, "existing folder"),
        ),
    ),
    Case(
        "export",
        "to_saved_model",
        "function",
        of_model=lambda model: ko.export.to_saved_model(model, _folder(), verify=IMAGES),
        bad=(
            ({"model": "m.keras", "path": "net"}, TypeError, "`model` must be a keras.Model"),
            ({"model": UNBUILT, "path": "net"}, ValueError, "`model` must be built"),
            ({"model": NO_WEIGHTS, "path": "no/folder/net"}, ValueError, "existing folder"),
            (
                lambda: ko.export.to_saved_model(NO_WEIGHTS, photos()),
                ValueError,
                r"`path` must be new, empty, or an older folder with a saved_model\.pb",
            ),
            ({"model": NO_WEIGHTS, "path": "net", "batch_size": 0}, ValueError, "`batch_size`"),
            ({"model": NO_WEIGHTS, "path": "net", "min_agreement": 2}, ValueError, "min_agreement"),
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
