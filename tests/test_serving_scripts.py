"""The arithmetic of the page, run by Node: pixels as Pillow makes them, scores as NumPy does."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from kerasopt import datasets

PAGE = pathlib.Path(datasets.__file__).parents[1] / "serving" / "page"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node on the PATH")

RESIZE = """
const { resizeMiddle } = await import(process.argv[1]);
import { readFileSync, writeFileSync } from "node:fs";
for (const job of JSON.parse(readFileSync(process.argv[2]))) {
  const { source, target, width, height, outWidth, outHeight, channels } = job;
  const all = readFileSync(source);
  const readRows = (y, count) => all.subarray(4 * y * width, 4 * (y + count) * width);
  writeFileSync(target, resizeMiddle(readRows, width, height, outWidth, outHeight, channels));
}
"""
SCORES = """
const { toInput, toReal, ranked } = await import(process.argv[1]);
import { readFileSync } from "node:fs";
const answers = JSON.parse(readFileSync(process.argv[2])).map(({ model, values, pixels }) => ({
  ranked: ranked(toReal(values, model), model), input: Array.from(toInput(pixels, model)),
}));
console.log(JSON.stringify(answers));
"""


def node(folder, script, module, jobs):
    """Runs a script on a module of the page; there are no packages, and nothing is installed."""
    for name in ("resize.js", "scores.js"):
        shutil.copy(PAGE / name, folder / name.replace(".js", ".mjs"))
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    command = [NODE, "--input-type=module", "-e", script, folder / module, folder / "jobs.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def photo(height, width, seed):
    """Noise on a gradient: every wrong weight and every wrong rounding shows."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(1, 0.2, height)[:, None, None]
    noise = rng.integers(-90, 91, (height, width, 3))
    return np.clip(ramp + noise, 0, 255).astype("uint8")


SIZES = [
    ((40, 60), (12, 12)),
    ((300, 200), (24, 24)),
    ((333, 517), (96, 96)),
    ((517, 333), (32, 48)),
    ((12, 12), (12, 12)),
    ((5, 7), (24, 16)),
    ((24, 1), (8, 8)),
    ((1, 1), (4, 4)),
    ((700, 30), (10, 30)),
    ((513, 768), (224, 224)),
]


def test_pixels_are_those_of_load_image_to_the_bit(tmp_path):
    jobs = []
    for index, ((height, width), (out_height, out_width)) in enumerate(SIZES):
        image = photo(height, width, index)
        Image.fromarray(image).save(tmp_path / f"{index}.png")
        opaque = np.full((height, width, 1), 255, np.uint8)
        (tmp_path / f"{index}.rgba").write_bytes(np.concatenate([image, opaque], -1).tobytes())
        jobs.append(
            {
                "source": str(tmp_path / f"{index}.rgba"),
                "target": str(tmp_path / f"{index}.out"),
                "width": width,
                "height": height,
                "outWidth": out_width,
                "outHeight": out_height,
                "channels": 3,
            }
        )
    node(tmp_path, RESIZE, "resize.mjs", jobs)
    for index, (_, size) in enumerate(SIZES):
        expected = datasets.load_image(tmp_path / f"{index}.png", size)
        found = np.frombuffer((tmp_path / f"{index}.out").read_bytes(), np.uint8)
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_grey_is_pillows_luma(tmp_path):
    image = photo(50, 50, 0)
    Image.fromarray(image).save(tmp_path / "0.png")
    opaque = np.full((50, 50, 1), 255, np.uint8)
    (tmp_path / "0.rgba").write_bytes(np.concatenate([image, opaque], -1).tobytes())
    size = {"width": 50, "height": 50, "outWidth": 20, "outHeight": 20, "channels": 1}
    paths = {"source": str(tmp_path / "0.rgba"), "target": str(tmp_path / "0.out")}
    node(tmp_path, RESIZE, "resize.mjs", [{**paths, **size}])
    luma = Image.fromarray(image).convert("L").resize((20, 20), Image.Resampling.BILINEAR)
    found = np.frombuffer((tmp_path / "0.out").read_bytes(), np.uint8).reshape(20, 20)
    np.testing.assert_array_equal(found, np.asarray(luma))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


LOGITS = [1.5, -2.0, 0.25, 3.0]
LINES = [(1.0, 2.0, -0.5), (), (0.7, 1.0, 0.1, 0.9), (0.9, -1.0, 0.0, 2.0)]
MODEL = {
    "labels": list("abcd"),
    "activation": "none",
    "output_dtype": "float32",
    "scale": 0.0,
    "zero_point": 0,
    "input_dtype": "float32",
    "channels": 3,
    "mean": [1.0, 2.0, 127.5],
    "std": [1.0, 2.0, 127.5],
    "calibration": LINES,
    "transformation": "identity",
}


def calibrated(values, transformation):
    functions = {
        "identity": lambda x: x,
        "log": np.log,
        "inverse_logistic": lambda x: np.log(x / (1 - x)),
    }
    found = []
    for value, line in zip(values, LINES, strict=True):
        if not line or (len(line) == 4 and value < line[3]):
            found.append(0.0)
            continue
        scale, slope, offset = line[:3]
        found.append(scale * sigmoid(slope * functions[transformation](value) + offset))
    return np.array(found)


def test_scores_are_those_of_numpy(tmp_path):
    fractions = [0.9, 0.2, 0.95, 0.1]
    cases = [
        ({}, fractions, np.array(fractions)),
        ({"activation": "softmax"}, LOGITS, softmax(np.array(LOGITS))),
        (
            {"activation": "softmax"},
            [1000.0, 999.0, 0.0, -1000.0],
            softmax(np.array([0, -1, -1e3, -2e3])),
        ),
        ({"activation": "sigmoid", "labels": ["a"]}, [-1.25], sigmoid(np.array([-1.25]))),
        *(
            (
                {"activation": "calibration", "transformation": name},
                values,
                calibrated(values, name),
            )
            for name, values in (
                ("identity", LOGITS),
                ("log", fractions),
                ("inverse_logistic", fractions),
            )
        ),
        (
            {"output_dtype": "uint8", "scale": 1 / 256, "zero_point": 0},
            [0, 255, 128, 3],
            np.array([0, 255, 128, 3]) / 256,
        ),
        (
            {"output_dtype": "uint8", "scale": 0.1, "zero_point": 100, "activation": "softmax"},
            [100, 90, 120, 131],
            softmax(np.array([0.0, -1.0, 2.0, 3.1])),
        ),
    ]
    pixels = [0, 255, 7, 31, 100, 200]
    jobs = [
        {"model": {**MODEL, **changes}, "values": values, "pixels": pixels}
        for changes, values, _ in cases
    ]
    jobs.append({"model": {**MODEL, "input_dtype": "uint8"}, "values": LOGITS, "pixels": pixels})
    answers = json.loads(node(tmp_path, SCORES, "scores.mjs", jobs))
    for answer, (_, values, expected) in zip(answers, cases, strict=False):
        order = [found["index"] for found in answer["ranked"]]
        found = np.empty(len(values))
        found[order] = [entry["probability"] for entry in answer["ranked"]]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)
        assert list(found[order]) == sorted(found, reverse=True)
        assert [e["label"] for e in answer["ranked"]] == [MODEL["labels"][i] for i in order]
    mean, std = (np.tile(MODEL[name], 2) for name in ("mean", "std"))
    normalized = ((np.array(pixels) - mean) / std).astype("float32")
    np.testing.assert_array_equal(np.array(answers[0]["input"], "float32"), normalized)
    assert answers[-1]["input"] == pixels
