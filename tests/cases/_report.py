"""The cases of `ko.report`."""

import pathlib
import tempfile

import numpy as np

import kerasopt as ko
from tests.cases._case import IMAGES, Case, file_row, photos, run_report
from tests.comparison_runs import metrics, write


def _run():
    """A folder of a run, made anew."""
    return write(pathlib.Path(tempfile.mkdtemp()) / "run", metrics())


REPORT = (
    Case(
        "report",
        "Event",
        "result",
        make=lambda: ko.report.Event(0.5, "prune", "pruning begins"),
        bad=(
            ({"epoch": -1.0, "kind": "prune", "label": ""}, ValueError, "`epoch` must be a number"),
            ({"epoch": 0.0, "kind": "trim", "label": ""}, ValueError, "`kind` must be one of"),
        ),
    ),
    Case(
        "report",
        "FileRow",
        "result",
        make=file_row,
        bad=(
            (lambda: file_row(kind="int4"), ValueError, "`kind` must be one of"),
            (lambda: file_row(size=1.5), TypeError, "`size` must be an integer"),
            (
                lambda: file_row(accuracy=93.5),
                ValueError,
                r"`accuracy` must be a number in \[0, 1\]",
            ),
        ),
    ),
    Case(
        "report",
        "Flip",
        "result",
        make=lambda: ko.report.Flip(IMAGES[0].astype("uint8"), "cat", "cat", "dog", 0.9),
        bad=(
            (
                lambda: ko.report.Flip(IMAGES[0].astype("uint8"), "cat", "cat", "cat", 0.9),
                ValueError,
                "Exactly one of `before` and `after` must be the true class",
            ),
        ),
    ),
    Case(
        "report",
        "Signature",
        "result",
        make=lambda: ko.report.Signature((8, 8, 3), "uint8", "uint8", 0.1, 128),
        bad=(
            (
                {"input_shape": (8, 8), "input_dtype": "uint8", "output_dtype": "uint8"},
                ValueError,
                "`input_shape` must be",
            ),
            (
                {"input_shape": (8, 8, 3), "input_dtype": "int8", "output_dtype": "uint8"},
                ValueError,
                "`input_dtype` must be one of",
            ),
        ),
    ),
    Case(
        "report",
        "Mistake",
        "result",
        make=lambda: ko.report.Mistake(IMAGES[0].astype("uint8"), "cat", "dog", 0.9),
        bad=(
            (
                lambda: ko.report.Mistake(IMAGES[0], "cat", "dog", 0.9),
                TypeError,
                "`image` must hold",
            ),
            (
                lambda: ko.report.Mistake(IMAGES[0].astype("uint8"), "cat", "dog", 90.0),
                ValueError,
                "`confidence` must be a number",
            ),
        ),
    ),
    Case(
        "report",
        "RunReport",
        "result",
        make=run_report,
        bad=(
            (
                lambda: run_report(class_names=()),
                ValueError,
                "`class_names` must name at least one",
            ),
            (lambda: run_report(labels=np.array([0])), ValueError, "must have the same length"),
            (lambda: run_report(labels=np.array([0, 2])), ValueError, "`labels` must be class"),
            (
                lambda: run_report(confidences=np.array([0.9, 60.0])),
                ValueError,
                "`confidences` must be probabilities",
            ),
        ),
    ),
    Case(
        "report",
        "confusion_matrix",
        "function",
        make=lambda: ko.report.confusion_matrix([0, 1], [0, 0], 2),
        bad=(
            (
                {"labels": [0], "predictions": [0, 1], "num_classes": 2},
                ValueError,
                "must have the same length",
            ),
            (
                {"labels": [0.5], "predictions": [0], "num_classes": 2},
                TypeError,
                "`labels` must hold integers",
            ),
        ),
    ),
    Case("report", "environment", "function", make=lambda: ko.report.environment()),
    Case(
        "report",
        "plot_confusion",
        "function",
        make=lambda: ko.report.plot_confusion(np.eye(2, dtype=int), ["cat", "dog"]),
        bad=(
            ({"matrix": np.eye(2), "class_names": ["cat"]}, ValueError, "`matrix` must have one"),
        ),
    ),
    Case(
        "report",
        "plot_history",
        "function",
        make=lambda: ko.report.plot_history({"loss": [1.0, 0.5]}),
        bad=(({"history": {}}, ValueError, "`history` must hold at least one metric"),),
    ),
    Case("report", "render", "function", make=lambda: ko.report.render(run_report())),
    Case(
        "report",
        "write_comparison",
        "function",
        make=lambda: ko.report.write_comparison([_run(), _run()], photos() / "comparison.html"),
        bad=(
            (
                lambda: ko.report.write_comparison([], "comparison.html"),
                ValueError,
                "`runs` must be 2 to 8 folders of runs",
            ),
            (
                lambda: ko.report.write_comparison(["no/such", "run"], "comparison.html"),
                ValueError,
                "`runs` must be folders of runs, each with a metrics.json",
            ),
        ),
    ),
    Case(
        "report",
        "write_report",
        "function",
        make=lambda: ko.report.write_report(run_report(), photos() / "report.html"),
        bad=(
            (
                lambda: ko.report.write_report(run_report(), "no/such/folder/report.html"),
                ValueError,
                "`path` must be a file in an existing folder",
            ),
        ),
    ),
)
