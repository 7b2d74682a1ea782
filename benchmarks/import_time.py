"""What `import kerasopt` costs on top of `import keras, tensorflow`: at most 0.3 s.

    python benchmarks/import_time.py [repetitions]

Every import happens in a fresh process. The variants take turns, and begin with another one in
each round, so that what else the machine does meets all of them alike.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

from kerasopt.report import environment

BAR_SECONDS = 0.3
RESULTS = pathlib.Path(__file__).parent / "results"
HOSTS = "import keras, tensorflow"
VARIANTS = {
    "keras, tensorflow": HOSTS,
    "keras, tensorflow, kerasopt": f"{HOSTS}, kerasopt",
    "keras, tensorflow, kerasopt and every room": (
        f"{HOSTS}, kerasopt as ko; [getattr(ko, room) for room in ko.__all__]"
    ),
}
# Inside one process, where the hosts' own scatter does not count.
ON_TOP = (
    f"{HOSTS}, time; start = time.perf_counter(); import kerasopt; "
    "print(time.perf_counter() - start)"
)


def seconds(code):
    """Seconds of the imports in a fresh process, the start of Python left out."""
    timed = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
    return printed(timed)


def printed(code):
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=variables
    )
    return float(done.stdout.split()[-1])


def measure(repetitions):
    times = {name: [] for name in VARIANTS}
    alone = []
    for code in VARIANTS.values():  # the first read of every file comes from the disk
        seconds(code)
    names = list(VARIANTS)
    for round_number in range(repetitions):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(seconds(VARIANTS[name]))
        alone.append(printed(ON_TOP))
    return times, alone


def main():
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times, alone = measure(repetitions)
    medians = {name: statistics.median(values) for name, values in times.items()}
    hosts, ours, rooms = medians.values()
    result = {
        "repetitions": repetitions,
        "median_seconds": medians,
        "difference_seconds": ours - hosts,
        "difference_every_room_seconds": rooms - hosts,
        "same_process_seconds": statistics.median(alone),
        "bar_seconds": BAR_SECONDS,
        "seconds": times,
        "environment": environment(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "import_time.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, value in medians.items():
        print(f"{value:7.3f} s  import {name}")
    print(f"{ours - hosts:+7.3f} s  kerasopt on top, difference of medians")
    print(f"{statistics.median(alone):+7.3f} s  kerasopt on top, measured in the same process")
    print(f"{rooms - hosts:+7.3f} s  every room on top")
    at = result["environment"]
    print(
        f"\n| `import kerasopt` | {ours - hosts:+.3f} s ({statistics.median(alone):.4f} s in the "
        f"same process) | at most {BAR_SECONDS} s | {at['processor']}, {at['logical cores']} "
        f"logical cores, Python {at['python']}, TensorFlow {at['tensorflow']}, "
        f"Keras {at['keras']}, kerasopt {at['kerasopt']} |"
    )
    return 0 if ours - hosts <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
