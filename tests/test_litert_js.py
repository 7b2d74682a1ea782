"""How LiteRT.js gets into the package: every byte checked, whole or not at all."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import kerasopt
from kerasopt import _litert_js

NPM = shutil.which("npm")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package of its own, in which an older version is."""
    target = tmp_path / "serving" / "litert_js"
    target.mkdir(parents=True)
    (target / "VERSION").write_text("0.0.1\n", encoding="utf-8")
    monkeypatch.setattr(_litert_js, "FOLDER", target)
    return target


def left_as_it_was(folder):
    assert [path.name for path in folder.parent.iterdir()] == ["litert_js"]
    return (folder / "VERSION").read_text(encoding="utf-8") == "0.0.1\n"


def test_an_older_version_does_not_count(folder):
    assert not _litert_js.is_installed()
    (folder / "VERSION").write_text(f"{_litert_js.VERSION}\n", encoding="utf-8")
    assert _litert_js.is_installed()


def test_without_npm(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(RuntimeError, match=r"`npm` must be on the PATH.*Install Node\.js"):
        _litert_js.install()
    assert left_as_it_was(folder)


def test_other_bytes_are_refused(folder, tmp_path, monkeypatch):
    """A registry that hands over something else, with the right name."""
    npm = tmp_path / "npm"
    name = f"litertjs-core-{_litert_js.VERSION}.tgz"
    npm.write_text(f"#!{sys.executable}\nimport sys\nopen({name!r}, 'wb').write(b'else')\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match=r"must have the SHA-512 PlGmbM.*Nothing was installed"):
        _litert_js.install()
    assert left_as_it_was(folder)


@pytest.mark.slow
@pytest.mark.skipif(NPM is None, reason="needs npm on the PATH")
def test_a_registry_that_is_away(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match=r"npm must fetch @litertjs/core@.*Check the network"):
        _litert_js.install()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert left_as_it_was(folder)


@pytest.mark.skipif(not _litert_js.is_installed(), reason="needs LiteRT.js (make web)")
def test_what_was_installed_is_whole_and_needs_no_node_modules():
    for name in _litert_js.FILES:
        assert (_litert_js.FOLDER / name).stat().st_size > 1000
    core = (_litert_js.FOLDER / "core.js").read_text(encoding="utf-8")
    assert re.findall(r'^import .* from "(.*)";', core, re.MULTILINE) == ["./wasm-utils.js"]


def test_the_command_says_what_to_run_before_it_loads_anything(tmp_path):
    """A copy of the package without LiteRT.js, as `pip install` from the sources makes it."""
    source = os.path.dirname(kerasopt.__file__)
    shutil.copytree(
        source, tmp_path / "kerasopt", ignore=shutil.ignore_patterns("litert_js", "__pycache__")
    )
    code = "import sys, kerasopt.cli as cli; sys.argv = ['kerasopt', 'serve', 'run']; cli.main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "Run: kerasopt serve --install (once; it needs npm and the network)" in done.stderr
    assert "tensorflow" not in done.stderr
