"""
Title: A large network teaches a small one
Author: the kerasopt authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: Fine-tune a teacher, distil it into a net of under 100,000 parameters, ship it as int8.
Accelerator: none
"""

"""
## Introduction

A network that was trained on a million photos and fine-tuned on yours is good and large. A small
one that was trained on your photos alone is fast, and not as good: a few hundred photos are not
much to learn to see from. In this tutorial the large one helps. For each photo the small network,
the *student*, learns what the large one, the *teacher*, thinks of it: not only which flower it is,
but what else it looks like.

Call it with your own photos, one folder per class, and a backbone saved as a `.keras` file:

```bash
python distill_flowers.py --photos flowers17 --epochs 60 \\
    --backbone efficientnet_lite0_imagenet.keras
```

Without arguments it writes a folder of small pictures of clothes and trains a teacher on them from
scratch, so that it runs anywhere, offline, in a few minutes.
"""

"""
## Setup
"""

import argparse
import os
import pathlib
import tempfile

import keras
from PIL import Image

import kerasopt as ko

parser = argparse.ArgumentParser(description="A large network teaches a small one.")
parser.add_argument("--photos", default=os.environ.get("KERASOPT_PHOTOS"))
parser.add_argument("--backbone", default=os.environ.get("KERASOPT_BACKBONE"))
parser.add_argument(
    "--epochs", type=int, default=int(os.environ.get("KERASOPT_EXAMPLE_EPOCHS", "10"))
)
parser.add_argument("--out", default="distill_flowers")
arguments = parser.parse_args()

keras.utils.set_random_seed(0)
out = pathlib.Path(arguments.out)
out.mkdir(parents=True, exist_ok=True)

"""
## The photos

`image_folder` expects one folder per class. Where none is given, we write one: four kinds of
clothes, 200 pictures of each.
"""


def write_clothes(folder):
    clothes = ko.datasets.fashion_mnist_mini()
    for label in (1, 3, 7, 8):
        name = clothes.class_names[label]
        (folder / name).mkdir()
        for number, pixels in enumerate(clothes.x_train[clothes.y_train == label][:200]):
            Image.fromarray(pixels[..., 0]).save(folder / name / f"{number:03d}.png")
    return folder


size = 224 if arguments.backbone else 32
photos = arguments.photos or write_clothes(pathlib.Path(tempfile.mkdtemp()))
data = ko.datasets.image_folder(photos, image_size=(size, size), batch_size=32)
num_classes = len(data.class_names)
print(data.summary())

"""
## The teacher

`fine_tune` trains a new head on the backbone, then all of it. Where there is no pretrained
backbone, a wider network is trained from scratch in its place; it is a poorer teacher, but it shows
the way.
"""


def compiled(model, epochs, rate=3e-3):
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data.train))
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def separable_net(widths, name):
    """A network of depthwise separable convolutions that shrinks the photos itself."""
    layers = keras.layers
    inputs = keras.Input((size, size, 3), name="image")
    x = ko.augmentation.basic(rotation=0.03, seed=0)(inputs)
    x = layers.Resizing(96, 96)(x) if size > 96 else x
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Conv2D(widths[0], 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for index, width in enumerate(widths[1:]):
        stride = 2 - index % 2 if x.shape[1] > 6 else 1
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(width, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name=name)


if arguments.backbone:
    teacher = ko.transfer.build_classifier(
        arguments.backbone, num_classes, augmentation=ko.augmentation.basic(seed=0)
    )
    ko.transfer.fine_tune(teacher, data.train, data.validation, epochs=10, verbose=2)
else:
    teacher = compiled(separable_net((32, 64, 64, 128, 128, 256, 256), "teacher"), arguments.epochs)
    teacher.fit(data.train, epochs=arguments.epochs, shuffle=False, verbose=2)
teacher.save(out / "teacher.keras")

"""
## The student, by itself and with its teacher

The augmentation is a layer of the student. The teacher sees the photo behind it, the same crop and
the same colours, in the size that it needs. `alpha=0.9` lets it have most of the say: it is right
more often than a small network could be, and its doubts are worth something.

`QuantizeAware` is on for the last part, so the teacher also helps the student to live with eight
bits.
"""


def student():
    keras.utils.set_random_seed(1)
    return compiled(separable_net((24, 48, 48, 96, 96, 128, 128, 192), "student"), arguments.epochs)


results = {}
for arm in ("alone", "taught"):
    model, quantize = student(), ko.quantization.QuantizeAware(start=0.8)
    callbacks = [quantize]
    if arm == "taught":
        callbacks += [ko.distillation.Distill(teacher, temperature=4.0, alpha=0.9, verbose=1)]
    history = model.fit(
        data.train,
        validation_data=data.validation,
        epochs=arguments.epochs,
        shuffle=False,  # the pipeline shuffles all photos in every epoch
        callbacks=callbacks,
        verbose=2,
    )
    results[arm] = model.evaluate(data.test, verbose=0)[1]

print(f"student: {model.count_params():,} parameters, teacher: {teacher.count_params():,}")
for arm, accuracy in results.items():
    print(f"student {arm}: {accuracy:.1%}")
compiled(teacher, 1)
print(f"teacher: {teacher.evaluate(data.test, verbose=0)[1]:.1%}")
print(f"same class as the teacher: {history.history['teacher_agreement'][-1]:.1%}")

"""
The student is an ordinary model, with no trace of its teacher.
"""

model.save(out / "student.keras")

"""
## The file

The int8 file is run beside the quantization-aware student on the test photos before it is written.
"""

result = ko.export.to_tflite(
    quantize.quantized_model,
    out / "student.tflite",
    quantize="int8",
    labels=data.class_names,
    verify=data.test,
)
print(
    f"student.tflite: {result.size / 1024:.0f} KiB, accuracy {result.accuracy:.1%} "
    f"(Keras {result.keras_accuracy:.1%}), same class on {result.agreement:.1%} of the photos"
)

"""
## Where to go from here

- The teacher costs more than the student's own step. Where photos come in a few fixed versions,
  `ko.distillation.cache_targets` asks it once.
- It needs no labels: photos that nobody has sorted go into `Distill(..., unlabelled=photos)`.
- A student of another kind may follow the teacher's features too:
  `features={"features": "head_pool"}`.
"""
