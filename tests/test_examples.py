"""The examples run from start to end, as a reader would run them."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

import kerasopt as ko

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def run(name, folder, *arguments, **variables):
    """Runs an example with its own data, and returns what it printed."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("KERASOPT_PHOTOS", "KERASOPT_BACKBONE")
    }
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg", **variables}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_flowers_to_phone_writes_a_verified_file_and_a_report(tmp_path):
    run("flowers_to_phone.py", tmp_path, "--out", "run", KERASOPT_EXAMPLE_EPOCHS="4")
    out = tmp_path / "run"
    lite = ko.export.TFLiteModel(out / "model.tflite")
    assert lite.input_shape == (1, 32, 32, 3)
    assert (lite.input_dtype, lite.output_dtype) == ("uint8", "float32")
    names = (out / "model.labels.txt").read_text(encoding="utf-8").split()
    assert names == ["Bag", "Dress", "Sneaker", "Trouser"]
    assert ko.profiling.profile(out / "model.keras").sparsity == pytest.approx(0.5, abs=0.02)
    assert "confusion" in (out / "report.html").read_text(encoding="utf-8").lower()
    assert (out / "augmentation.png").stat().st_size > 1000
    assert not list(out.glob("*.rejected.tflite"))


@pytest.mark.slow
def test_distill_flowers_ships_a_small_student(tmp_path):
    printed = run("distill_flowers.py", tmp_path, "--out", "run", KERASOPT_EXAMPLE_EPOCHS="5")
    sizes = re.search(r"student: ([\d,]+) parameters, teacher: ([\d,]+)", printed)
    student, teacher = (int(size.replace(",", "")) for size in sizes.groups())
    assert student < 100_000 < teacher
    accuracies = dict(
        re.findall(r"^(student alone|student taught|teacher): ([\d.]+)%", printed, re.M)
    )
    assert len(accuracies) == 3
    assert float(accuracies["student taught"]) > 60
    lite = ko.export.TFLiteModel(tmp_path / "run" / "student.tflite")
    assert lite.output_shape == (1, 4)
    loaded = keras.saving.load_model(tmp_path / "run" / "student.keras")
    assert loaded.count_params() == student


@pytest.mark.slow
def test_deep_features_compares_learners_and_saves_the_solved_head(tmp_path):
    printed = run("deep_features.py", tmp_path, "--out", "run")
    accuracies = dict(
        re.findall(r"^(SVM|gradient boosting|solved head).*?([\d.]+)%", printed, re.MULTILINE)
    )
    assert len(accuracies) == 3
    assert all(float(accuracy) > 75 for accuracy in accuracies.values())
    assert re.search(r"neighbours +[\d.]+%", printed)
    assert keras.saving.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 4)
