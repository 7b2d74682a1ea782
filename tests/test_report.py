"""The page that tells a run: what is on it, what is never on it, how it is written."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from kerasopt import report as kr
from tests.report_page import SECTIONS, Page, assert_loads_nothing, picture, row, sample


@pytest.fixture(scope="module")
def html():
    return kr.render(sample())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_page_is_well_formed_and_has_every_section(page):
    assert page.open == []
    assert set(SECTIONS) | {"layers", "notes"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1
    links = [v.removeprefix("#") for v in page.values("a", "href")]
    assert links
    assert set(links) <= set(page.ids)


def test_page_loads_nothing(html):
    assert_loads_nothing(html)


def test_numbers_of_the_input_are_on_the_page(page):
    words = page.words
    for text in ("Three flowers", "A head was trained.", "MobileNetV2", "Test CPU 9000", "1.2.3"):
        assert text in words
    # accuracy, agreement, bytes and the ratio of sizes, fastest time, difference to Keras
    for text in ("87.5 %", "91.0 %", "98.6 %", "3.42 MiB", "13.00 MiB", "1.86 MiB"):
        assert text in words
    for text in ("3.8× smaller than float32", "8.21", "14.3", "−3.5 points", "shipped"):
        assert text in words
    assert "120 train · 6 test" in words
    assert "4 right, 2 wrong" in words
    assert "90.0 % when right, 70.0 % when wrong" in words
    assert "lowest validation 0.6 in epoch 2" in words
    assert "best validation 80.0 % in epoch 2" in words
    assert "block_6 and up unfrozen after epoch 1" in words
    assert "conv_1 – 50.0 % Conv2D 100 –" in words


def test_confusion_cells_say_who_was_taken_for_whom(page):
    cells = [title for title in page.values("td", "title") if " called " in title]
    assert "daisy called iris: 1 of 2" in cells
    assert "iris called iris: 2 of 2" in cells
    assert len(cells) == 5
    bars = [v for v in page.values("li", "title") if " of 2" in v]
    assert bars == ["daisy: 1 of 2", "tulip: 1 of 2", "iris: 2 of 2"]


def test_curves_lie_where_the_values_are(html):
    # loss: 3 epochs, ticks 0.0 to 1.2, so epoch 1 with loss 1.0 lies at a third, (1.2-1)/1.2 down
    training = re.search(r'class="line training" d="([^"]+)"', html).group(1)
    first, *_, last = [tuple(map(float, p.split())) for p in re.split("[ML]", training)[1:]]
    ticks = re.findall(r'class="y" style="top:([\d.]+)%">([\d.]+)<', html)
    high = float(ticks[0][1]) if float(ticks[0][0]) == 0 else max(float(t) for _, t in ticks[:9])
    tops = {float(text): float(top) for top, text in ticks[:9]}
    assert first[0] == pytest.approx(100 / 3, abs=0.01)
    assert last[0] == 100
    span = max(tops.values())
    assert tops[0.0] == span == 100
    high = next(value for value, top in tops.items() if top == 0)
    assert first[1] == pytest.approx((high - 1.0) / high * 100, abs=0.01)
    assert last[1] == pytest.approx((high - 0.25) / high * 100, abs=0.01)


def test_events_are_lines_and_numbered_pins(html, page):
    assert html.count('class="event unfreeze" d="M33.33 0V100"') == 2  # loss and accuracy
    assert html.count('class="event quantize" d="M66.67 0V100"') == 2
    assert page.ids.count("curves") == 1
    assert "fake quantization on, after epoch 2" in html


def test_events_at_the_same_moment_do_not_cover_each_other():
    same = tuple(kr.Event(1.0, "prune", f"event {i}") for i in range(3))
    html = kr.render(sample(events=(*same, kr.Event(3.0, "other", "far away"))))
    levels = re.findall(r'class="pin \w+" style="left:([\d.]+)%;--level:(\d)"', html)
    assert levels[:4] == [("33.33", "0"), ("33.33", "1"), ("33.33", "2"), ("100.0", "0")]


def test_rendering_is_deterministic(html):
    assert kr.render(sample()) == html


def test_everything_is_escaped():
    evil = '<script>alert("x")</script>'
    quote = '" onmouseover="alert(1)'
    report = sample(
        title=evil,
        summary=(evil, f"`{evil}`"),
        settings={evil: quote},
        class_names=(evil, quote, "tulip"),
        counts={evil: {evil: 1, quote: 2}},
        history={evil: [1.0], f"val_{quote}": [2.0]},
        events=(kr.Event(0.5, "other", evil + quote),),
        mistakes=(kr.Mistake(picture(), evil, quote, 0.5),),
        files=(row(name=evil + quote),),
        layers=({"name": quote, "kind": evil},),
        notes=(evil, f"`{quote}`", "a lone ` backtick <b>"),
        environment={evil: evil, "processor": evil},
    )
    html = kr.render(report)
    assert_loads_nothing(html)
    assert html.count("<script") == 1  # ours
    assert "<code>&lt;script&gt;" in html
    assert "a lone ` backtick &lt;b&gt;" in html


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mistakes": ()}, "No pictures of mistakes were given."),
        ({"augmented": ()}, "trained without augmentation"),
        ({"history": {}, "events": ()}, "Nothing was logged"),
        ({"events": ()}, "Learning curves"),
        ({"files": ()}, "No file was made."),
        ({"files": (row(shipped=False),)}, "66.7 %"),
        ({"files": (row(accuracy=None),)}, "66.7 %"),
        ({"files": (row(keras_accuracy=None, agreement=None, milliseconds={}),)}, "Agreement –"),
        ({"counts": {}, "summary": (), "settings": {}, "environment": {}}, "Not stated."),
        ({"counts": {"train": {"daisy": 4}, "test": {"iris": 5}}}, "daisy 4 –"),
        ({"layers": (), "notes": ()}, "Environment"),
        ({"layers": ({"name": "x"}, {})}, "2 layers"),
        ({"history": {"loss": [0.7], "val_loss": [0.9]}}, "validation 0.9"),
        ({"history": {"loss": [1.0, float("nan"), 0.5]}}, "1 value was not a finite number"),
        ({"history": {"loss": [float("nan")] * 3}}, "3 values were not a finite number"),
        ({"history": {"loss": [0.5, 0.5], "acc": [1.0, 1.0]}}, "Accuracy"),
        ({"history": {"loss": [float("inf"), 3e9], "learning_rate": [1e-7, 1e-8]}}, "3e+09"),
        ({"class_names": ("雏菊", "Schwertlilie 🌸", "تيوليب")}, "Schwertlilie 🌸"),
        ({"class_names": ("a" * 300, "b " * 200, "c")}, "a" * 300),
        ({"predictions": np.array([0, 0, 1, 1, 2, 2])}, "No test photo was taken for another"),
    ],
)
def test_edge_cases(changes, expected):
    html = kr.render(sample(**changes))
    page = Page(html)
    assert_loads_nothing(html)
    assert set(SECTIONS) <= set(page.ids)
    assert expected in page.words
    assert "nan" not in re.sub(r"base64,[^\"]+", "", html).lower().split()


def test_no_test_photos():
    empty = np.zeros(0)
    report = sample(labels=empty, predictions=empty, confidences=empty, mistakes=(), files=())
    page = Page(kr.render(report))
    assert "No test photos were given." in page.words
    assert "not measured" in page.words


def test_validation_every_second_epoch_keeps_its_place():
    html = kr.render(sample(history={"loss": [4, 3, 2, 1], "val_loss": [3.5, 1.5]}, events=()))
    titles = re.findall(r"<title>(epoch \d, validation: [\d.]+)</title>", html)
    assert titles == ["epoch 2, validation: 3.5", "epoch 4, validation: 1.5"]


@pytest.mark.parametrize(("count", "cells"), [(2, 4), (20, 400), (25, 625), (26, 0), (100, 0)])
def test_matrix_up_to_25_classes_then_only_the_pairs(count, cells):
    names = tuple(f"class {i}" for i in range(count))
    labels = np.repeat(np.arange(count), 3)
    predictions = labels.copy()
    predictions[:3] = 1
    report = sample(
        class_names=names,
        labels=labels,
        predictions=predictions,
        confidences=np.full(len(labels), 0.5),
    )
    html = kr.render(report)
    matrix = re.search(r'<table class="matrix".*?</table>', html, re.DOTALL)
    assert (len(re.findall("<td", matrix.group())) - 1 if matrix else 0) == cells
    pairs = re.search(r'id="pairs".*?</table>', html, re.DOTALL).group()
    assert "class 0" in pairs
    assert "class 1" in pairs
    assert ">3 <" in pairs


def decoded(address):
    kind, _, data = address.partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_small_pictures_are_exact_and_large_ones_shrink():
    small, large = picture(20, 1), np.full((400, 200, 3), (200, 30, 60), np.uint8)
    report = sample(augmented=(), mistakes=(kr.Mistake(small, "iris", "daisy", 0.8),))
    kind, pixels = decoded(Page(kr.render(report)).values("img", "src")[0])
    assert kind == "data:image/png"
    np.testing.assert_array_equal(pixels, small[..., 0])

    report = sample(augmented=(large[None],), mistakes=())
    kind, pixels = decoded(Page(kr.render(report)).values("img", "src")[0])
    assert kind == "data:image/jpeg"
    assert pixels.shape == (160, 80, 3)
    assert np.abs(pixels.astype(int) - (200, 30, 60)).max() <= 3


def test_page_stays_under_3_mb_with_noise_for_pictures():
    rows = tuple(np.stack([picture(224, seed=i) for i in range(12)]) for _ in range(10))
    mistakes = tuple(kr.Mistake(picture(224, seed=i), "iris", "tulip", 0.9) for i in range(40))
    html = kr.render(sample(augmented=rows, mistakes=mistakes))
    assert len(html) < 3_000_000
    assert "24 of 40" in Page(html).words


def test_write_report_replaces_the_file_and_leaves_nothing_else(tmp_path, html):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert kr.write_report(sample(), str(path)) == path
    assert path.read_text(encoding="utf-8") == html
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_write_report_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    broken = dataclasses.replace(sample(), title="lone surrogate \ud800")
    with pytest.raises(UnicodeEncodeError):
        kr.write_report(broken, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_write_report_refuses_folders(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must be a file.*Create the folder"):
        kr.write_report(sample(), tmp_path / "missing" / "report.html")
    with pytest.raises(ValueError, match="`path` must be a file"):
        kr.write_report(sample(), tmp_path)
