"""A small report and its page, parsed, for the tests of the report."""

import base64
import hashlib
import pathlib
import re
from html.parser import HTMLParser

import numpy as np

from kerasopt import report as kr

SCRIPT = pathlib.Path(kr.__file__).parent / "templates" / "page.js"
NAMES = ("daisy", "iris", "tulip")
SECTIONS = (
    "figures",
    "summary",
    "curves",
    "augmentation",
    "confusion",
    "mistakes",
    "files",
    "environment",
)
VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Collects what the tests ask about and checks that every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.tags, self.attributes, self.text, self.open = [], [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\u202f", " ").split())

    def values(self, tag, key):
        return [v for t, k, v in self.attributes if t == tag and k == key]


def picture(size=20, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8)


def row(**changes):
    values = {
        "name": "model.tflite",
        "kind": "int8",
        "size": 3_590_112,
        "gzip_size": 1_952_330,
        "accuracy": 0.875,
        "keras_accuracy": 0.91,
        "agreement": 0.986,
        "milliseconds": {1: 14.34, 2: 8.21},
        "shipped": True,
    }
    return kr.FileRow(**{**values, **changes})


def sample(**changes):
    values = {
        "title": "Three flowers",
        "summary": ("A head was trained.", "All layers were unfrozen."),
        "settings": {"backbone": "MobileNetV2", "epochs": "3"},
        "class_names": NAMES,
        "counts": {"train": dict.fromkeys(NAMES, 40), "test": dict.fromkeys(NAMES, 2)},
        "history": {
            "loss": [1.0, 0.5, 0.25],
            "accuracy": [0.5, 0.7, 0.9],
            "val_loss": [1.1, 0.6, 0.7],
            "val_accuracy": [0.4, 0.8, 0.75],
            "sparsity": [0.0, 0.25, 0.5],
        },
        "events": (
            kr.Event(1.0, "unfreeze", "block_6 and up unfrozen"),
            kr.Event(2.0, "quantize", "fake quantization on"),
        ),
        "augmented": (np.stack([picture(20, seed=i) for i in range(4)]),),
        "labels": np.array([0, 0, 1, 1, 2, 2]),
        "predictions": np.array([0, 1, 1, 1, 2, 0]),
        "confidences": np.array([0.9, 0.8, 0.9, 0.9, 0.9, 0.6], np.float32),
        "mistakes": (kr.Mistake(picture(), "daisy", "iris", 0.8),),
        "files": (
            row(name="float.tflite", kind="float32", size=13_636_112, shipped=False),
            row(),
        ),
        "layers": ({"name": "conv_1", "kind": "Conv2D", "parameters": 100, "zeros": 50},),
        "notes": ("`resizing` stayed float.",),
        "environment": {"kerasopt": "1.2.3", "processor": "Test CPU 9000"},
    }
    return kr.RunReport(**{**values, **changes})


def assert_loads_nothing(html):
    """Checks that the one script is ours, that its policy lets nothing else run, nothing load."""
    page = Page(html)
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not [key for tag, key, _ in page.attributes if tag == "script"]
    text = html.split("<script>")[1].split("</script>")[0]
    assert text == SCRIPT.read_text(encoding="utf-8")
    name = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert page.values("meta", "content")[0] == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{name}'"
    )
    for word in ("fetch", "XMLHttpRequest", "WebSocket", "import", "eval", "innerHTML", "</"):
        assert word not in text
    for tag, key, value in page.attributes:
        if key in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            assert value.startswith("#" if tag == "a" else "data:image/"), (tag, key, value[:60])
        assert not key.startswith("on")
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"https?://", html)
