"""Opens 2,000 damaged .tflite, .keras and image files; each ends in an answer or one clear error.

    python benchmarks/fuzz.py [--count 2000] [--seed 0]

Every file goes through the readers of its kind, with their defaults: some read each file, others
take turns. A crash of this process, a reader that takes longer than 10 seconds, an exception of
another kind, or a file outside of the working folder ends the run with exit code 1. The mutations
are those of the tests, with other seeds. Only a whole run is recorded, in `results/fuzz.json`.
"""

import argparse
import collections
import io
import os
import pathlib
import resource
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from _record import record
from rich.console import Console

from kerasopt import cli
from kerasopt._keras_file import load_keras
from kerasopt.datasets import image_folder, load_image
from kerasopt.export import TFLiteModel, activations, read_metadata, to_c_array
from kerasopt.profiling import diff, profile
from tests.models import stripes
from tests.mutations import (
    ask_for_more,
    crowd,
    image_files,
    keras_file,
    mutate,
    mutate_inside,
    seeds,
    tflite_files,
)

COUNT, LONGEST = 2000, 10.0


class TFLite:
    """TFLite files, handed over as bytes or by path."""

    def __init__(self, folder):
        self._file, self._photo = folder / "model.tflite", stripes(1)[0]
        self.files, self.ways = tflite_files(), (mutate, mutate, mutate, crowd)
        self._whole = self.files[0]
        self.always = (read_metadata, profile, self.c_array, self.predict)
        self.in_turn = (self.inspect, self.activations, self.diff)

    def c_array(self, content):
        to_c_array(content, self._file.with_suffix(".h"))

    def predict(self, content):
        TFLiteModel(content, trusted=False).predict(self._photo)

    def inspect(self, content):
        self._file.write_bytes(content)
        cli.inspect(self._file)

    def activations(self, content):
        activations(TFLiteModel(content, trusted=False), self._photo)

    def diff(self, content):
        diff(self._whole, TFLiteModel(content, trusted=False), self._photo)


class KerasFile:
    """.keras files."""

    def __init__(self, folder):
        self._file = folder / "model.keras"
        self.files, self.ways = [keras_file(folder)], (mutate, mutate_inside, ask_for_more)
        self.always = (self.load,)
        self.in_turn = (self.profile, self.inspect)

    def load(self, content):
        self._file.write_bytes(content)
        load_keras(self._file)

    def profile(self, content):
        self._file.write_bytes(content)
        profile(self._file)

    def inspect(self, content):
        self._file.write_bytes(content)
        cli.inspect(self._file)


class Photo:
    """Image files, alone and among whole ones."""

    def __init__(self, folder):
        self.files, self.ways = [*image_files().values()], (mutate,)
        self._file, self._photos = folder / "photo.img", folder / "photos"
        for index in range(8):
            place = self._photos / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index}.png").write_bytes(self.files[0])
        self._model = TFLiteModel(tflite_files()[0])
        self.always = (self.load, self.predict)
        self.in_turn = (self.folder,)

    def load(self, content):
        self._file.write_bytes(content)
        load_image(self._file, (16, 16))

    def predict(self, content):
        self._file.write_bytes(content)
        self._model.predict(self._file)

    def folder(self, content):
        (self._photos / "a" / "0.png").write_bytes(content)
        image_folder(self._photos, image_size=(16, 16))


def outcome(read, content):
    """Returns what became of one file, and the seconds it took."""
    start = time.perf_counter()
    try:
        read(content)
        found = "opened"
    except (FileNotFoundError, ValueError):
        found = "refused"
    except Exception as error:  # what the run is to find
        found = f"{type(error).__name__}: {error}"
    return found, time.perf_counter() - start


def run(kind, count, seed):
    """Returns the figures of one kind of files."""
    readers, faults = {}, []
    for index, rng in enumerate(seeds(count, seed=seed)):
        way = kind.ways[index % len(kind.ways)]
        damaged = way(kind.files[index % len(kind.files)], rng)
        turn = index // len(kind.ways) % len(kind.in_turn)
        for read in (*kind.always, kind.in_turn[turn]):
            found, seconds = outcome(read, damaged)
            figures = readers.setdefault(read.__name__, collections.Counter(opened=0, refused=0))
            figures[found if found in figures else "faults"] += 1
            figures["slowest_seconds"] = max(figures["slowest_seconds"], round(seconds, 2))
            if found not in ("opened", "refused"):
                faults.append(f"file {index}, {read.__name__}: {found}"[:400])
        if index % 100 == 99:
            print(f"{type(kind).__name__} {index + 1}: {faults or 'no faults'}", flush=True)
    return {
        "files": count,
        "slowest_seconds": max(each["slowest_seconds"] for each in readers.values()),
        "faults": faults[:20],
        "readers": {name: dict(each) for name, each in readers.items()},
    }


def tree(place):
    """Lists all files and folders in a folder, but for those that TensorFlow makes of functions."""
    return {
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if not path.name.startswith("__autograph_generated_file")
    }


def main():
    """Runs all kinds; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help="files in total")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cli.console = Console(file=io.StringIO(), markup=False, emoji=False)
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        # Deep inside, so that what leads out of the working folder still lands where it is seen.
        place = pathlib.Path(name)
        folder, spare = place / "a" / "b" / "c" / "work", place / "temporary"
        folder.mkdir(parents=True)
        spare.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(spare)
        os.chdir(folder)
        kinds = [TFLite(folder), KerasFile(folder), Photo(folder)]
        before = tree(place)
        allowed = {"model.keras", "model.tflite", "model.h", "photo.img"}
        for number, kind in enumerate(kinds):
            count = (arguments.count + number) // len(kinds)
            found = run(kind, count, f"{arguments.seed}/{type(kind).__name__}")
            new = tree(place) - before - {f"a/b/c/work/{name}" for name in allowed}
            figures[type(kind).__name__] = {**found, "files_outside": sorted(new)}
        os.chdir("/")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    bars = {"slowest_seconds": LONGEST, "faults": 0, "files_outside": 0}
    result = {"bars": bars, "files": arguments.count, "peak_mib": peak, "kinds": figures}
    if arguments.count >= COUNT:
        record("fuzz", result)
    else:
        print(result)
    held = (
        found["slowest_seconds"] <= LONGEST and not found["faults"] and not found["files_outside"]
        for found in figures.values()
    )
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
