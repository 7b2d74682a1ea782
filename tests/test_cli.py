"""The command, as people call it."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import kerasopt as ko
from kerasopt.cli import app
from tests.models import small_cnn, stripes

COMMANDS = (
    "demo",
    "train",
    "export",
    "inspect",
    "benchmark",
    "diff",
    "report",
    "serve",
    "preview",
)
COMMAND = pathlib.Path(sys.executable).parent / "kerasopt"


def call(*arguments, code=0):
    """Runs the real command in a process of its own."""
    # A user who asks TensorFlow for its log gets it; the tests' own setting must not count.
    clean = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env=clean,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of small photos in four classes, told apart by their bright quarter."""
    folder = tmp_path_factory.mktemp("photos")
    x, y = stripes(96)
    for index, (image, label) in enumerate(zip(x, y, strict=True)):
        target = folder / f"class_{label}"
        target.mkdir(exist_ok=True)
        Image.fromarray(image.astype("uint8")).save(target / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "tiny.keras"
    small_cnn().save(path)
    return path


@pytest.fixture(scope="module")
def run(photos, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    done = call(
        "train",
        photos,
        "--backbone",
        backbone,
        "--epochs",
        12,
        "--batch-size",
        8,
        "--learning-rate",
        0.02,
        "--no-augment",
        "--out",
        out,
    )
    return out, done


@pytest.mark.slow
def test_train_writes_the_whole_run(run):
    out, done = run
    names = {"labels.txt", "metrics.json", "model.keras", "model.tflite", "report.html"}
    assert {path.name for path in out.iterdir()} == names
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["agreement"] >= 0.9
    assert metrics["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert metrics["class_names"] == (out / "labels.txt").read_text().splitlines()
    assert {event["kind"] for event in metrics["events"]} == {"unfreeze", "prune", "quantize"}
    assert metrics["files"]["int8"]["input_dtype"] == "uint8"
    assert "epoch  12/12" in done.stdout
    assert "model.tflite" in done.stdout
    assert done.stderr == ""
    page = (out / "report.html").read_text("utf-8")
    assert "class_3" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_what_was_written_works(run, photos):
    out, _ = run
    lite = ko.export.TFLiteModel(out / "model.tflite")
    model = keras.models.load_model(out / "model.keras")
    data = ko.datasets.image_folder(photos, image_size=(12, 12))
    accuracy = lite.evaluate(data.test)["accuracy"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert accuracy == metrics["test_accuracy"]["file"]
    assert model.evaluate(data.test, verbose=0)[1] == pytest.approx(
        metrics["test_accuracy"]["keras"]
    )


@pytest.mark.slow
def test_export_inspect_and_benchmark(run, photos, tmp_path):
    out, _ = run
    target = tmp_path / "small.tflite"
    shown = call(
        "export", out / "model.keras", "--quantize", "int8", "--data", photos, "--out", target
    ).stdout
    assert "agreement" in shown
    assert "uint8" in shown
    assert (tmp_path / "small.labels.txt").read_text().split() == [f"class_{i}" for i in range(4)]
    shown = call("inspect", target).stdout
    assert "DEPTHWISE_CONV_2D" in shown
    assert "input  uint8 (1, 12, 12, 3)" in shown
    shown = call("benchmark", target, "--threads", "1", "--runs", 3).stdout
    assert "median ms" in shown


@pytest.mark.slow
def test_demo(tmp_path):
    done = call("demo", "--out", tmp_path / "demo", "--epochs", 4)
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    accuracy = metrics["test_accuracy"]
    assert accuracy["keras"] > 0.7
    assert accuracy["file"] == pytest.approx(accuracy["keras_quantization_aware"], abs=0.01)
    assert metrics["agreement"] >= 0.98
    assert metrics["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert "Report:" in done.stdout


@pytest.mark.slow
def test_a_mistake_is_one_line_and_exit_code_1(tmp_path, photos):
    done = call(
        "train", tmp_path / "none", "--backbone", "MobilNetV2", "--out", tmp_path / "r", code=1
    )
    assert done.stderr.startswith("Error: `backbone` must be")
    assert "Did you mean 'MobileNetV2'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def error_of(*arguments):
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == 1
    return str(result.exception)


def test_out_that_exists(photos, tmp_path):
    message = error_of("train", photos, "--out", tmp_path)
    assert "`out` must name a folder that does not exist yet. Received: out=" in message
    assert "`out` must name a folder that" in error_of("demo", "--out", tmp_path)


def test_out_in_no_folder(photos, tmp_path):
    assert "must lie in an existing folder" in error_of("demo", "--out", tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--epochs", 0, "`epochs` must be an integer >= 1"),
        ("--batch-size", 0, "`batch_size` must be an integer >= 1"),
        ("--sparsity", 1.0, "`sparsity` must be a number in [0, 1)"),
        ("--quantize-start", 1.0, "`quantize_start` must be a number in [0, 1)"),
        ("--learning-rate", 0, "`learning_rate` must be a number in (0, inf]"),
    ],
)
def test_bad_numbers(photos, tmp_path, option, value, message):
    assert message in error_of("train", photos, "--out", tmp_path / "r", option, value)
    assert not (tmp_path / "r").exists()


def test_missing_photos_leave_no_folder(backbone, tmp_path):
    message = error_of("train", tmp_path / "no", "--backbone", backbone, "--out", tmp_path / "r")
    assert "`path` must be an existing folder" in message
    assert not (tmp_path / "r").exists()


def test_weights_that_cannot_be_downloaded(photos, tmp_path, monkeypatch):
    """Keras looks in its cache first; an empty one makes it ask for a host that is not there."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    import urllib.error
    import urllib.request

    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    message = error_of("train", photos, "--backbone", "MobileNetV2", "--out", tmp_path / "r")
    assert "could not be downloaded" in message
    assert "weights='path/to/weights.h5'" in message


def test_export_of_nothing(tmp_path):
    assert "no such file" in error_of("export", tmp_path / "none.keras")


def test_inspect_of_something_else(tmp_path):
    (tmp_path / "notes.tflite").write_text("not a model")
    assert "must be a TFLite file" in error_of("inspect", tmp_path / "notes.tflite")


def test_benchmark_threads(tmp_path):
    assert "`threads` must be numbers like 1,2" in error_of(
        "benchmark", "x.tflite", "--threads", "two"
    )


@pytest.mark.slow
def test_diff_of_a_model_and_its_file(photos, backbone, tmp_path):
    model = keras.models.load_model(backbone)
    x, _ = stripes(32)
    names = [f"class_{i}" for i in range(4)]
    ko.export.to_tflite(
        model,
        tmp_path / "m.tflite",
        quantize="int8",
        representative_data=x,
        labels=names,
        verify=False,
    )
    shown = call("diff", backbone, tmp_path / "m.tflite", photos, "--samples", 8).stdout
    expected = ko.profiling.diff(
        backbone, tmp_path / "m.tflite", photos, samples=8, class_names=names
    )
    assert shown.rstrip("\n") == expected.table()


def test_bad_diffs(photos, tmp_path):
    assert "no.keras" in error_of("diff", tmp_path / "no.keras", tmp_path / "b.tflite", photos)
    small_cnn().save(tmp_path / "a.keras")
    message = error_of("diff", tmp_path / "a.keras", tmp_path / "a.keras", photos, "--samples", 0)
    assert "`samples` must be an integer >= 1" in message


def preview(photos, out, *more):
    arguments = ["preview", photos, "--out", out, "--rows", 2, "--columns", 3, *more]
    return CliRunner().invoke(app, [str(part) for part in arguments])


def test_preview_writes_a_picture(photos, tmp_path):
    result = preview(photos, tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert "2 photos, basic:" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.width > picture.height > 200
    preview(photos, tmp_path / "b.png")
    preview(photos, tmp_path / "c.png", "--seed", 1)
    first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", ["basic", "randaugment", "trivialaugment", "autoaugment", "augmix"]
)
def test_preview_of_every_recipe(photos, tmp_path, recipe):
    result = preview(photos, tmp_path / "preview.svg", "--recipe", recipe)
    assert result.exit_code == 0, result.output
    assert "<svg" in (tmp_path / "preview.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--recipe", "randagument"), "`recipe` must be one of 'basic'"),
        (("--recipe", "randagument"), "Did you mean 'randaugment'"),
        (("--columns", 1), "`columns` must be an integer >= 2"),
        (("--rows", 0), "`rows` must be an integer >= 1"),
        (("--seed", -1), "`seed` must be an integer >= 0"),
        (("--out", "preview.doc"), "`out` must be one of '.png', '.jpg', '.pdf', '.svg'"),
    ],
)
def test_bad_previews(photos, tmp_path, more, message):
    assert message in error_of("preview", photos, "--out", tmp_path / "a.png", *more)
    assert not [*tmp_path.iterdir()]


def test_preview_of_no_photos(tmp_path):
    (tmp_path / "notes.txt").write_text("no photo")
    for folder in (tmp_path, tmp_path / "none"):
        message = error_of("preview", folder, "--out", tmp_path / "a.png")
        assert "`directory` must be a folder that holds photos" in message
    (tmp_path / "broken.png").write_text("no photo either")
    message = error_of("preview", tmp_path, "--out", tmp_path / "a.png")
    assert "must be a whole image file" in message
    Image.new("RGB", (9, 9)).save(tmp_path / "broken.png")
    message = error_of("preview", tmp_path, "--out", tmp_path / "no" / "a.png")
    assert "must be a file in an existing folder" in message


def test_version_and_help():
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).stdout.strip() == ko.__version__
    shown = runner.invoke(app, ["--help"]).stdout
    assert all(name in shown for name in COMMANDS)


def test_inspect_in_process(tmp_path):
    ko.export.to_tflite(small_cnn(), tmp_path / "m.tflite")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "m.tflite")])
    assert result.exit_code == 0
    assert "CONV_2D" in result.stdout
    assert np.isfinite(float(ko.profiling.profile(tmp_path / "m.tflite").macs))
