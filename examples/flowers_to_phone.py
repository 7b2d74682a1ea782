"""
Title: From a folder of photos to a verified int8 file
Author: the kerasopt authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: Fine-tune, prune and quantize an image classifier in one fit, and prove the file.
Accelerator: none
"""

"""
## Introduction

An image classifier on a phone should be small, answer at once, and be as good as the one on your
desk. On the way there a model is usually fine-tuned with one tool, pruned with a second, quantized
with a third, and nobody looks whether the file still computes what was trained.

In this tutorial all of it happens in one `fit`:

- a new head on a pretrained backbone is trained, then the backbone is opened;
- half of the weights are set to zero;
- for the last part of training the model computes as its int8 file will.

Then the file is written, and run beside the Keras model on photos that neither has seen.

Call it with your own photos, one folder per class, and a backbone saved as a `.keras` file:

```bash
python flowers_to_phone.py --photos flowers17 --backbone efficientnet_lite0_imagenet.keras
```

Without arguments it writes a folder of small pictures of clothes and trains a small network from
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
import numpy as np
from PIL import Image

import kerasopt as ko

parser = argparse.ArgumentParser(description="From a folder of photos to a verified int8 file.")
parser.add_argument("--photos", default=os.environ.get("KERASOPT_PHOTOS"))
parser.add_argument("--backbone", default=os.environ.get("KERASOPT_BACKBONE"))
parser.add_argument(
    "--epochs", type=int, default=int(os.environ.get("KERASOPT_EXAMPLE_EPOCHS", "10"))
)
parser.add_argument("--out", default="flowers_to_phone")
arguments = parser.parse_args()

keras.utils.set_random_seed(0)
out = pathlib.Path(arguments.out)
out.mkdir(parents=True, exist_ok=True)

"""
## The photos

`image_folder` expects one folder per class. The split into training, validation and test photos
hangs on each photo's own name: photos that you add later move no other photo into another split.
Damaged files are found now, and not in the third hour of training.

Where no folder is given, we write one: four kinds of clothes, 300 pictures of each.
"""


def write_clothes(folder):
    clothes = ko.datasets.fashion_mnist_mini()
    for label in (1, 3, 7, 8):
        name = clothes.class_names[label]
        (folder / name).mkdir()
        for number, pixels in enumerate(clothes.x_train[clothes.y_train == label][:300]):
            Image.fromarray(pixels[..., 0]).save(folder / name / f"{number:03d}.png")
    return folder


image_size = (224, 224) if arguments.backbone else (32, 32)
photos = arguments.photos or write_clothes(pathlib.Path(tempfile.mkdtemp()))
data = ko.datasets.image_folder(photos, image_size=image_size, batch_size=32)
print(data.summary())

"""
## The augmentation

A layer of the model, so that it is saved with it and cannot be forgotten. It works in training
only: `evaluate` and `predict` see the photos as they are, and the file holds none of it. Look at
what it does before you train: a flower that you cannot recognize, the network cannot learn.
"""

augmentation = ko.augmentation.basic(rotation=0.03, seed=0)
images, labels = next(iter(data.train))
ko.augmentation.preview(augmentation, images).savefig(out / "augmentation.png")

"""
## The model

`build_classifier` cuts the backbone's own head off and puts a new one on. The model takes raw
pixels, 0 to 255, and ends in logits.

The small backbone is for those who have no pretrained one at hand. It knows nothing yet, so there
is nothing to protect: it trains from the first step. A pretrained backbone stays frozen until the
head has found its place; gradients of a random head would only spoil it. Its last two blocks open
after a fifth of the training, the rest after two fifths.
"""


def small_backbone():
    inputs = x = keras.Input((*image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    for filters, stride in ((16, 2), (32, 1), (32, 2), (64, 1)):
        x = keras.layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(inputs, x, name="small")


model = ko.transfer.build_classifier(
    arguments.backbone or small_backbone(),
    len(data.class_names),
    input_shape=(*image_size, 3),
    augmentation=augmentation,
)
if arguments.backbone:
    unfreeze = ko.transfer.Unfreeze({0.2: 2, 0.4: "all"}, verbose=1)
else:
    unfreeze = ko.transfer.Unfreeze({0.0: "all"}, batch_norm="train", verbose=1)
print(ko.transfer.blocks(model))

"""
## One fit

