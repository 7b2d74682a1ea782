"""All of `keras.applications`: the smallest of each family here, the others in the table."""

import importlib
import json
import pathlib

import keras
import pytest

from kerasopt.transfer._backbones import APPLICATIONS

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "applications.json"


@pytest.fixture
def applications(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("applications")


def test_all_models_of_keras_are_known():
    assert len(APPLICATIONS) == 40
    assert all(callable(getattr(keras.applications, name)) for name in APPLICATIONS)


def test_every_model_is_proven(applications):
    models = json.loads(RESULT.read_text(encoding="utf-8"))["figures"]["models"]
    assert sorted(models) == sorted(APPLICATIONS)
    for name, found in models.items():
        assert all(found[check] for check in applications.CHECKS), name
        assert found["blocks"] >= 5, name
        assert found["largest_block"] < 0.5, name


def test_the_table_of_the_docs_is_what_was_recorded(applications):
    models = json.loads(RESULT.read_text(encoding="utf-8"))["figures"]["models"]
    text = (ROOT / "docs" / "transfer.md").read_text(encoding="utf-8")
    written = text.partition("<!-- applications -->\n")[2].partition("<!-- /applications -->")[0]
    assert written == applications.table(models)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "count", "first", "last"),
    [
        ("MobileNet", 32, 14, "conv1", "conv_13"),
        ("MobileNetV2", 32, 19, "Conv1", "Conv_1"),
        ("MobileNetV3Small", 32, 13, "conv", "conv_1"),
        ("EfficientNetB0", 32, 18, "stem", "top"),
        ("EfficientNetV2B0", 32, 23, "stem", "top"),
        ("ConvNeXtTiny", 32, 22, "convnext_tiny_stem", "convnext_tiny_stage_3_block_2"),
        ("ResNet50", 32, 17, "conv1", "conv5_block3"),
        ("ResNet50V2", 32, 17, "conv1", "conv5_block3"),
        ("DenseNet121", 32, 62, "conv1", "conv5_block16"),
        ("InceptionV3", 75, 12, "stem", "mixed10"),
        ("InceptionResNetV2", 75, 45, "stem", "conv_7b"),
        ("Xception", 71, 14, "block1", "block14"),
        ("VGG16", 32, 5, "block1", "block5"),
        ("NASNetMobile", 32, 17, "stem", "cell_12"),
    ],
)
def test_the_smallest_of_each_family(applications, name, size, count, first, last, tmp_path):
    # The record holds the compiled step of all of them; here one is enough.
    found = applications.prove(name, tmp_path, size=size, eager=name != "MobileNetV2")
    assert {check: found[check] for check in applications.CHECKS} == dict.fromkeys(
        applications.CHECKS, True
    )
    assert (found["blocks"], found["first_block"], found["last_block"]) == (count, first, last)
