"""The pages agree with the code: names, tables, and the quickstart as it stands."""

import collections
import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

import kerasopt as ko

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
ROOMS = sorted(path.parent.name for path in (ROOT / "kerasopt").glob("*/__init__.py"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def documented_names():
    return collections.Counter(
        name
        for page in PAGES
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    )


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_on_its_page_once(room):
    text = (DOCS / f"{room}.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    module = importlib.import_module(f"kerasopt.{room}")
    assert sorted(listed) == [f"kerasopt.{room}.{name}" for name in sorted(module.__all__)]


def test_no_name_is_documented_twice():
    assert [name for name, count in documented_names().items() if count > 1] == []


def test_the_index_of_callbacks_lists_every_callback_with_its_room():
    text = (DOCS / "callbacks.md").read_text(encoding="utf-8")
    for name in ko.callbacks.__all__:
        room = getattr(ko.callbacks, name).__module__.split(".")[1]
        assert f"[`ko.{room}.{name}`]({room}.md" in text, name


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\w+\.md)$", text, re.MULTILINE))
    assert listed == {page.name for page in PAGES}


def rules_table():
    """Writes the table of int8 rules of docs/quantization.md from the table in the code."""
    from kerasopt.quantization._table import TABLE

    lines = ["| layer, activation or function | kind | in the int8 file |", "|---|---|---|"]
    for row in TABLE:
        names = [f"`{name}`" for name in f"{row.layers} {row.functions}".split()]
        note = row.note or f"float: {row.rule.reason}"
        if row.rule.weights:
            note += f" ({row.rule.reason})"
        lines.append(f"| {', '.join(names)} | {_kind(row.rule)} | {note} |")
    return "\n".join(lines)


def _kind(rule):
    names = {
        "kernel": "fused group",
        "norm": "fused group",
        "affine": "fused group",
        "relu": "fused",
        "sum": "own range",
        "own": "own range",
        "fixed": "fixed range",
        "same": "same scale",
        "dropped": "dropped",
        "join": "shared range",
        "shared": "shared range",
        "float": "float island",
    }
    return f"decomposed, {names[rule.kind]}" if rule.steps else names[rule.kind]


def test_the_table_of_int8_rules_is_that_of_the_code():
    text = (DOCS / "quantization.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- rules -->\n(.*?)\n<!-- /rules -->", text, re.DOTALL).group(1)
    assert shown.strip() == rules_table(), "paste what tests.test_docs.rules_table() returns"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page):
    for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
        compile(block, f"{page.name} block {number}", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_are_not_given_in_the_place_of_loss_weights(page):
    """The third positional argument of `compile` is `loss_weights`."""
    for call in re.findall(r"\.compile\((.*?)\)\n", page.read_text(encoding="utf-8"), re.DOTALL):
        assert not re.search(r",\s*\[", call), "write metrics=[...]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "quickstart.md",
        "training.md",
        "distillation.md",
        "pruning.md",
        "quantization.md",
        "export.md",
    ],
)
def test_the_blocks_of_a_page_run(name, tmp_path):
    blocks = BLOCK.findall((DOCS / name).read_text(encoding="utf-8"))
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if name == "quickstart.md":
        agreement = re.search(r"same class on ([\d.]+)%", done.stdout).group(1)
        accuracy, keras_accuracy = re.search(
            r"accuracy ([\d.]+)%, in Keras ([\d.]+)%", done.stdout
        ).groups()
        assert float(agreement) >= 98.0
        assert float(accuracy) >= max(75.0, float(keras_accuracy) - 1.0)
        assert (tmp_path / "clothes.keras").is_file()
        assert (tmp_path / "clothes.tflite").is_file()


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            tmp_path / "site",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis.com" not in home
