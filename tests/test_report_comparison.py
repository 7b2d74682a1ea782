"""Several runs on one page, from figures that anyone may have written."""

import re

import pytest
from typer.testing import CliRunner

from kerasopt import report as kr
from kerasopt.cli import app
from kerasopt.report._run_file import read_run
from tests.comparison_runs import NAMES, better, metrics, write
from tests.report_page import Page, assert_loads_nothing


@pytest.fixture
def runs(tmp_path):
    return [write(tmp_path / "first", metrics()), write(tmp_path / "second", better())]


def compared(runs, tmp_path):
    return kr.write_comparison(runs, tmp_path / "c.html").read_text("utf-8")


def words(html):
    return Page(html).words.replace("\u2212", "-")


def test_the_page_is_whole_loads_nothing_and_is_the_same_each_time(runs, tmp_path):
    html = compared(runs, tmp_path)
    assert_loads_nothing(html)
    page = Page(html)
    assert page.open == []
    assert {"runs", "settings", "pareto", "curves", "files"} <= set(page.ids)
    assert {v.removeprefix("#") for v in page.values("a", "href")} <= set(page.ids)
    assert compared(runs, tmp_path) == html
    assert str(tmp_path) not in html


def test_a_row_has_the_figures_and_what_is_better_and_worse(runs, tmp_path):
    html = compared(runs, tmp_path)
    table = html.split('id="run-table"')[1].split("</table>")[0]
    first, second = re.findall(r"<tr><th scope=\"row\".*?</tr>", table, re.DOTALL)
    told = [words(f"<table>{row}</table>") for row in (first, second)]
    assert told[0] == "A first 90.0 % 88.0 % 1.0 KiB 2.00 50.0 % 2 min 5 s"
    assert told[1] == (
        "B second 91.5 % +1.5 points 89.0 % +1.0 points 1.5 KiB +50 % 1.50 -25 % "
        "50.0 % ±0.0 points 2 min 5 s ±0 %"
    )
    assert re.findall(r'class="change ([a-z]*)"', second) == [
        "better",
        "better",
        "worse",
        "better",
        "",
        "",
    ]


def test_settings_that_differ_are_apart_from_those_that_do_not(runs, tmp_path):
    html = compared(runs, tmp_path)
    table = html.split('class="numbers settings"')[1].split("</table>")[0]
    rows = re.findall(r'<th scope="row">([^<]+)</th>', table)
    assert rows == ["seed"]
    assert re.findall(r'<td( class="differs")?>([^<]+)</td>', table) == [
        ("", "0"),
        (' class="differs"', "1"),
    ]
    assert "The same in all 2 settings backbone MobileNetV2 epochs 4" in words(html)


def test_all_files_and_curves_of_all_runs_are_drawn(runs, tmp_path):
    html = compared(runs, tmp_path)
    dots = re.findall(r'class="dot (run\d) ?(shipped)?[ \w]*" d="[^"]+"><title>([^\n<]+)', html)
    files = [dot for dot in dots if not dot[2].startswith("epoch")]
    assert len(files) == 2 * 4
    assert files[0] == ("run0", "", "A first: float32")
    assert ("run1", "shipped", "B second: int8, shipped") in files
    titles = re.findall(r"<title>(epoch \d, [^<]+)</title>", html)
    assert "epoch 2, B second: 80.0\u202f%" in titles
    assert "epoch 1, A first: 1.1" in titles
    assert len(titles) == 2 * 2 * 2
    table = html.split("comparison-files")[1]
    assert re.findall(r'<td class="kind">([^<]+)', table) == ["int8", "int8", "float32", "float32"]


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"class_names": ["daisy", "rose", "tulip"]}, "different classes"),
        ({"environment": {"processor": "Other"}}, "different processors: Test CPU 9000, Other"),
        ({"environment": {}}, "different processors: Test CPU 9000, unknown"),
        ({"files": {}}, "No int8 file has been measured in B"),
        ({"files": {}}, "different numbers of photos: 400, 0"),
    ],
)
def test_what_forbids_to_compare_is_said(tmp_path, changes, warning):
    runs = [write(tmp_path / "first", metrics()), write(tmp_path / "other", metrics(**changes))]
    html = compared(runs, tmp_path)
    assert_loads_nothing(html)
    assert warning in words(html)
    assert warning not in words(compared([runs[0], runs[0]], tmp_path))


def test_no_curves_and_no_files_are_said_so(tmp_path):
    runs = [write(tmp_path / n, metrics(history={}, files={}, settings={})) for n in "ab"]
    told = words(compared(runs, tmp_path))
    assert "No run has logged a validation accuracy or loss." in told
    assert "No run has made a file." in told
    assert "All runs were started with the same settings." in told
    assert told.count("Not drawn") == 2


