"""The page in a real browser: a photo is dropped, and the answer is that of the interpreter."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from kerasopt import _litert_js
from kerasopt.datasets import load_image
from kerasopt.export import Metadata, TFLiteModel, to_tflite
from kerasopt.serving import PhotoServer
from tests.chromium import needs_chromium
from tests.models import compiled, small_cnn, stripes

NAMES = ("north west", "north east", "south west", "süd-ost")
pytestmark = [
    pytest.mark.slow,
    needs_chromium,
    pytest.mark.skipif(
        not _litert_js.is_installed(), reason="needs LiteRT.js in the package (make web)"
    ),
]

DROP = """([name, kind, content]) => {
  const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: kind}));
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.querySelector(".drop").dispatchEvent(
      new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));
  }
}"""
ANSWERED = """name => {
  const answer = document.querySelector("#answer").dataset.answer;
  return answer && JSON.parse(answer).name === name;
}"""


@pytest.fixture
def open_page(browser):
    """Opens the page of a server in a context of its own; nothing else may be asked for."""
    contexts = []

    def open_page(server, script=None, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        if script:
            page.add_init_script(script)
        page.goto(server.url)
        page.wait_for_selector('body[data-state="ready"]', timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()


def drop(page, path):
    content = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(DROP, [path.name, f"image/{path.suffix[1:]}", content])
    page.wait_for_function(ANSWERED, arg=path.name, timeout=30_000)
    return json.loads(page.get_attribute("#answer", "data-answer"))


@pytest.fixture(scope="module")
def trained():
    """Small nets that tell the bright quarter, in colour and in grey."""
    models = {}
    for channels in (3, 1):
        model = compiled(small_cnn(channels=channels))
        x, y = stripes(256, channels=channels)
        model.fit(x, y, epochs=12, batch_size=16, verbose=0)
        models[channels] = model
    return models


def enlarged(index, size=(200, 150)):
    """A photo whose middle has the bright quarter of one of the stripes."""
    x, y = stripes(16)
    image = Image.fromarray(np.round(x[index]).astype("uint8"))
    return image.resize(size, Image.Resampling.BICUBIC), int(y[index])


KINDS = [
    pytest.param("float32", None, 3, {}, 2e-5, id="float32"),
    pytest.param("normalized", None, 3, {}, 2e-5, id="normalized"),
    pytest.param("grey", None, 1, {"probabilities": True}, 2e-5, id="grey"),
    pytest.param("int8", "int8", 3, {}, None, id="int8"),
    pytest.param(
        "bytes", "int8", 3, {"output_dtype": "uint8", "probabilities": True}, None, id="bytes"
    ),
]


@pytest.mark.parametrize(("name", "quantize", "channels", "options", "tolerance"), KINDS)
def test_the_dropped_photo_gets_the_answer_of_the_interpreter(
    trained, open_page, tmp_path, name, quantize, channels, options, tolerance
):
    model, metadata = trained[channels], Metadata(labels=NAMES)
    if name == "normalized":
        metadata = Metadata(labels=NAMES, mean=127.5, std=(127.5, 60.0, 255.0))
    data = stripes(32, channels=channels)[0] if quantize else None
    to_tflite(
        model,
        tmp_path / "model.tflite",
        quantize=quantize,
        representative_data=data,
        metadata=metadata,
        **options,
    )
    lite = TFLiteModel(tmp_path / "model.tflite")
    # Integers of the last layer may differ by a step: other processors add in another order.
    x = stripes(64, channels=channels)[0]
    allowed = tolerance or 1.5 * np.ptp(lite.predict(x)) / 255
    with PhotoServer(tmp_path, port=0) as server:
        page = open_page(server)
        for index in range(4):
            image, label = enlarged(index)
            path = tmp_path / f"{name}_{index}.png"
            image.save(path)
            answer = drop(page, path)
            pixels = load_image(path, (12, 12))
            if channels == 1:
                grey = Image.open(path).convert("L")
                grey = grey.resize((12, 12), Image.Resampling.BILINEAR, box=(25, 0, 175, 150))
                pixels = np.asarray(grey)[..., None]
            x = pixels[None].astype("float32")
            if name == "normalized":
                x = (x - 127.5) / np.array([127.5, 60.0, 255.0], "float32")
            expected = lite.predict(x)[0]
            np.testing.assert_allclose(answer["outputs"], expected, rtol=0, atol=allowed)
            best = answer["classes"][0]
            assert best["index"] == int(expected.argmax())
            if name != "normalized":  # whose model was trained on other numbers
                assert best["index"] == label
            assert page.inner_text("#label") == NAMES[best["index"]] == best["label"]
            assert np.isclose(sum(c["probability"] for c in answer["classes"]), 1.0, atol=0.02)
            assert page.inner_text("#time") == page.inner_text("#time").strip() != ""
            assert answer["milliseconds"] > 0
        assert page.locator("#classes li").count() == 4
        assert page.locator("#photos button").count() == 4
        assert all(url.startswith((server.url, "blob:", "data:")) for url in page.asked), page.asked


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    to_tflite(trained[3], folder / "model.tflite", labels=NAMES)
    with PhotoServer(folder, port=0) as server:
        yield server


def outputs_for(server, path):
    lite = TFLiteModel(server._content)
    return lite.predict(load_image(path, (12, 12))[None].astype("float32"))[0]


def test_photos_as_cameras_and_editors_write_them(server, open_page, tmp_path):
    image, _ = enlarged(1, (240, 180))
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "turned.jpeg", quality=95, exif=turned)
    image.save(tmp_path / "large.webp", lossless=True)
    see_through = image.convert("RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize(image.size))
    see_through.save(tmp_path / "see_through.png")
    image.convert("P").save(tmp_path / "palette.gif")
    page = open_page(server)
    spread = np.ptp(outputs_for(server, tmp_path / "large.webp"))
    for path in sorted(tmp_path.glob("*.*")):
        answer = drop(page, path)
        expected = outputs_for(server, path)
        # Browser and Pillow round differently where they blend, rotate or decode JPEG.
        np.testing.assert_allclose(
            answer["outputs"], expected, rtol=0, atol=0.02 * spread, err_msg=path.name
        )


def test_a_browser_without_threads(server, open_page, tmp_path):
    page = open_page(server, "Object.defineProperty(self, 'crossOriginIsolated', {value: false})")
    assert page.inner_text("#runtime") == f"LiteRT.js {_litert_js.VERSION}, 1 thread"
    assert not any("threaded" in url for url in page.asked)
    enlarged(2)[0].save(tmp_path / "photo.png")
    answer = drop(page, tmp_path / "photo.png")
    expected = outputs_for(server, tmp_path / "photo.png")
    np.testing.assert_allclose(answer["outputs"], expected, rtol=0, atol=2e-5)


def test_what_is_no_photo_is_said_and_the_next_one_works(server, open_page, tmp_path):
    page = open_page(server)
    assert page.evaluate("crossOriginIsolated")
    (tmp_path / "notes.png").write_bytes(b"no photo")
    content = base64.b64encode(b"no photo").decode()
    page.evaluate(DROP, ["notes.png", "image/png", content])
    page.wait_for_selector("#problem:visible")
    assert "“notes.png” is not a photo" in page.inner_text("#problem")
    enlarged(0)[0].save(tmp_path / "photo.png")
    page.set_input_files("#file", tmp_path / "photo.png")
    page.wait_for_function(ANSWERED, arg="photo.png")
    assert page.is_hidden("#problem")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_the_page_never_scrolls_sideways_and_paints(server, open_page, tmp_path, width, dark):
    scheme = "dark" if dark else "light"
    page = open_page(server, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for index in range(3):
        path = tmp_path / f"{index}{'_and_a_long_name' * 8}.png"
        enlarged(index)[0].save(path)
        drop(page, path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0 || !i.src)")
    page.screenshot(path=tmp_path / "shot.png")
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("L")).astype(int)
    corner = pixels[:8, -8:].mean()
    assert corner < 60 if dark else corner > 220
    assert np.mean(np.abs(pixels - corner) > 80) > 0.02
