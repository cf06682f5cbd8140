"""Names of points in a chart: short, different, and none over another."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.report.charts.names import short_names
from cct_export.report.charts.placement import Marker, Room, place_names
from cct_export.report.charts.svg import LINE_HEIGHT, text_width


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["cct-float32.tflite", "cct-int8.tflite"], ["float32", "int8"]),
        (["cct-int8.tflite", "cct-int8.onnx"], ["int8.tflite", "int8.onnx"]),
        (["cct.tflite", "cct-int8.tflite"], ["cct", "cct-int8"]),
        (["cct.tflite", "cct-int8.tflite", "cct-int8.onnx"],
         ["cct.tflite", "cct-int8.tflite", "cct-int8.onnx"]),
        (["a.tflite, 1 thread", "a.tflite, 2 threads"], ["1 thread", "2 threads"]),
        (["a.tflite, batch 1", "a.tflite, batch 8"], ["batch 1", "batch 8"]),
        (["v1.2.onnx", "v1.3.onnx"], ["v1.2", "v1.3"]),
        (["a.onnx (no. 1)", "a.onnx (no. 2)"], ["no. 1", "no. 2"]),
        (["only-int8.onnx"], ["only-int8.onnx"]),
        ([], []),
        (["---", "a"], ["---", "a"]),
        (["x" * 40 + "1.onnx", "x" * 40 + "2.onnx"], ["x" * 10 + "…" + "x" * 10 + "1",
                                                    "x" * 10 + "…" + "x" * 10 + "2"]),
        ([f"run{n}_mixup_rotation_finetuned-{q}.onnx" for n, q in ((1, "int8"), (2, "int4"))],
         ["run1…-int8", "run2…-int4"]),
    ],
)  # fmt: skip
def test_short_names_keep_what_distinguishes(names, short):
    assert short_names(names) == short


@given(st.lists(st.text("ab1-_. …é\x00\n", min_size=1, max_size=60), unique=True, max_size=8))
def test_short_names_are_short(names):
    assert all(len(name) <= 22 for name in short_names(names))


def test_names_that_are_cut_to_the_same_get_a_number():
    long = [f"{'x' * 30}{middle}{'y' * 30}" for middle in "ab"]
    first, second = short_names(long)
    assert first.startswith("1 ")
    assert second.startswith("2 ")


MARKERS = st.lists(
    st.builds(
        lambda x, y, radius, name: Marker(x, y, radius, (name, "7")),
        st.floats(0.1, 0.9), st.floats(60, 340), st.floats(5, 16), st.text("abc-W", max_size=22),
    ),
    max_size=12,
)  # fmt: skip
ROOMS = st.sampled_from(
    [Room(30, 370, widths) for widths in ((225.0, 265.0), (255.0, 590.0), (570.0, 1280.0))]
)


def _edges(marker, place, width):
    """Left, right, top and bottom of a name in a plot of this width."""
    size = text_width(place.name)
    left = marker.x * width + place.dx - {"start": 0, "middle": size / 2, "end": size}[place.anchor]
    return left, left + size, place.y - LINE_HEIGHT / 2, place.y + LINE_HEIGHT / 2


def _meet(a, b):
    return a[0] < b[1] - 1e-6 and b[0] < a[1] - 1e-6 and a[2] < b[3] - 1e-6 and b[2] < a[3] - 1e-6


@given(MARKERS, ROOMS, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_no_name_covers_another_or_a_marker_or_leaves_the_plot(markers, room, share):
    width = room.widths[0] + share * (room.widths[1] - room.widths[0])
    names = [
        _edges(marker, place, width)
        for marker, place in zip(markers, place_names(markers, room), strict=True)
        if place is not None
    ]
    discs = [
        (m.x * width - m.radius, m.x * width + m.radius, m.y - m.radius, m.y + m.radius)
        for m in markers
    ]
    assert not any(_meet(a, b) for a, b in combinations(names, 2))
    assert not any(_meet(name, disc) for name in names for disc in discs)
    for left, right, top, bottom in names:
        assert -1e-6 <= left <= right <= width + 1e-6
        assert room.top <= top <= bottom <= room.bottom


@pytest.mark.parametrize("widths", [(255.0, 590.0), (570.0, 1280.0)])
def test_eight_points_of_one_accuracy_all_have_their_names(widths):
    markers = [
        Marker(0.1 + 0.8 * index / 7, 200.0, 14.0, (f"scheme{index}.tflite", str(index)))
        for index in range(8)
    ]
    places = place_names(markers, Room(30, 370, widths))
    assert [place.name for place in places] == [marker.names[0] for marker in markers]


def test_a_name_that_is_wider_than_the_plot_is_replaced_by_a_number():
    (place,) = place_names([Marker(0.5, 200.0, 5.0, ("W" * 22, "12"))], Room(30, 370, (225, 265)))
    assert place.name == "12"


def test_a_name_is_beside_its_point_where_there_is_room():
    markers = [Marker(0.2, 100.0, 5.0, ("a",)), Marker(0.8, 300.0, 5.0, ("b",))]
    for marker, place in zip(
        markers, place_names(markers, Room(30, 370, (570, 1280))), strict=True
    ):
        assert place.y == marker.y
        assert place.leader is None


def test_where_a_crowd_leaves_no_room_points_have_no_name():
    crowd = [Marker(0.5, 200.0, 5.0, ("a-long-name.tflite", str(n))) for n in range(60)]
    places = place_names(crowd, Room(30, 370, (225, 265)))
    assert None in places
    assert any(place and place.name == "a-long-name.tflite" for place in places)
