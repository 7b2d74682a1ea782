"""All of `keras.applications`: the smallest of each family here, the others in the tables."""

import importlib
import json
import pathlib

import keras
import pytest

from kerasopt.transfer._backbones import APPLICATIONS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("transfer", "quantization", "export")
SMALLEST = {  # size, blocks, the first and the last
    "MobileNet": (32, 14, "conv1", "conv_13"),
    "MobileNetV2": (32, 19, "Conv1", "Conv_1"),
    "MobileNetV3Small": (32, 13, "conv", "conv_1"),
    "EfficientNetB0": (32, 18, "stem", "top"),
    "EfficientNetV2B0": (32, 23, "stem", "top"),
    "ConvNeXtTiny": (32, 22, "convnext_tiny_stem", "convnext_tiny_stage_3_block_2"),
    "ResNet50": (32, 17, "conv1", "conv5_block3"),
    "ResNet50V2": (32, 17, "conv1", "conv5_block3"),
    "DenseNet121": (32, 62, "conv1", "conv5_block16"),
    "InceptionV3": (75, 12, "stem", "mixed10"),
    "InceptionResNetV2": (75, 45, "stem", "conv_7b"),
    "Xception": (71, 14, "block1", "block14"),
    "VGG16": (32, 5, "block1", "block5"),
    "NASNetMobile": (32, 17, "stem", "cell_12"),
}


@pytest.fixture
def applications(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("applications")


def recorded(part):
    return json.loads(part.RESULT.read_text(encoding="utf-8"))["figures"]["models"]


def test_all_models_of_keras_are_known():
    assert len(APPLICATIONS) == 40
    assert all(callable(getattr(keras.applications, name)) for name in APPLICATIONS)


@pytest.mark.parametrize("name", PARTS)
def test_every_model_is_proven(applications, name):
    part = applications.PARTS[name]
    models = recorded(part)
    assert sorted(models) == sorted(APPLICATIONS)
    for model, found in models.items():
        assert all(found[check] for check in part.CHECKS), model


def test_blocks_are_many_and_none_is_most_of_a_model(applications):
    for model, found in recorded(applications.PARTS["transfer"]).items():
        assert found["blocks"] >= 5, model
        assert found["largest_block"] < 0.5, model


def test_all_but_a_few_models_are_int8_throughout(applications):
    models = recorded(applications.PARTS["quantization"])
    whole = [name for name, found in models.items() if not found["islands"]]
    assert all(models[name]["float_operators"] == 0 for name in whole)
    assert len(whole) >= 35


def test_the_smallest_of_each_family_is_int8_with_its_own_top(applications):
    part = applications.PARTS["quantization"]
    assert sorted(part.SMALLEST) == sorted(SMALLEST)
    for name in SMALLEST:
        found = recorded(part)[name]["plain"]
        assert all(found[check] for check in part.CHECKS), name
        assert (found["float_operators"] == 0) == (name != "InceptionResNetV2")


@pytest.mark.parametrize("name", PARTS)
def test_the_table_of_the_docs_is_what_was_recorded(applications, name):
    part = applications.PARTS[name]
    text = part.DOCS.read_text(encoding="utf-8")
    written = text.partition("<!-- applications -->\n")[2].partition("<!-- /applications -->")[0]
    assert written == part.table(recorded(part))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_of_each_family(applications, name, tmp_path):
    size, count, first, last = SMALLEST[name]
    # The record holds the compiled step of all of them; here one is enough.
    found = applications.prove(name, tmp_path, size=size, eager=name != "MobileNetV2")
    assert {check: found[check] for check in applications.CHECKS} == dict.fromkeys(
        applications.CHECKS, True
    )
    assert (found["blocks"], found["first_block"], found["last_block"]) == (count, first, last)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("part", ["quantization", "export"])
def test_the_files_of_the_smallest_of_each_family(applications, part, name, tmp_path):
    module = applications.PARTS[part]
    # The record holds those with their own top as well, and more images.
    options = {"plain": False, "samples": 4} if part == "quantization" else {}
    found = module.prove(name, tmp_path, **options)
    checks = {check: found[check] for check in module.CHECKS}
    assert checks == dict.fromkeys(module.CHECKS, True), found