Three callbacks, each with one effect, in any order. A float is a fraction of training. Pruning
reaches one half of the weights before quantization-aware training begins: the ranges should settle
on the weights that will be in the file. The learning rate falls along a cosine and goes on falling
through all of it: the callbacks leave the optimizer's state alone.
"""

prune = ko.pruning.PruneLowMagnitude(
    0.5, schedule=ko.pruning.FractionSchedule(begin=0.2, end=0.6), verbose=0
)
quantize = ko.quantization.QuantizeAware(start=0.7, verbose=1)

learning_rate = keras.optimizers.schedules.CosineDecay(
    1e-3 if arguments.backbone else 3e-3, decay_steps=arguments.epochs * len(data.train)
)
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    data.train,
    validation_data=data.validation,
    epochs=arguments.epochs,
    shuffle=False,  # the pipeline shuffles all photos in every epoch
    callbacks=[unfreeze, prune, quantize],
    verbose=2,
)

"""
The model is still the one that was built above: no wrapper has to be stripped, and it saves as any
other.
"""

model.save(out / "model.keras")
print(f"{prune.sparsity:.1%} of the weights in the pruned kernels are zero")

"""
## The file, and the proof

`quantize.quantized_model` knows the ranges. `to_tflite` converts it and runs file and model on the
test photos; should they differ by more than a few photos, nothing is written under this name, and
an error tells the figures. The float32 file is for comparison.
"""

results = {
    "model.tflite": ko.export.to_tflite(
        quantize.quantized_model,
        out / "model.tflite",
        quantize="int8",
        labels=data.class_names,
        verify=data.test,
    ),
    "float32.tflite": ko.export.to_tflite(model, out / "float32.tflite", verify=data.test),
}
for name, result in results.items():
    print(
        f"{name}: {result.size / 1024:.0f} KiB, accuracy {result.accuracy:.1%} "
        f"(Keras {result.keras_accuracy:.1%}), same class on {result.agreement:.1%} "
        f"of {result.samples} photos"
    )

"""
## One photo

What an app does: read a photo, hand over its bytes, take the largest output. `load_image` reads it
exactly as the pipelines did in training.
"""

lite = ko.export.TFLiteModel(out / "model.tflite")
photo = ko.datasets.load_image(data.files["test"][0], image_size)
logits = lite.predict(photo[None])[0]
print(f"{data.files['test'][0].name}: {data.class_names[logits.argmax()]}")

"""
## The report

One page with the curves, the confusion matrix and the worst mistakes, to keep beside the file.
"""

logits = np.concatenate([lite.predict(images) for images, _ in data.test.as_numpy_iterator()])
probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
predictions, confidences = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
truth = data.labels["test"]
wrong = np.flatnonzero(predictions != truth)
mistakes = tuple(
    ko.report.Mistake(
        ko.datasets.load_image(data.files["test"][index], image_size),
        data.class_names[truth[index]],
        data.class_names[predictions[index]],
        float(confidences[index]),
    )
    for index in sorted(wrong, key=lambda index: -confidences[index])[:12]
)
versions = [np.asarray(images[:4])]
versions += [np.asarray(augmentation(images[:4], training=True)) for _ in range(5)]
augmented = tuple(
    np.clip(np.stack(row), 0, 255).astype("uint8") for row in zip(*versions, strict=True)
)
files = tuple(
    ko.report.FileRow(
        name,
        result.quantize or "float32",
        size=result.size,
        gzip_size=result.gzip_size,
        accuracy=result.accuracy,
        keras_accuracy=result.keras_accuracy,
        agreement=result.agreement,
        milliseconds={
            timing.threads: timing.median_ms
            for timing in ko.export.TFLiteModel(result.content).benchmark(runs=20)
        },
        shipped=name == "model.tflite",
    )
    for name, result in results.items()
)
report = ko.report.RunReport(
    title="From photos to int8",
    summary=(
        "A new head was trained and the backbone opened.",
        "Half of the weights were set to zero.",
        "The last part of training computed as the int8 file does.",
    ),
    settings={"backbone": str(arguments.backbone or "small"), "epochs": str(arguments.epochs)},
    class_names=data.class_names,
    counts=data.counts,
    history=history.history,
    events=tuple(
        sorted([*unfreeze.events, *prune.events, *quantize.events], key=lambda event: event.epoch)
    ),
    augmented=augmented,
    labels=truth,
    predictions=predictions,
    confidences=confidences,
    mistakes=mistakes,
    files=files,
    notes=tuple(
        f"{operation} stays float: {reason}." for operation, reason in quantize.float_operations
    ),
)
print(f"Open {ko.report.write_report(report, out / 'report.html')}")

"""
## Where to go from here

- The file takes `uint8` pixels and gives `float32` logits, with builtin operators only: the TFLite
  runtimes of Android, iOS and the browser run it as it is.
- Sparse weights make the download smaller (see the gzip sizes in the report), not the inference
  faster. On x86 with AVX2 int8 is no faster than float either; measure on the phone.
- For more zeros raise `final_sparsity` and train longer.
"""
