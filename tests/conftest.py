"""Fixtures that every test may use."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest

# Modules beside the tests assert too, and a failure shall show the values there as well.
pytest.register_assert_rewrite(
    *(f"tests.{path.stem}" for path in pathlib.Path(__file__).parent.glob("[a-z]*.py"))
)

SHARED = pathlib.Path(
    os.environ.get("KERASOPT_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared")
)


@pytest.fixture(scope="session")
def shared():
    """The folder with photos and weights; tests that need it skip where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the shared photos and weights (set KERASOPT_SHARED to their folder)")
    return SHARED


@pytest.fixture(scope="module")
def browser():
    """A real one, for pages."""
    from tests.chromium import CHROMIUM, FLAGS

    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def mixed_float16():
    """Sets the policy for one test."""
    import keras  # here, so that not every test waits for it

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)
