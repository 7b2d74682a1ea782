"""Damaged files: what a bad disk, a bad line and a bad person make of good ones."""

import io
import json
import random
import zipfile

import flatbuffers
import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from kerasopt.export import Metadata, to_tflite
from tests.models import small_cnn, stripes


def mutate(content, rng):
    """Changes bytes or bits, cuts out, doubles, overwrites or zeroes a part, or cuts the end."""
    data = bytearray(content)
    start = rng.randrange(len(data))
    length = min(rng.choice((1, 4, 16, 64, 512)), len(data) - start)
    kind = rng.randrange(7)
    if kind == 0:
        for _ in range(rng.choice((1, 3, 10))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 1:
        for _ in range(rng.choice((1, 3))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del data[start : start + length]
    elif kind == 3:
        data[start:start] = data[start : start + length]
    elif kind == 4:
        value = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)))
        data[start : start + 4] = value.to_bytes(4, "little")
    elif kind == 5:
        data[start : start + length] = bytes(length)
    else:
        del data[start:]
    return bytes(data)


def repacked(content, **changes):
    """Packs a zip anew, with other content for `config_json`, ..., and what is `added`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            data = changes.pop(name.replace(".", "_"), old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in changes.pop("added", {}).items():
            new.writestr(name, data)
    return packed.getvalue()


def greedy(content, units=20_000_000):
    """A `.keras` file whose last layer asks for many more units than there are weights for."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config = json.loads(archive.read("config.json"))
    last = config["config"]["layers"][-1]
    last["config"]["units"] = units
    return repacked(content, config_json=json.dumps(config))


def ask_for_more(content, rng):
    """A `.keras` file whose last layer asks for anything from a few to far too many units."""
    return greedy(content, units=int(10 ** rng.uniform(0, 12)))


def crowd(_, rng):
    """A small TFLite file, of anything from a few to a million tensors, or of large ones."""
    many = {name: int(10 ** rng.uniform(0, 3)) for name in ("subgraphs", "variants")}
    return crowded(tensors=1 + int(10 ** rng.uniform(0, 3)), size=2 ** rng.randrange(30), **many)


def mutate_inside(content, rng):
    """Changes a member of a zip and packs it anew, so that no checksum tells of it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        names = old.namelist()
        changed = rng.choice(names)
        for name in names:
            data = old.read(name)
            new.writestr(name, mutate(data, rng) if name == changed else data)
    return packed.getvalue()


def tflite_files():
    """A float and an int8 file with metadata."""
    x, _ = stripes(8)
    metadata = Metadata(labels=["a", "b", "c", "d"])
    return [
        to_tflite(small_cnn(), metadata=metadata).content,
        to_tflite(
            small_cnn(), quantize="int8", representative_data=x, metadata=metadata, verify=False
        ).content,
    ]


def keras_file(folder):
    """A small model as a `.keras` file."""
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), keras.layers.Conv2D(2, 3), keras.layers.Dense(2)]
    )
    model.save(folder / "whole.keras")
    return (folder / "whole.keras").read_bytes()


def image_files():
    """A photo in the formats that people have."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype("uint8")
    photo = Image.fromarray(pixels).resize((60, 45))
    files = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        file = io.BytesIO()
        photo.save(file, kind)
        files[kind] = file.getvalue()
    return files


def seeds(count, seed=0):
    """Numbers of mutations, the same each time."""
    return [random.Random(f"{seed}/{index}") for index in range(count)]


def crowded(subgraphs=1, tensors=2, variants=0, size=1):
    """A TFLite file of a ReLU, whose offsets name one subgraph, tensor or variant many times."""
    builder = flatbuffers.Builder(1024)

    def vector(*offsets):
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def numbers(value):
        return builder.CreateNumpyVector(np.array([value], "int32"))

    def table(kind, **fields):
        getattr(schema, f"{kind}Start")(builder)
        for name, value in fields.items():
            getattr(schema, f"{kind}Add{name}")(builder, value)
        return getattr(schema, f"{kind}End")(builder)

    shape, first, second = numbers(size), numbers(0), numbers(1)
    variant = vector(*[table("VariantSubType", Shape=shape)] * variants)
    one = vector(*[table("Tensor", Shape=shape, VariantTensors=variant)] * tensors)
    relu = vector(table("Operator", Inputs=first, Outputs=second))
    graph = table("SubGraph", Tensors=one, Inputs=first, Outputs=second, Operators=relu)
    kind = schema.BuiltinOperator.RELU
    codes = vector(table("OperatorCode", BuiltinCode=kind, DeprecatedBuiltinCode=kind))
    buffers, graphs = vector(table("Buffer")), vector(*[graph] * subgraphs)
    root = table("Model", Version=3, OperatorCodes=codes, Subgraphs=graphs, Buffers=buffers)
    builder.Finish(root, b"TFL3")
    return bytes(builder.Output())
