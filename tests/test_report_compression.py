"""What compression changed: the error of each layer, the photos that were lost and won."""

import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kerasopt as ko
from kerasopt import _run_report
from kerasopt import report as kr
from kerasopt.report._metrics import chance
from tests.models import small_cnn, stripes
from tests.report_page import Page, assert_loads_nothing, picture, sample

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
BEFORE = np.array([0, 0, 0, 1, 1, 1, 2, 2, 0, 0])
AFTER = np.array([0, 1, 2, 0, 1, 1, 1, 2, 0, 1])
# right twice: 4; lost: 2; won: 2; wrong twice: 2, one of them by another name


def changed(**changes):
    values = {
        "labels": LABELS,
        "predictions": AFTER,
        "confidences": np.full(10, 0.5),
        "keras_predictions": BEFORE,
    }
    return sample(**{**values, **changes})


def test_the_page_counts_what_was_lost_and_won():
    html = kr.render(changed())
    assert_loads_nothing(html)
    words = Page(html).words
    assert "both are right on 4 and wrong on 2, of which the file calls 1 by another" in words
    assert "The file loses 2 that the model had right, and wins 2 ." in words
    assert "McNemar" not in words  # as many lost as won: nothing to test
    assert words.count("No pictures of them were given.") == 2
    assert 'href="#compression"' in html


def test_an_uneven_split_is_told_with_how_likely_chance_makes_it():
    after = LABELS.copy()
    after[:3] = 1
    words = Page(kr.render(changed(predictions=after, keras_predictions=LABELS))).words
    assert "loses 3 that the model had right, and wins 0 ." in words
    assert "so unevenly in 25.0 % of cases (exact McNemar test)" in words


def test_without_the_keras_answers_nothing_is_said_of_compression():
    html = kr.render(sample())
    assert 'id="compression"' not in html
    assert "McNemar" not in html


def test_pictures_of_both_kinds_stand_with_their_names():
    lost = kr.Flip(picture(seed=1), "daisy", "daisy", "iris", 0.61)
    won = kr.Flip(picture(seed=2), "tulip", "iris", "tulip", 0.72)
    assert lost.is_lost
    assert not won.is_lost
    html = kr.render(changed(flips=(won, lost)))
    figures = re.findall(r'<figure class="mistake (lost|won)[^"]*">(.*?)</figure>', html, re.DOTALL)
    told = [(kind, " ".join(Page(f"<b>{text}</b>").words.split())) for kind, text in figures]
    assert told == [
        ("lost", "was daisy now iris 61.0 %"),
        ("won", "was iris now tulip 72.0 %"),
    ]


def test_many_large_pictures_keep_the_page_below_3_mb():
    noise = [picture(224, seed=i) for i in range(100)]
    rows = tuple(np.stack(noise[10 * i : 10 * i + 10]) for i in range(10))
    html = kr.render(
        changed(
            augmented=rows,
            mistakes=tuple(kr.Mistake(p, "iris", "tulip", 0.9) for p in noise[:40]),
            flips=tuple(
                kr.Flip(p, "iris", *(("iris", "tulip") if i % 2 else ("tulip", "iris")), 0.5)
                for i, p in enumerate(noise[:60])
            ),
        )
    )
    assert len(html) < 3_000_000
    assert html.count('class="mistake lost') == html.count('class="mistake won') == 12


@given(st.integers(0, 60), st.integers(0, 60))
def test_chance_is_the_two_sided_binomial(lost, won):
    scipy_stats = pytest.importorskip("scipy.stats")
    if lost + won == 0:
        assert chance(0, 0) == 1.0
    else:
        assert chance(lost, won) == pytest.approx(
            scipy_stats.binomtest(lost, lost + won, 0.5).pvalue
        )


def test_layers_have_bars_of_bytes_zeros_and_error():
    rows = (
        {"name": "a/conv;a/bn/add", "layer": "conv", "bytes": 50, "error": 0.02},
        {"name": "net/b/dense", "bytes": 200, "error": 0.08, "parameters": 210, "zeros": 50},
        {"name": "c", "bytes": 0, "error": float("inf"), "kernel_parameters": 100, "zeros": 50},
        {"name": "d", "error": None},
    )
    html = kr.render(sample(layers=rows))
    table = html.split('id="layer-table"')[1].split("</table>")[0]
    body = table.split("<tbody>")[1]
    names = re.findall(r'<th scope="row"><span class="clip" title="([^"]*)">([^<]*)<', body)
    assert names == [
        ("a/conv;a/bn/add", "conv"),
        ("net/b/dense", "b/dense"),
        ("c", "c"),
        ("d", "d"),
    ]
    assert re.findall(r'class="bar " style="--v:([\d.]+)', body) == ["0.25", "1.0", "0.0"]
    assert re.findall(r'class="bar zeros" style="--v:([\d.]+)', body) == ["0.2381", "0.5"]
    assert re.findall(r'class="bar wrong" style="--v:([\d.]+)', body) == ["0.25", "1.0", "1.0"]
    assert "∞" in body
    assert 'data-value="inf"' in body
    assert ">Error<" not in kr.render(sample())


@pytest.mark.slow
def test_a_run_finds_the_layer_and_the_error_of_every_operator():
    """The oracle of the errors is the difference itself, in NumPy, at one layer."""
    x, y = stripes(48)
    model = small_cnn()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=2, verbose=0)
    content = ko.export.to_tflite(
        model, quantize="int8", representative_data=x, verify=False
    ).content
    run = type("Trained", (), {"model": model, "test": [(x, y)]})
    rows = _run_report._layers(run, content)
    found = {row["layer"]: row["error"] for row in rows if row.get("layer")}
    assert len(found) >= 3
    assert set(found) <= {layer.name for layer in model.layers}
    assert all(0 < error < 0.2 for error in found.values())
    expected = model.predict(x, verbose=0)
    off = ko.export.TFLiteModel(content).predict(x[:16]) - expected[:16]
    error = np.sqrt(np.sum(off**2) / np.sum(expected[:16] ** 2))
    assert rows[-1]["error"] == pytest.approx(error, rel=1e-3)


def test_flips_of_a_run_are_the_surest_of_each_kind():
    images = np.arange(10.0).reshape(10, 1, 1, 1) * np.ones((10, 4, 4, 3))
    sure = np.linspace(0.6, 0.9, 10)
    probabilities = np.stack([(1 - sure) / 2] * 3, axis=-1)
    probabilities[np.arange(10), AFTER] = sure
    flips = _run_report._flips(images, LABELS, BEFORE, probabilities, ("a", "b", "c"))
    assert [(f.image[0, 0, 0], f.actual, f.before, f.after) for f in flips] == [
        (2, "a", "a", "c"),
        (1, "a", "a", "b"),
        (6, "b", "c", "b"),
        (3, "a", "b", "a"),
    ]
    assert flips[0].confidence == pytest.approx(sure[2])
