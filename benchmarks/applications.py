"""Proves `build_classifier` and `blocks` on every model of `keras.applications`.

    python benchmarks/applications.py [--part transfer|quantization|export] [NAME ...]

Without `--part` all parts run. `quantization` is described in `_int8_applications.py`, `export` in
`_export_applications.py`.

Random weights, two images: build, preprocessing against the family's own `preprocess_input`, one
training step, save, load, predict. Each model has a process of its own. What was recorded with the
same versions is not run again, so that the run can be stopped at any time. At the end the table in
docs/transfer.md, docs/quantization.md or docs/export.md is written.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

import _export_applications as exported
import _int8_applications as int8
from _record import RESULTS, record

SIZE = 96  # pixels; the largest of the families' smallest sizes is 75
CLASSES = 5
VERSIONS = ("keras", "tensorflow", "kerasopt", "python")
RESULT = RESULTS / "applications.json"
DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "transfer.md"
TABLE = re.compile(r"(<!-- applications -->\n).*(<!-- /applications -->)", re.DOTALL)
CHECKS = (
    "preprocessing_equal",
    "backbone_trained",
    "head_trained",
    "prediction_finite",
    "prediction_equal",
    "structure_equal",
    "blocks_complete",
)


def prove(name, folder, size=SIZE, eager=False):
    """Returns what was found out about one model, the entries of `CHECKS` as booleans.

    With `eager` nothing but the preprocessing is compiled, which saves most of the time.
    """
    import keras
    import numpy as np

    from kerasopt.transfer import blocks, build_classifier, split_layers

    def structure(model):
        parts = [[layer.name for layer in part] for part in split_layers(model)]
        return parts, [(b.name, [layer.name for layer in b.layers]) for b in blocks(model)]

    keras.utils.set_random_seed(0)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    start = time.perf_counter()
    model = build_classifier(name, CLASSES, input_shape=(size, size, 3), weights=None)
    built = time.perf_counter() - start
    backbone, head = split_layers(model)
    grouped = blocks(model)

    watched = (model.get_layer("logits").kernel, *first_and_last_kernel(backbone))
    before = [variable.numpy() for variable in watched]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Random networks on two small images have gradients of any size.
    model.compile(keras.optimizers.SGD(0.01, clipnorm=1.0), loss, run_eagerly=eager)
    start = time.perf_counter()
    model.fit(pixels, np.array([0, CLASSES - 1]), epochs=1, verbose=0)
    fitted = time.perf_counter() - start
    moved = [bool((v.numpy() != old).any()) for v, old in zip(watched, before, strict=True)]

    expected = model.predict(pixels, verbose=0)
    sizes = [block.num_parameters for block in grouped]
    found = {
        "preprocessing": family_scaling(name)[0],
        "preprocessing_equal": preprocessing_equal(name, model, pixels),
        "head_trained": moved[0],
        "backbone_trained": all(moved[1:]),
        "blocks_complete": weights_once(grouped, head, model),
        "layers": len(backbone),
        "parameters": sum(sizes),
        "blocks": len(sizes),
        "first_block": grouped[0].name,
        "last_block": grouped[-1].name,
        "largest_block": max(sizes) / sum(sizes),
    }
    described = structure(model)
    start = time.perf_counter()
    model.save(folder / "model.keras")
    del model, backbone, head, grouped, watched, before
    again = keras.models.load_model(folder / "model.keras")
    saved = time.perf_counter() - start
    again.run_eagerly = eager
    found["prediction_finite"] = bool(np.isfinite(expected).all())
    found["prediction_equal"] = bool(np.array_equal(again.predict(pixels, verbose=0), expected))
    found["structure_equal"] = structure(again) == described
    found["seconds"] = {"build": built, "first_step": fitted, "save_and_load": saved}
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def first_and_last_kernel(backbone):
    kernels = [layer.kernel for layer in backbone if getattr(layer, "kernel", None) is not None]
    return kernels[0], kernels[-1]


def family_scaling(name):
    """The family's module and its own function."""
    import keras

    from kerasopt.transfer._preprocessing import family_of, is_identity

    family = family_of(name)
    inside = f"`{family}`" if not is_identity(family) else "in the network"
    return inside, getattr(keras.applications, family).preprocess_input