def test_text_of_a_run_is_escaped_and_folders_of_one_name_are_told_apart(tmp_path):
    evil = '"><script>alert(1)</script>'
    values = metrics(settings={evil: evil, "backbone": evil}, environment={"processor": evil})
    runs = [write(tmp_path / "a" / "run", metrics()), write(tmp_path / "b" / "run", values)]
    html = compared(runs, tmp_path)
    assert_loads_nothing(html)
    assert "a/run" in html
    assert "b/run" in html


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "no JSON: Expecting"),
        ("[1]", "`the whole` is no object: list"),
        ("[" * 100_000, "no JSON"),
        ("{}", "`test_accuracy` is missing"),
        (metrics(settings=3), "`settings` is no object: int"),
        (metrics(sparsity="half"), r"`sparsity` is no number in \[0, 1\]: 'half'"),
        (metrics(sparsity=float("nan")), r"`sparsity` is no number"),
        (metrics(training_seconds=-1), r"`training_seconds` is no number in \[0, inf\]: -1"),
        (metrics(class_names="daisy"), "`class_names` is no list: str"),
        (metrics(history={"loss": [1.0, "x"]}), "`history.loss` has other values than numbers"),
        (metrics(files={"int4": {}}), "unknown kinds of files: int4"),
        (metrics(files={"int8": {}}), "`files.int8.milliseconds` is missing"),
        (metrics(files={"int8": {"milliseconds": {"one": 1.0}}}), "other keys than numbers of thr"),
        (metrics(files={"int8": {"milliseconds": {"0": 1.0}, "size": 1, "gzip_size": 1}}), "`fil"),
        (metrics(files={"int8": {"milliseconds": {}, "size": 1.5}}), "size` is no whole number"),
        (metrics(test_accuracy={"keras": 91.0}), r"`test_accuracy.keras` is no number in \[0, 1\]"),
    ],
)
def test_a_damaged_or_foreign_file_is_named_with_what_is_wrong(tmp_path, values, message):
    good, bad = write(tmp_path / "good", metrics()), write(tmp_path / "bad", values)
    with pytest.raises(ValueError, match=rf"(?s)`runs` must be .*bad.metrics\.json.*{message}"):
        kr.write_comparison([good, bad], tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()


def test_runs_that_are_none_are_refused(runs, tmp_path):
    target = tmp_path / "c.html"
    with pytest.raises(ValueError, match=r"2 to 8 folders of runs\. Received: 1"):
        kr.write_comparison(runs[:1], target)
    with pytest.raises(ValueError, match=r"2 to 8 folders of runs\. Received: 1"):
        kr.write_comparison(str(runs[0]), target)
    with pytest.raises(ValueError, match=r"2 to 8 folders of runs\. Received: 9"):
        kr.write_comparison([runs[0]] * 9, target)
    with pytest.raises(ValueError, match=r"no such file. `kerasopt train` writes it"):
        kr.write_comparison([runs[0], tmp_path / "none"], target)
    with pytest.raises(ValueError, match="`path` must be a file in an existing folder"):
        kr.write_comparison(runs, tmp_path / "no" / "c.html")


def test_values_that_may_be_missing_may_be_missing(tmp_path):
    values = metrics()
    for name in ("accuracy", "keras_accuracy", "agreement", "samples"):
        del values["files"]["int8"][name]
    values["test_accuracy"]["keras"] = None
    run = read_run(write(tmp_path / "run", values) / "metrics.json")
    assert run.keras_accuracy is None
    assert run.shipped.accuracy is None
    assert run.class_names == tuple(NAMES)
    html = compared([tmp_path / "run", tmp_path / "run"], tmp_path)
    assert "None" not in words(html)


def call(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_compares_runs(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*runs)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "comparison.html"
    assert (tmp_path / "comparison.html").read_text("utf-8") == compared(runs, tmp_path)
    assert call(*runs, "--out", tmp_path / "other.html").exit_code == 0
    assert (tmp_path / "other.html").is_file()


def test_the_command_finds_the_report_of_a_single_run(runs, tmp_path):
    result = call(runs[0])
    assert result.exit_code == 1
    assert "has no report.html" in str(result.exception)
    (runs[0] / "report.html").write_text("x")
    result = call(runs[0])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(runs[0] / "report.html")
    result = call(runs[0], "--out", tmp_path / "c.html")
    assert "`out` must be left out with a single run" in str(result.exception)
