"""A file as a C array, compiled; and the arena, counted by hand."""

import math
import shutil
import subprocess

import keras
import numpy as np
import pytest

from kerasopt.export import to_c_array, to_tflite
from kerasopt.profiling import arena_bytes
from kerasopt.profiling._arena import Life, _packed
from tests.models import small_cnn

layers = keras.layers

PROGRAM = """
#include <stdio.h>
#include <stdint.h>
#include "net.h"
int main(void) {
  unsigned long long sum = 0;
  for (unsigned int i = 0; i < net_size; ++i) sum = sum * 31 + net_data[i];
  printf("%u %u %llu %u %d\\n", net_size, (unsigned)sizeof(net_data), sum,
         (unsigned)((uintptr_t)net_data % 16), NET_ARENA_BYTES);
  return 0;
}
"""


@pytest.fixture(scope="module")
def content():
    return to_tflite(small_cnn()).content


@pytest.mark.parametrize(("compiler", "suffix"), [("gcc", "c"), ("g++", "cpp")])
def test_the_header_compiles_to_the_same_bytes(content, tmp_path, compiler, suffix):
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    assert to_c_array(content, tmp_path / "net.h", name="net") == tmp_path / "net.h"
    (tmp_path / f"main.{suffix}").write_text(PROGRAM)
    options = ["-Wall", "-Wextra", "-Werror", "-std=c11" if suffix == "c" else "-std=c++14"]
    subprocess.run([compiler, *options, f"main.{suffix}", "-o", "main"], cwd=tmp_path, check=True)
    shown = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    expected = 0
    for byte in content:
        expected = (expected * 31 + byte) % 2**64
    size = len(content)
    assert [int(n) for n in shown.split()] == [size, size, expected, 0, arena_bytes(content)]


def test_the_operators_are_listed(content, tmp_path):
    (tmp_path / "m.tflite").write_bytes(content)
    text = to_c_array(tmp_path / "m.tflite", tmp_path / "m.h").read_text()
    assert "//   DEPTHWISE_CONV_2D\n" in text
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["m.h", "m.tflite"]


@pytest.mark.parametrize("name", ["2nd", "a-b", "", "int", "x;y", "süd", 3])
def test_names_that_are_none_in_c(content, tmp_path, name):
    with pytest.raises(ValueError, match="`name` must"):
        to_c_array(content, tmp_path / "m.h", name=name)
    assert not any(tmp_path.iterdir())


def aligned(*shape, size=4):
    return -(-math.prod(shape) * size // 16) * 16


def test_a_chain_needs_its_largest_neighbours():
    model = keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.MaxPooling2D(2),
            layers.Conv2D(5, 3, use_bias=False),
        ]
    )
    first, second = aligned(10, 10, 1), aligned(8, 8, 3)
    assert arena_bytes(to_tflite(model).content) == first + second


def test_what_a_residual_connection_keeps():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(2, 3, padding="same")(inputs)
    outputs = layers.Add()([inputs, layers.MaxPooling2D(3, 1, padding="same")(x)])
    # The input is still needed while the pooling reads one map and writes another.
    assert arena_bytes(to_tflite(keras.Model(inputs, outputs)).content) == 3 * aligned(8, 8, 2)


@pytest.mark.parametrize("seed", range(5))
def test_places_of_what_lives_at_once_never_overlap(seed):
    """Between the largest sum of what lives at once and the sum of all."""
    rng = np.random.default_rng(seed)
    lives = []
    for _ in range(30):
        first = int(rng.integers(0, 20))
        lives.append(Life(int(rng.integers(1, 50)) * 16, first, first + int(rng.integers(0, 5))))
    peak = max(sum(x.size for x in lives if x.first <= t <= x.last) for t in range(25))
    assert peak <= _packed(lives) <= 1.5 * peak