def preprocessing_equal(name, model, pixels):
    """Compares what the network gets with the family's own scaling, to the last bit."""
    import keras
    import numpy as np

    _, scale = family_scaling(name)
    names = [layer.name for layer in model.layers]
    scaled = model.get_layer("preprocess").output if "preprocess" in names else model.input
    seen = keras.Model(model.input, scaled).predict(pixels, verbose=0)
    return bool(np.array_equal(seen, scale(pixels.copy())))


def weights_once(grouped, head, model):
    """Every weight is in exactly one block or in the head."""
    layers = [layer for block in grouped for layer in block.layers] + head
    found = [id(weight) for layer in layers for weight in layer.weights]
    return sorted(found) == sorted(id(weight) for weight in model.weights)


def table(figures):
    lines = [
        "| model | preprocessing | parameters | layers | blocks | largest | build | first step |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(figures):
        row = figures[name]
        seconds = row["seconds"]
        lines.append(
            f"| `{name}` | {row['preprocessing']} | {row['parameters'] / 1e6:.1f} M "
            f"| {row['layers']} | {row['blocks']} | {row['largest_block']:.0%} "
            f"| {seconds['build']:.0f} s | {seconds['first_step']:.0f} s |"
        )
    return "\n".join(lines) + "\n"


PARTS = {"transfer": sys.modules[__name__], "quantization": int8, "export": exported}


def write_table(part, figures):
    text = part.DOCS.read_text(encoding="utf-8")
    new = part.TABLE.sub(lambda found: found[1] + part.table(figures) + found[2], text)
    part.DOCS.write_text(new, encoding="utf-8")


def recorded(part):
    """What a run with the same versions has found already."""
    from kerasopt.report import environment

    if not part.RESULT.is_file():
        return {}
    content = json.loads(part.RESULT.read_text(encoding="utf-8"))
    now = environment()
    same = all(content["environment"].get(key) == now[key] for key in VERSIONS)
    return content["figures"]["models"] if same else {}


def run(name, part="transfer"):
    """Proves one model in a process of its own, which gives back all its memory."""
    command = [sys.executable, __file__, "--part", part, "--one", name]
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    if done.returncode:
        print(f"{name}: failed\n{done.stderr[-3000:]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def prove_all(name_of_part, names):
    """Runs a part, records after each model, writes its table; returns what failed."""
    from kerasopt.transfer._backbones import APPLICATIONS

    part = PARTS[name_of_part]
    models = recorded(part)
    failed = []
    for name in names or APPLICATIONS:
        if name in models:
            continue
        found = run(name, name_of_part)
        if found is None or not all(found[check] for check in part.CHECKS):
            failed.append(name)
            print(f"{name}: {found}", flush=True)
            continue
        models[name] = found
        print(f"{name}: {found['seconds']}", flush=True)
        with contextlib.redirect_stdout(io.StringIO()):  # the whole file, each time
            figures = {"models": models}
            if name_of_part == "transfer":
                figures = {"size": SIZE, "batch": 2, **figures}
            record(part.RESULT.stem, figures)
    write_table(part, models)
    print(
        f"{name_of_part}: {len(models)} of {len(APPLICATIONS)} models; failed: {failed or 'none'}"
    )
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=tuple(PARTS))
    parser.add_argument("--one", metavar="NAME")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[options.part].prove(options.one, pathlib.Path(folder))
            print(json.dumps(found))
        return
    parts = [options.part] if options.part else list(PARTS)
    failed = [name for part in parts for name in prove_all(part, options.names)]
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
