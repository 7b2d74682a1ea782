"""The functions a report is made from, used alone."""

import doctest
import getpass
import importlib
import os
import pathlib
import platform
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasopt.report import Event, confusion_matrix, environment, plot_confusion, plot_history

HISTORY = {"loss": [1.0, 0.5], "val_loss": [1.1, 0.7], "accuracy": [0.5, 0.75]}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60))
def test_confusion_matrix_counts_pairs(pairs):
    expected = np.zeros((5, 5), int)
    for label, prediction in pairs:
        expected[label, prediction] += 1
    labels = np.array([p[0] for p in pairs], np.int32)
    predictions = np.array([p[1] for p in pairs], np.uint8)
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 5), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 1], [0], 2), ValueError, r"len\(labels\)=2, len\(predictions\)=1"),
        (([0, 2], [0, 1], 2), ValueError, r"`labels`.*\[0, 1\]. Received: 2"),
        (([0, 1], [0, -3], 2), ValueError, r"`predictions`.*Received: -3"),
        (([0.0, 1.0], [0, 1], 2), TypeError, r"`labels` must hold integers"),
        (([0], [0], 0), ValueError, r"`num_classes`.*num_classes=0"),
    ],
)
def test_confusion_matrix_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        confusion_matrix(*arguments)


def test_environment_names_versions_and_processor_only():
    found = environment()
    assert found["python"] == platform.python_version()
    assert found["tensorflow"].startswith("2.")
    assert found["keras"].startswith("3.")
    assert found["logical cores"] == str(os.cpu_count())
    assert found["processor"]
    assert set(found) == {
        "ai-edge-litert",
        "keras",
        "kerasopt",
        "logical cores",
        "platform",
        "processor",
        "python",
        "tensorflow",
    }
    told = " ".join(found.values()).split()
    for secret in (getpass.getuser(), socket.gethostname(), os.getcwd(), platform.release()):
        assert secret not in told
    assert not any("/" in value for value in found.values())


def test_room_needs_neither_tensorflow_nor_pyplot():
    code = (
        "import sys, kerasopt.report as r; r.environment(); r.plot_history({'loss': [1.0]});"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib.pyplot') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_plot_history_draws_every_series_and_event():
    figure = plot_history(HISTORY, (Event(1.0, "prune", "pruning begins"),))
    loss, accuracy = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["Loss", "Accuracy"]
    lines = {line.get_label(): line for line in loss.get_lines()}
    np.testing.assert_array_equal(lines["training"].get_xdata(), [1, 2])
    np.testing.assert_array_equal(lines["training"].get_ydata(), [1.0, 0.5])
    np.testing.assert_array_equal(lines["validation"].get_ydata(), [1.1, 0.7])
    np.testing.assert_array_equal(lines["pruning begins"].get_xdata(), [1, 1])
    assert len(accuracy.get_lines()) == 2


def test_plot_history_draws_one_epoch_nan_and_one_panel(tmp_path):
    figure = plot_history({"loss": [float("nan"), 1.0]})
    assert len(figure.axes) == 1
    figure.savefig(tmp_path / "curves.png")
    assert len(plot_history({"a": [1], "b": [1], "c": [2]}).axes) == 3


def test_plot_history_refuses_an_empty_history():
    with pytest.raises(ValueError, match="`history` must hold at least one metric"):
        plot_history({})


def test_plot_confusion_writes_counts_and_names(tmp_path):
    figure = plot_confusion(np.array([[3, 1], [0, 4]]), ["$a^", "b"])
    (axes,) = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == ["1", "3", "4"]
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.75, 0.25], [0, 1]])
    figure.savefig(tmp_path / "confusion.png")


def test_plot_confusion_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"`matrix`.*shape=\(2, 2\), len\(class_names\)=3"):
        plot_confusion(np.zeros((2, 2), int), ["a", "b", "c"])


@pytest.mark.parametrize("module", ["_environment", "_figures", "_format", "_metrics"])
def test_docstring_examples_run(module):
    result = doctest.testmod(importlib.import_module(f"kerasopt.report.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (1.0, "100 %"),
        (0.9996, "> 99.9 %"),
        (1e-5, "< 0.1 %"),
        (0.0, "0 %"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_only_a_true_one_is_100_percent_and_a_true_zero_0(fraction, text):
    from kerasopt.report._format import percent

    assert percent(fraction).replace("\u202f", " ") == text


def test_docs_examples_run(tmp_path, monkeypatch):
    page = pathlib.Path(__file__).resolve().parents[1] / "docs" / "report.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), scope)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"report.html", "history.png", "confusion.png"}


def test_docs_and_room_agree():
    page = pathlib.Path(__file__).resolve().parents[1] / "docs" / "report.md"
    documented = re.findall(r"^::: kerasopt\.report\.(\w+)", page.read_text("utf-8"), re.MULTILINE)
    room = importlib.import_module("kerasopt.report")
    assert sorted(documented) == room.__all__ == sorted(room.__all__)
