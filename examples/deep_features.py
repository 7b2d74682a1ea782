"""
Title: Classical learners on deep features
Author: the kerasopt authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: One pass through a pretrained network, then SVM, neighbours, trees and a solved head.
Accelerator: none
"""

"""
## Introduction

With a few dozen photos of each class, the fastest good classifier is not a trained network. A
pretrained one turns each photo into about a thousand numbers, once; on these any learner of
scikit-learn fits in seconds, without epochs, learning rates or a GPU.

This tutorial

- computes the features of a folder of photos;
- fits a support vector machine, nearest neighbours and gradient boosting on them;
- solves the network's own head by logistic regression, so that the result is one Keras model, which
  can be fine-tuned or exported.

Call it with your own photos, one folder per class, and a backbone saved as a `.keras` file:

```bash
python deep_features.py --photos flowers17 --backbone efficientnet_lite0_imagenet.keras
```

Without arguments it makes its own little story of transfer: a small network learns six kinds of
clothes, and its features tell four others apart, which it has never seen.
"""

"""
## Setup
"""

import argparse
import os
import pathlib
import tempfile
import time

import keras
import numpy as np
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import kerasopt as ko

parser = argparse.ArgumentParser(description="Classical learners on deep features.")
parser.add_argument("--photos", default=os.environ.get("KERASOPT_PHOTOS"))
parser.add_argument("--backbone", default=os.environ.get("KERASOPT_BACKBONE"))
parser.add_argument("--out", default="deep_features")
arguments = parser.parse_args()

keras.utils.set_random_seed(0)
out = pathlib.Path(arguments.out)
out.mkdir(parents=True, exist_ok=True)

"""
## Photos and a backbone

`image_folder` expects one folder per class and splits it into training, validation and test
photos. Where no folder is given, we write one, with 150 pictures of each of four kinds of clothes.
Where no backbone is given, we train one on the other six: three epochs of a small network.
"""

image_size = (224, 224) if arguments.backbone else (28, 28)
NEW_CLASSES = (1, 3, 7, 8)  # trouser, dress, sneaker, bag
clothes = ko.datasets.fashion_mnist_mini()


def write_clothes(folder):
    for label in NEW_CLASSES:
        name = clothes.class_names[label]
        (folder / name).mkdir()
        for number, pixels in enumerate(clothes.x_train[clothes.y_train == label][:150]):
            Image.fromarray(pixels[..., 0]).save(folder / name / f"{number:03d}.png")
    return folder


def train_backbone():
    inputs = x = keras.Input((*image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    for filters, stride in ((16, 2), (32, 1), (32, 2), (64, 1)):
        x = keras.layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, keras.layers.Dense(10)(x), name="small")
    network.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    known = ~np.isin(clothes.y_train, NEW_CLASSES)
    images = np.repeat(clothes.x_train[known], 3, axis=-1)  # grey as RGB
    network.fit(images, clothes.y_train[known], epochs=3, verbose=2)
    return network


photos = arguments.photos or write_clothes(pathlib.Path(tempfile.mkdtemp()))
data = ko.datasets.image_folder(photos, image_size=image_size)
backbone = arguments.backbone or train_backbone()
print(data.summary())

"""
## Features

`FeatureExtractor` cuts the network's head off and averages its last feature maps. It is a
scikit-learn transformer and takes what you have: arrays, a `tf.data` pipeline, a list of photos, a
folder. The lists in `data.files` are in the order of `data.labels`.
"""

extractor = ko.transfer.FeatureExtractor(backbone, input_shape=(*image_size, 3)).fit()
start = time.perf_counter()
features = {split: extractor.transform(files) for split, files in data.files.items()}
seconds = time.perf_counter() - start
count = sum(map(len, features.values()))
print(f"{extractor.n_features_out_} features of {count} photos in {seconds:.1f} s")

"""
## Learners

Features are compared by their direction rather than their length: hence the cosine, and the
`Normalizer`. Trees need neither, but see one feature at a time, while the classes lie in many.
"""

learners = {
    "SVM": make_pipeline(Normalizer(), SVC(C=10)),
    "5 nearest neighbours": KNeighborsClassifier(5, metric="cosine", weights="distance"),
    "gradient boosting": HistGradientBoostingClassifier(
        max_iter=40, learning_rate=0.2, max_leaf_nodes=8, max_features=0.1, random_state=0
    ),
}
table = []
for name, learner in learners.items():
    start = time.perf_counter()
    with threadpool_limits(1):  # on little data, threads mostly wait for each other
        learner.fit(features["train"], data.labels["train"])
    seconds = time.perf_counter() - start
    table.append((name, learner.score(features["test"], data.labels["test"]), seconds))

"""
## The solved head

`linear_probe` fits a logistic regression, chooses its regularization by cross-validation, and
writes it into the `"logits"` layer. (It runs the photos through the network once more: its features
are what this very layer gets.)
"""

model = ko.transfer.build_classifier(backbone, len(data.class_names), input_shape=(*image_size, 3))
probe = ko.transfer.linear_probe(model, data.train)
print(probe)

logits = model.predict(data.test, verbose=0)
accuracy = np.mean(logits.argmax(axis=-1) == data.labels["test"])
table.append(("solved head, features included", accuracy, probe.seconds))

"""
## Which one?

The validation photos are for this choice; with a few hundred test photos a difference of a percent
is noise.
"""

print(f"\n{'learner':<32}test accuracy    seconds")
for name, accuracy, seconds in table:
    print(f"{name:<32}{accuracy:>13.1%}{seconds:>11.1f}")

model.save(out / "model.keras")
print(f"Saved {out / 'model.keras'}")

"""
## Where to go from here

- The saved model takes photos and gives logits. `ko.export.to_tflite` puts it on a phone; the other
  learners need Python and scikit-learn beside the network.
- Fine-tuning now starts from a head that fits: `ko.transfer.Unfreeze` can open the backbone at once
  and gradients of a random head will not spoil it.
- To compare backbones, put the extractor into a `Pipeline` and a `GridSearchCV`.
"""
