"""The examples run from start to end, as a reader would run them."""

import os
import pathlib
import subprocess
import sys

import pytest

import kerasopt as ko

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.slow
def test_flowers_to_phone_writes_a_verified_file_and_a_report(tmp_path):
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("KERASOPT_PHOTOS", "KERASOPT_BACKBONE")
    }
    environment |= {
        "KERASOPT_EXAMPLE_EPOCHS": "4",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "Agg",
    }
    done = subprocess.run(
        [sys.executable, EXAMPLES / "flowers_to_phone.py", "--out", "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "run"
    lite = ko.export.TFLiteModel(run / "model.tflite")
    assert lite.input_shape == (1, 32, 32, 3)
    assert (lite.input_dtype, lite.output_dtype) == ("uint8", "float32")
    names = (run / "model.labels.txt").read_text(encoding="utf-8").split()
    assert names == ["Bag", "Dress", "Sneaker", "Trouser"]
    assert ko.profiling.profile(run / "model.keras").sparsity == pytest.approx(0.5, abs=0.02)
    assert "confusion" in (run / "report.html").read_text(encoding="utf-8").lower()
    assert (run / "augmentation.png").stat().st_size > 1000
    assert not list(run.glob("*.rejected.tflite"))
