"""Opens 2,000 damaged .tflite, .keras and image files; each ends in an answer or one clear error.

    python benchmarks/fuzz.py [--count 2000] [--seed 0]

A crash of this process, a reader that takes longer than 10 seconds of its own, an exception of
another kind, or a file outside of the folder ends the run with exit code 1. The mutations are those
of the tests, with other seeds.
"""

import argparse
import collections
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from kerasopt._keras_file import load_keras
from kerasopt.datasets import load_image
from kerasopt.export import TFLiteModel, read_metadata
from kerasopt.profiling import profile
from tests.models import stripes
from tests.mutations import image_files, keras_file, mutate, mutate_inside, seeds, tflite_files

LIMIT = 10.0


def readers(folder):
    """Returns kind -> (good files, ways to damage them, ways to read them)."""
    photo, _ = stripes(1)
    model = folder / "model.keras"

    def read_tflite(content):
        TFLiteModel(content, trusted=False, time_limit=5.0).predict(photo)

    def read_keras(content):
        model.write_bytes(content)
        load_keras(model)

    def read_image(content):
        file = folder / "photo.img"
        file.write_bytes(content)
        load_image(file, (16, 16))

    return {
        "tflite": (tflite_files(), (mutate,), (read_metadata, profile, read_tflite)),
        "keras": ([keras_file(folder)], (mutate, mutate_inside), (read_keras,)),
        "image": ([*image_files().values()], (mutate,), (read_image,)),
    }


def outcome(read, content):
    """Returns what became of one file, and the seconds it took."""
    start = time.perf_counter()
    try:
        read(content)
        found = "read"
    except (FileNotFoundError, ValueError):
        found = "refused"
    except Exception as error:  # what the run is to find
        found = f"{type(error).__name__}: {error}"
    return found, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="files in total")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        os.chdir(folder)
        kinds = readers(folder)
        expected = {"model.keras", "photo.img", "whole.keras"}
        for number, (kind, (files, ways, reads)) in enumerate(kinds.items()):
            outcomes, slowest = collections.Counter(), 0.0
            count = (arguments.count + number) // len(kinds)
            for index, rng in enumerate(seeds(count, seed=f"{arguments.seed}/{kind}")):
                damaged = ways[index % len(ways)](files[index % len(files)], rng)
                for read in reads:
                    found, seconds = outcome(read, damaged)
                    outcomes[found] += 1
                    slowest = max(slowest, seconds)
            faults = {name: n for name, n in outcomes.items() if name not in ("read", "refused")}
            left = {path.name for path in folder.iterdir()} - expected
            bad += bool(faults) + bool(left) + (slowest > LIMIT)
            print(
                f"{kind:7} {count:5} files: {outcomes['read']} read, "
                f"{outcomes['refused']} refused, slowest {slowest:.1f} s, "
                f"faults {faults or 'none'}, left over {left or 'none'}",
                flush=True,
            )
        os.chdir("/")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
