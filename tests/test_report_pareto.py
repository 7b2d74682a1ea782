"""What a file costs against what it gives: the front, the axes, the names beside the points."""

import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasopt import report as kr
from kerasopt.report import _labels, _pareto
from kerasopt.report._labels import Spot, place_labels
from kerasopt.report._pareto import TradeOff, front, pareto
from tests.report_page import Page, assert_loads_nothing, row, sample

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)
SPOTS = st.lists(
    st.builds(
        Spot,
        st.floats(0, 100),
        st.floats(0, 100),
        st.sampled_from(["int8", "float32", "float32 · float16", "a name as long…"]),
    ),
    max_size=9,
)


@pytest.mark.parametrize("module", [_labels, _pareto])
def test_docstring_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@given(POINTS)
def test_the_front_is_what_no_point_beats(points):
    costs, gains = [p[0] for p in points], [p[1] for p in points]
    found = front(costs, gains)

    def beaten(a, b):
        return b[0] <= a[0] and b[1] >= a[1] and a != b

    expected = {p for p in points if not any(beaten(p, other) for other in points)}
    assert {points[i] for i in found} == expected
    assert len(found) == len(expected)  # of equal points one
    assert [costs[i] for i in found] == sorted(costs[i] for i in found)


@given(SPOTS)
def test_no_name_covers_another_or_a_point_at_any_width(spots):
    sides = place_labels(spots)
    for width in (210, 300, 480, 700):  # between the widths that were tried
        boxes = [
            (index, _labels._label_box(spot, side, width, 230))
            for index, (spot, side) in enumerate(zip(spots, sides, strict=True))
            if side
        ]
        for index, box in boxes:
            assert box.left >= -1
            assert box.right <= width + 9
            assert not any(box.meets(other) for at, other in boxes if at != index)


def file(label, size, accuracy, milliseconds=1.0, **more):
    return TradeOff(label, size, milliseconds, accuracy, **more)


def test_points_lie_where_cost_and_accuracy_are():
    files = [file("a", 4 * 1024, 0.90, 2.0), file("b", 8 * 1024, 0.94, 1.0, shipped=True)]
    size, time = pareto(files)
    assert size["axis"] == "KiB"
    assert [(p["x"], p["shipped"]) for p in size["points"]] == [(50, False), (100, True)]
    top = {text.replace("\u202f", " "): y for y, text in size["y_ticks"]}
    assert size["points"][0]["y"] == pytest.approx(top["90 %"])
    assert size["points"][1]["y"] == pytest.approx(top["94 %"])
    assert size["best"] == ["a", "b"]
    assert time["best"] == ["b"]  # faster and better
    assert [p["x"] for p in time["points"]] == [100, 50]
    assert time["front"] == f"M50 100V{time['points'][1]['y']:g}H100"


def test_what_is_only_chance_does_not_fill_the_axis():
    files = [file("a", 4096, 0.900), file("b", 8192, 0.902)]
    near, far = (
        abs(points[0]["y"] - points[1]["y"])
        for points in (pareto(files, error)[0]["points"] for error in (None, 0.02))
    )
    assert near <= 15
    assert far <= 3
    highest = pareto([file("a", 1, 1.0), file("b", 2, 0.99)], 0.05)[0]["y_ticks"][-1]
    assert highest == (0, "100.0\u202f%")  # more than all is not on the axis


def test_a_name_gives_way_where_another_order_leaves_room_for_both():
    spots = [Spot(22, 37, "int8"), Spot(41, 28, "float16"), Spot(21.7, 30, "dynamic")]
    assert all(place_labels(spots))
    assert place_labels(spots[:2])[1] == "above"  # which would cover the third


def test_points_on_top_of_each_other_share_a_name():
    files = [file("float32", 4096, 0.9), file("float16", 4097, 0.9), file("int8", 1024, 0.9)]
    names = [name["text"] for name in pareto(files)[0]["names"]]
    assert sorted(names) == ["float32 · float16", "int8"]


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ((row(), row(name="b", shipped=False, accuracy=None)), 2),
        ((row(),), 2),
        ((row(), row(name="b", shipped=False, milliseconds={2: 1.0})), 1),
        ((row(milliseconds={}), row(name="b", shipped=False, milliseconds={})), 1),
    ],
)
def test_fewer_than_two_measured_files_are_not_drawn(files, missing):
    html = kr.render(sample(files=files))
    page = Page(html)
    assert_loads_nothing(html)
    assert page.words.count("Not drawn: fewer than two files have") == missing
    assert html.count('class="front"') == 2 - missing


def test_the_page_marks_the_shipped_file_and_says_how_sure_an_accuracy_is():
    html = kr.render(sample())
    dots = re.findall(r'class="dot run0([\w ]*)" d="[^"]+"><title>([^<]+)', html)
    told = [(classes.split(), *text.split("\n")) for classes, text in dots]
    float32 = ["float32", "accuracy 87.5\u202f%, 13.00\u202fMiB", "14.3\u202fms with 1 thread"]
    int8 = ["int8, shipped", "accuracy 87.5\u202f%, 3.42\u202fMiB", float32[2]]
    # the same accuracy: the smaller file alone is on the front of sizes, of equal times the first
    assert told == [
        ([], *float32),
        (["shipped", "best"], *int8),
        (["best"], *float32),
        (["shipped"], *int8),
    ]
    # sqrt(0.875 * 0.125 / 6)
    assert "on 6 photos has a standard error of 13.5 points" in Page(html).words
