"""Files of quantization-aware models beside those of TF-MOT on tf_keras, with the same weights."""

import importlib
import json
import pathlib

import numpy as np
import pytest

import kerasopt as ko
from tests.models import small_cnn

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def beside_tfmot(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("beside_tfmot")


def check(found):
    operators = found["operators"]
    for kind in ("float", "quantize"):
        assert operators["kerasopt"][kind] <= operators["tfmot"][kind]
    convolutions = found["kernels"]["CONV_2D"]
    # A weight that lies halfway between two levels falls to either side: the last bit of a
    # folded BatchNormalization is another one in the two programs.
    assert convolutions["kernels"] >= 3
    assert convolutions["most_levels_off"] <= 1
    assert convolutions["weights_a_level_off"] <= 1e-4 * convolutions["weights"]
    assert found["faults"] == []


def test_networks_are_recorded_and_hold(beside_tfmot):
    record = json.loads((ROOT / "benchmarks" / "results" / "beside_tfmot.json").read_text())
    assert sorted(record["figures"]) == sorted(beside_tfmot.NETWORKS)
    for found in record["figures"].values():
        check(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "MobileNetV2"])
def test_kernels_are_those_of_tfmot_and_nothing_more_is_float(beside_tfmot, name, tmp_path):
    check(beside_tfmot.prove(name, tmp_path))


def test_what_is_compared_has_kernels_to_compare():
    aware = ko.quantization.quantize_aware(small_cnn())
    found = ko.quantization.kernel_levels(aware)
    assert [kernel.layer for kernel in found] == [
        "stem_conv",
        "block1_depthwise",
        "block1_project",
        "block2_conv",
        "logits",
    ]
    stem = aware.get_layer("stem_conv").layer.kernel.numpy()
    rows = stem.transpose(3, 0, 1, 2).reshape(8, -1)
    np.testing.assert_allclose(found[0].scale, np.abs(rows).max(1) / 127, rtol=1e-6)
    np.testing.assert_array_equal(found[0].levels, np.round(rows / found[0].scale[:, None]))
