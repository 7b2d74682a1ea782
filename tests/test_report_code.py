"""The code on the page that loads the shipped file: it runs, and names the class the file names."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import kerasopt as ko
from kerasopt import _litert_js, _run_report
from kerasopt import report as kr
from kerasopt.report._snippets import snippets
from tests.chromium import needs_chromium
from tests.models import small_cnn, stripes
from tests.report_page import Page, assert_loads_nothing, row, sample

NAMES = ("north west", "north east", "south west", "süd-ost")
SIGNATURE = kr.Signature((12, 16, 3), "uint8", "uint8", 0.25, 128)


def texts(signature=SIGNATURE, name="model.tflite", classes=4):
    found = snippets(row(name=name), signature, classes)
    return {snippet["title"]: snippet["text"] for snippet in found}


@pytest.fixture(scope="module", params=["int8", "integer output", "grey float32"])
def folder(request, tmp_path_factory):
    """A file with its labels, a photo, and what the file says of the photo."""
    folder = tmp_path_factory.mktemp("shipped")
    channels = 1 if request.param == "grey float32" else 3
    x, _ = stripes(32, channels=channels)
    options = {
        "int8": {"quantize": "int8", "representative_data": x, "verify": False},
        "integer output": {
            "quantize": "int8",
            "representative_data": x,
            "output_dtype": "uint8",
            "verify": False,
        },
        "grey float32": {},
    }[request.param]
    content = ko.export.to_tflite(
        small_cnn(channels=channels), folder / "model.tflite", **options
    ).content
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    photo = x[0].astype("uint8")
    x = photo[None].astype("float32")
    Image.fromarray(photo if channels == 3 else photo[..., 0]).save(folder / "photo.png")
    (folder / "photo.png").rename(folder / "photo.jpg")  # without loss, by the name in the code
    scores = ko.export.TFLiteModel(content).predict(x)[0]
    powers = np.exp(scores - scores.max())
    best = int(scores.argmax())
    probability = float(powers[best] / powers.sum())
    return folder, _run_report._signature(content), NAMES[best], probability


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Python", "Python with kerasopt"])
def test_python_names_the_class_that_the_file_names(folder, title):
    path, signature, label, probability = folder
    code = texts(signature)[title]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True
    )
    said = run.stdout.strip().splitlines()[-1]
    if title == "Python":
        assert "kerasopt" not in code
        assert said == f"{label} {probability:.1%}"
    else:
        assert said == label


@pytest.mark.slow
@needs_chromium
@pytest.mark.skipif(not _litert_js.is_installed(), reason="needs LiteRT.js (make web)")
def test_the_browser_names_the_class_that_the_file_names(folder, browser):
    path, signature, label, probability = folder
    (path / "load.js").write_text(texts(signature)["Browser"], encoding="utf-8")
    shutil.copytree(_litert_js.FOLDER, path / "wasm", dirs_exist_ok=True)
    (path / "index.html").write_text(
        '<script type="importmap">{"imports": {"@litertjs/core": "./wasm/core.js"}}</script>'
        '<script type="module">import { classify } from "./load.js";'
        'const photo = await (await fetch("photo.jpg")).blob();'
        "document.title = JSON.stringify(await classify(photo));</script>",
        encoding="utf-8",
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
        page.wait_for_function("document.title.startsWith('{')", timeout=60_000)
        said = json.loads(page.title())
        page.close()
        server.shutdown()
    assert said["label"] == label
    assert said["probability"] == pytest.approx(probability, abs=2e-3)


def test_every_language_has_the_real_shapes_dtypes_and_name():
    found = texts(name="flowers.tflite")
    assert list(found) == ["Python", "Python with kerasopt", "Kotlin", "Swift", "Browser"]
    for text in found.values():
        assert "flowers" in text
        assert "labels" in text
    assert '"uint8").reshape((1, 12, 16, 3))' in found["Python"]
    assert "- 128) * 0.25" in found["Python"]
    assert "extractThumbnail(photo, 16, 12)" in found["Kotlin"]
    assert "direct(16 * 12 * 3)\n" in found["Kotlin"]
    assert "0.25 * ((output.get().toInt() and 0xFF) - 128)" in found["Kotlin"]
    assert "let width = 16, height = 12" in found["Swift"]
    assert 'forResource: "flowers", ofType: "tflite"' in found["Swift"]
    assert "[width, height] = [16, 12]" in found["Browser"]
    assert f"@litertjs/core@{_litert_js.VERSION}" in found["Browser"]


def test_real_numbers_and_grey_pixels_are_packed_as_such():
    found = texts(kr.Signature((8, 8, 1), "float32", "float32", logits=False))
    assert 'convert("L")' in found["Python"]
    assert "probabilities = scores" in found["Python"]
    assert "direct(8 * 8 * 1 * 4)" in found["Kotlin"]
    assert "putFloat(grey.toFloat())" in found["Kotlin"]
    assert "output.getFloat()" in found["Kotlin"]
    assert "var values: [Float] = []" in found["Swift"]
    assert "new Float32Array(width * height * 1)" in found["Browser"]
    for text in found.values():
        assert "exp(" not in text


def test_brackets_are_closed_in_every_language():
    for signature in (SIGNATURE, kr.Signature((8, 8, 1), "float32", "float32", logits=False)):
        for title, text in texts(signature).items():
            code = re.sub(r'"(\\.|[^"\\\n])*"', '""', text)
            code = code.replace("0..<", "").replace("i..<i", "")
            for left, right in ("()", "[]", "{}"):
                assert code.count(left) == code.count(right), (title, left)
            assert "{%" not in text
            assert "{{" not in text


def test_a_file_name_cannot_break_out_of_its_quotes():
    found = texts(name='a"; evil("$x.tflite')
    assert 'Interpreter("a\\"; evil(\\"$x.tflite")' in found["Python"]
    assert 'openFd("a\\"; evil(\\"\\$x.tflite")' in found["Kotlin"]
    assert 'loadAndCompile("a\\"; evil(\\"$x.tflite"' in found["Browser"]
    html = kr.render(sample(files=(row(name="</code><script>x</script>"),), signature=SIGNATURE))
    assert_loads_nothing(html)


def test_the_page_has_the_code_once_it_knows_what_the_file_takes():
    html = kr.render(sample(signature=SIGNATURE))
    assert_loads_nothing(html)
    words = Page(html).words
    assert "takes one photo of 12 × 16 RGB pixels as uint8" in words
    assert "from ai_edge_litert.interpreter import Interpreter" in words
    assert html.count('class="snippet"') == 5
    assert 'id="code"' not in kr.render(sample())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: kr.Signature((1, 8, 8, 3), "uint8", "uint8"), ValueError, "Leave the batch out"),
        (lambda: kr.Signature((8, 8, 4), "uint8", "uint8"), ValueError, "1 or 3 channels"),
        (lambda: kr.Signature((8.0, 8, 3), "uint8", "uint8"), TypeError, r"input_shape\[0\]"),
        (lambda: kr.Signature((0, 8, 3), "uint8", "uint8"), ValueError, r"input_shape\[0\].*>= 1"),
        (lambda: kr.Signature((8, 8, 3), "int8", "uint8"), ValueError, "`input_dtype` must be"),
        (lambda: kr.Signature((8, 8, 3), "uint8", "int8"), ValueError, "`output_dtype` must be"),
        (
            lambda: kr.Signature((8, 8, 3), "uint8", "uint8", 0.0),
            ValueError,
            "`output_scale` must be",
        ),
        (
            lambda: kr.Signature((8, 8, 3), "uint8", "uint8", 0.1, 256),
            ValueError,
            "output_zero_point",
        ),
        (
            lambda: sample(files=(row(shipped=False),), signature=SIGNATURE),
            ValueError,
            "`signature` must be that of a shipped file",
        ),
    ],
)
def test_bad_signatures_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
