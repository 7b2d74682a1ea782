"""The split by hash: complete, stable, never empty."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kerasopt.datasets._folders import SPLITS, assign_splits

names_strategy = st.sets(st.integers(0, 10**6).map("daisy/{:06d}.jpg".format), min_size=3)
fractions_strategy = st.tuples(*[st.floats(0.05, 1.0)] * 3).map(
    lambda parts: tuple(p / sum(parts) for p in parts)
)


@given(names_strategy, fractions_strategy, st.integers(0, 2**32))
def test_every_name_gets_one_split_and_no_split_is_empty(names, fractions, seed):
    assigned = assign_splits(sorted(names), fractions, seed)
    assert set(assigned) == names
    assert set(assigned.values()) == set(SPLITS)
    assert assigned == assign_splits(sorted(names, reverse=True), fractions, seed)


@given(names_strategy, names_strategy, st.integers(0, 2**32))
def test_added_files_never_move_others(names, added, seed):
    # With these two hundred, every split has a photo whatever the seed.
    base = {f"daisy/{i}.jpg" for i in range(200)} | names
    fractions = (0.5, 0.25, 0.25)
    before = assign_splits(sorted(base), fractions, seed)
    after = assign_splits(sorted(base | added), fractions, seed)
    assert {name: after[name] for name in base} == before


def test_the_split_is_blake2b_of_seed_and_name():
    names = [f"daisy/{i}.jpg" for i in range(500)]

    def bucket(name):
        digest = hashlib.blake2b(f"7/{name}".encode(), digest_size=8).digest()
        value = int.from_bytes(digest, "big") / 2**64
        return "train" if value < 0.7 else "validation" if value < 0.85 else "test"

    assigned = assign_splits(names, (0.7, 0.15, 0.15), 7)
    assert assigned == {name: bucket(name) for name in names}
    shares = [list(assigned.values()).count(s) / 500 for s in SPLITS]
    np.testing.assert_allclose(shares, (0.7, 0.15, 0.15), atol=0.05)


def test_the_nearest_photo_fills_an_empty_split():
    fractions = (0.8, 0.1, 0.1)

    def value(name):
        digest = hashlib.blake2b(f"0/{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    names = [n for n in map(str, range(100)) if value(n) < 0.8][:5]
    assigned = assign_splits(names, fractions, 0)
    by_value = sorted(names, key=value)
    # Nearest to [0.8, 0.9) went first, the next nearest to [0.9, 1] second.
    assert assigned[by_value[-1]] == "validation"
    assert assigned[by_value[-2]] == "test"
    assert {assigned[n] for n in by_value[:-2]} == {"train"}
