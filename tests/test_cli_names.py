"""Names from files and paths, printed as they are: nothing of them is markup, or a command."""

import keras
import pytest
from typer.testing import CliRunner

from kerasopt import _litert_js, serving
from kerasopt._text import one_line, printable, ruled
from kerasopt.cli import app
from kerasopt.export import Metadata, to_tflite
from kerasopt.profiling import compare, profile

NAMES = ("a[/b]", "[bold]", ":cat:", "x[/y] 1\\")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names") / "mod[v2]"
    folder.mkdir()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")])
    metadata = Metadata(
        name=NAMES[0],
        description=NAMES[1],
        author=NAMES[3],
        license="\x1b[2Jgone",
        labels=NAMES[:2],
    )
    to_tflite(model, folder / "model[y].tflite", metadata=metadata)
    model.save(folder / "model.keras")
    return folder / "model[y].tflite"


def printed(*arguments):
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_inspect_prints_names_and_metadata_as_they_are(file):
    shown = printed("inspect", file)
    for text in (str(file), *NAMES[:2], NAMES[3], "?[2Jgone", "2: a[/b], [bold]"):
        assert text in shown
    assert "\x1b" not in shown


def test_tensor_names_with_markup(file, monkeypatch):
    """Keras allows no slash in a layer's name; a file may hold any."""
    content = file.read_bytes()
    name = profile(content).rows[0].name.encode()
    renamed = b"a[/b]:cat:\x1b[2J".ljust(len(name), b".")[: len(name)]
    file.with_name("named.tflite").write_bytes(content.replace(name, renamed))
    shown = printed("inspect", file.with_name("named.tflite"))
    assert "a[/b]:cat:?[2J" in shown
    assert "\x1b" not in shown
    both = compare({"[/x]": content, ":cat:": file.with_name("named.tflite")}).table()
    assert "[/x]" in both
    assert ":cat:" in both


def test_export_and_report_print_paths_as_they_are(file):
    shown = printed("export", file.with_name("model.keras"))
    assert "mod[v2]" in "".join(line.strip() for line in shown.splitlines())
    (file.parent / "report.html").write_text("")
    assert printed("report", file.parent).strip() == str(file.parent / "report.html")


def test_serve_prints_the_title_as_it_is(file, monkeypatch):
    class Server:
        url = "http://127.0.0.1:1/"

        def __init__(self, run, *, port):
            self.description = {"title": "x[/y]\x1b"}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            pass

    monkeypatch.setattr(serving, "PhotoServer", Server)
    monkeypatch.setattr(_litert_js, "check_installed", lambda: None)
    assert printed("serve", file, "--no-open").startswith("x[/y]?: http://127.0.0.1:1/")


def test_text():
    assert printable("a\x1b[0m\nb\u202e") == "a?[0m\nb?"
    assert one_line("x" * 60 + "\n") == "…" + "x" * 46 + "?"
    assert ruled([("a", "b"), ("漢", "1,000")], texts=1) == [
        "  a        b",
        " ────────────",
        "  漢   1,000",
    ]
