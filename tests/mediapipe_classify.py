"""Classifies photos with MediaPipe Tasks and prints JSON; run by a Python that has MediaPipe.

Usage: python mediapipe_classify.py MODEL [PHOTO ...]. MediaPipe and TF-MOT need different versions
of absl-py, so they cannot be installed beside each other.
"""

import json
import sys
import zipfile

import mediapipe as mp
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata_schema
from mediapipe.tasks.metadata import schema_py_generated as schema
from mediapipe.tasks.python import vision


def plain(value):
    """The objects of the generated code as dicts, without what is not set."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "__dict__"):
        return {name: plain(item) for name, item in vars(value).items() if item is not None}
    return value.tolist() if hasattr(value, "tolist") else value


def described(path):
    with open(path, "rb") as file:
        content = file.read()
    model = schema.Model.GetRootAs(content, 0)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    found = [entry.Buffer() for entry in entries if entry.Name() == b"TFLITE_METADATA"]
    if not found:
        return {}
    data = model.Buffers(found[0]).DataAsNumpy().tobytes()
    parsed = metadata_schema.ModelMetadataT.InitFromObj(
        metadata_schema.ModelMetadata.GetRootAs(data, 0)
    )
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    return {"metadata": plain(parsed), "files": files}


def main():
    path, *photos = sys.argv[1:]
    found = described(path)
    try:
        classifier = vision.ImageClassifier.create_from_model_path(path)
    except (OSError, RuntimeError, ValueError) as error:
        sys.stdout.write(json.dumps({**found, "error": str(error)}))
        return
    answers = []
    with classifier:
        for photo in photos:
            result = classifier.classify(mp.Image.create_from_file(photo))
            answers.append(
                [(c.category_name, c.index, c.score) for c in result.classifications[0].categories]
            )
    sys.stdout.write(json.dumps({**found, "answers": answers}))


if __name__ == "__main__":
    main()
