"""What `make wheel` packs: the code, the page, and LiteRT.js, where it is."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from kerasopt import _litert_js

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kerasopt"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The names in a wheel, built of a copy so that nothing is left in the checkout."""
    pytest.importorskip("setuptools")
    pytest.importorskip("wheel")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "kerasopt", ignore=shutil.ignore_patterns("__pycache__"))
    # Without isolation nothing is fetched: the build uses what is installed.
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", target]
    command = [sys.executable, "-m", "pip", "wheel", *options, "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("kerasopt-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_folder(name):
    """The files of a folder of the package, as a wheel names them."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (PACKAGE / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_page_and_the_data(packed):
    code = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert code <= packed
    assert in_folder("serving/page") <= packed
    assert in_folder("report/templates") <= packed
    assert "kerasopt/py.typed" in packed
    assert any(name.endswith(".npz") for name in packed)


@pytest.mark.slow
@pytest.mark.skipif(
    not _litert_js.is_installed(), reason="needs LiteRT.js in the package (make web)"
)
def test_the_wheel_holds_litert_js(packed):
    files = in_folder("serving/litert_js")
    assert any(name.endswith(".wasm") for name in files)
    assert files <= packed
