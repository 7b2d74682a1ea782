"""Folders of runs with nothing in them but figures, for the tests of comparisons."""

import json

NAMES = ["daisy", "iris", "tulip"]


def metrics(**changes):
    def file(size, accuracy, milliseconds):
        return {
            "size": size,
            "gzip_size": size // 2,
            "accuracy": accuracy,
            "keras_accuracy": 0.9,
            "agreement": 0.99,
            "samples": 400,
            "milliseconds": {"1": milliseconds, "2": milliseconds / 2},
        }

    values = {
        "test_accuracy": {"keras": 0.9, "keras_quantization_aware": 0.89, "file": 0.88},
        "agreement": 0.99,
        "sparsity": 0.5,
        "training_seconds": 125.0,
        "class_names": NAMES,
        "settings": {"backbone": "MobileNetV2", "epochs": "4", "seed": "0"},
        "files": {"float32": file(4096, 0.9, 4.0), "int8": file(1024, 0.88, 2.0)},
        "history": {
            "loss": [1.0, 0.5],
            "val_loss": [1.1, 0.7],
            "accuracy": [0.5, 0.8],
            "val_accuracy": [0.4, 0.75],
        },
        "events": [],
        "notes": [],
        "environment": {"processor": "Test CPU 9000"},
    }
    return {**values, **changes}


def better():
    """The same run with one more point of accuracy, a larger file and another seed."""
    values = metrics(settings={"backbone": "MobileNetV2", "epochs": "4", "seed": "1"})
    values["test_accuracy"]["keras"] = 0.915
    values["files"]["int8"].update(accuracy=0.89, size=1536)
    values["files"]["int8"]["milliseconds"] = {"1": 1.5}
    values["history"]["val_accuracy"] = [0.45, 0.8]
    return values


def write(folder, values):
    folder.mkdir(parents=True)
    text = values if isinstance(values, str) else json.dumps(values)
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    return folder
