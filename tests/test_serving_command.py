"""`kerasopt serve`, as people call it."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from kerasopt import _litert_js
from kerasopt.cli import app
from kerasopt.export import to_tflite
from tests.models import small_cnn

COMMAND = pathlib.Path(sys.executable).parent / "kerasopt"
installed = pytest.mark.skipif(
    not _litert_js.is_installed(), reason="needs LiteRT.js in the package (make web)"
)


@pytest.fixture
def interruptible():
    """What runs in the background of a script ignores Ctrl-C, and so does what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@installed
def test_it_serves_until_ctrl_c(tmp_path):
    to_tflite(small_cnn(), tmp_path / "model.tflite", labels=list("abcd"))
    command = [COMMAND, "serve", tmp_path, "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+/", said).group()
            with urllib.request.urlopen(f"{url}model.tflite", timeout=30) as answer:
                assert answer.read() == (tmp_path / "model.tflite").read_bytes()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert said.startswith("small_cnn: ")


@installed
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"`run` must be the folder of a run, or a \.tflite file\. Received: none"),
        (["no_run"], r"`run` must be a \.tflite file, or the folder of a run"),
        (["no_run", "--port", "-1"], r"`port` must be an integer in \[0, 65535\]"),
    ],
)
def test_mistakes(tmp_path, arguments, message):
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        result = CliRunner().invoke(app, ["serve", *arguments])
    finally:
        os.chdir(before)
    assert isinstance(result.exception, ValueError)
    assert re.search(message, str(result.exception))


def test_without_litert_js(tmp_path, monkeypatch):
    monkeypatch.setattr(_litert_js, "FOLDER", tmp_path)
    result = CliRunner().invoke(app, ["serve", "run"])
    assert isinstance(result.exception, RuntimeError)
    assert "Run: kerasopt serve --install" in str(result.exception)
