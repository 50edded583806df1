"""Values that nobody should report: each costs its own observation and nothing of anybody else's."""

from __future__ import annotations

import warnings
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from infermeter import CostModel, Detections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infermeter import Recorder
    from tests.instrumentation.conftest import NewRecorder, Scrape
    from tests.page import Page

HUGE = 10**400


class Raises:
    """Fails whenever it is looked at."""

    def fail(self, *_: object) -> Any:
        message = "do not look at me"
        raise RuntimeError(message)

    __str__ = __repr__ = __float__ = __int__ = __index__ = __len__ = __iter__ = __bool__ = fail
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __hash__ = __getitem__ = __array__ = fail


class OnDevice:
    """Lies on a GPU; reading it would stall the model."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def read(self, *_: object, **__: object) -> Any:
        raise AssertionError

    __float__ = __array__ = __len__ = __le__ = __lt__ = __ge__ = __gt__ = __bool__ = __index__ = read
    __add__ = __radd__ = __int__ = read


def bystander(recorder: Recorder) -> None:
    """An inference like any other, folded together with the hostile one."""
    with recorder.track(model="m") as call:
        call.detections([0.5, 0.6], classes=["cat", "dog"])
        call.tokens(prompt=10)
        call.batch_size(2)


def untouched(page: Page, *, objects: int = 0) -> None:
    """Two bystanders are counted whole, and totals agree with each other although something was refused."""
    assert page.value("inferences_total") == page.value("inference_duration_count") == 3
    assert page.value("inferences_in_flight") == 0
    assert page.by("class", "detections_total")["cat"] >= 2
    assert page.by("class", "detections_total")["dog"] >= 2
    assert page.value("objects_per_frame_sum") == page.value("detections_total") == 4 + objects
    assert page.value("inference_batch_size_sum") >= 4
    assert page.value("inference_cost_count") == 3
    assert page.dropped().get("internal", 0) == 0


@pytest.fixture
def priced(new_recorder: NewRecorder) -> Recorder:
    """With a price on everything."""
    return new_recorder(cost=CostModel(usd_per_hour=1, usd_per_1k_prompt_tokens=1, usd_per_1k_completion_tokens=1))


NUMBERS = [HUGE, -HUGE, Decimal(3), Fraction(3), Decimal("NaN"), np.array([3]), np.array([1, 2]), np.array(3)]
NUMBERS += [np.int32(3), np.float16(3), True, "3", b"3", None, 3j, [3], float("nan"), Raises(), OnDevice()]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
@pytest.mark.parametrize("report", ["prompt", "completion", "batch_size", "input_size"])
def test_numbers(priced: Recorder, scrape: Scrape, report: str, number: Any) -> None:
    """What is no number of a sensible size is dropped; the user's code and the rest of the batch never notice."""
    bystander(priced)
    with priced.track(model="m") as call:
        if report in {"prompt", "completion"}:
            call.tokens(**{report: number})
        else:
            getattr(call, report)(number)
    bystander(priced)
    page = scrape(priced)
    untouched(page)
    reported = page.value("inference_tokens_total") - 20 + page.value("inference_batch_size_sum") - 4
    reported += page.value("inference_input_size_bytes_sum") if "inference_input_size_bytes_sum" in page.names else 0
    refused = sum(page.dropped().values())
    assert (reported, refused) in {(3, 0), (1, 0), (0, 1)}


LISTS: list[Any] = [
    [0.5, HUGE],
    [HUGE],
    [0.5, None],
    [0.5, "x"],
    [0.5, 3j],
    [0.5, Decimal("0.5")],
    [0.5, Raises()],
    [Raises()],
    [1, Raises()],
    Raises(),
    [0.5, [0.5]],
    [[0.5], [0.5, 0.25]],
    {"a": 1},
    {0.5},
    "0.5",
    b"0.5",
    None,
    (value for value in [0.5]),
    np.array(["a"]),
    np.array([0.5, None], object),
    np.array([1 + 2j]),
    np.array(["2020-01-01"], "datetime64[D]"),
    np.zeros(2, [("x", "f4"), ("y", "f4")]),
    np.zeros(2, "V8"),
]


@pytest.mark.parametrize("values", LISTS, ids=lambda values: type(values).__name__)
def test_confidences(priced: Recorder, scrape: Scrape, values: Any) -> None:
    """Unreadable confidences are dropped, one by one or as a frame, and counted."""
    bystander(priced)
    with priced.track(model="m") as call:
        call.detections(values)
    bystander(priced)
    page = scrape(priced)
    untouched(page, objects=int(page.value("objects_per_frame_sum")) - 4)
    confidences = page.value("detection_confidence_count") - 4
    assert confidences == page.value("objects_per_frame_sum") - 4 or page.dropped() != {}


@pytest.mark.parametrize(
    "values",
    [OnDevice(), [OnDevice()], (OnDevice(),), [1, OnDevice()], [np.float16(1), OnDevice()]],
    ids=["array", "list", "tuple", "after an int", "after a scalar"],
)
def test_values_on_a_device_are_never_read(priced: Recorder, scrape: Scrape, values: Any) -> None:
    """A list is taken for what its first element is: one of floats is copied without a look at the others."""
    read = []

    class Watched(OnDevice):
        def read(self, *_: object, **__: object) -> Any:
            read.append(self)
            raise AssertionError

        __float__ = __array__ = read

    if isinstance(values, (list, tuple)):
        values = type(values)(Watched() if isinstance(value, OnDevice) else value for value in values)
    else:
        values = Watched()
    bystander(priced)
    with priced.track(model="m") as call:
        call.detections(values)
    bystander(priced)
    page = scrape(priced)
    assert read == []
    untouched(page, objects=int(page.value("objects_per_frame_sum")) - 4)
    assert page.dropped() == {"device_array": 1}


class NamesThatRaise(dict[int, str]):
    """A mapping of the user's with an error in it."""

    def __missing__(self, key: int) -> str:
        raise RuntimeError(key)


class NamesWithoutEnd:
    """Iterable by the old protocol, for ever: anything with a length and items."""

    def __init__(self) -> None:
        self.asked = 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, key: int) -> str:
        self.asked += 1
        assert self.asked < 1000, "asked without end"
        return f"class {key}"


CLASSES: list[tuple[Any, Any]] = [
    (["cat", Raises()], None),
    ([1, 2], NamesThatRaise()),
    ([1, 2], {1: Raises(), 2: "cat"}),
    ([1, 2], Raises()),
    ([1, 2], NamesWithoutEnd()),
    ([HUGE, -HUGE], ["cat"]),
    ([float("nan"), float("inf")], ["cat"]),
    ([1.5, -1.0], ["cat", "dog"]),
    ([{}, []], None),
    ([None, None], None),
    (["cat", None], None),
    (np.array([1, 2], np.longdouble), ["a", "b", "c"]),
    (np.array([1, 2], ">i8"), ["a", "b", "c"]),
    (np.array(["cat", b"dog"], object), None),
    (np.array(["2020-01-01"] * 2, "datetime64[D]"), None),
    (Raises(), None),
    (OnDevice(), None),
    ([OnDevice(), OnDevice()], None),
]


@pytest.mark.parametrize(("classes", "names"), CLASSES)
def test_classes_and_names(priced: Recorder, scrape: Scrape, classes: Any, names: Any) -> None:
    """Whatever is wrong with them, the confidences count, and every detection has some class."""
    bystander(priced)
    with priced.track(model="m") as call:
        call.detections([0.5, 0.75], classes, names)
    bystander(priced)
    untouched(scrape(priced), objects=2)


@pytest.mark.parametrize("names", [NamesThatRaise({1: "a"}), NamesWithoutEnd(), {1: Raises()}, {"a": "b"}, [None, 3]])
def test_names_of_a_track(priced: Recorder, scrape: Scrape, names: Any) -> None:
    """They are announced before the first call and looked up after it, and neither can stop a scrape or a call."""
    bystander(priced)
    infer = priced.track(model="m", names=names, detections=lambda _: Detections([0.5, 0.75], [0, 1]))(lambda: 1)
    scrape(priced)
    assert infer() == 1
    bystander(priced)
    untouched(scrape(priced), objects=2)


def test_the_library_warns_nobody(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """No RuntimeWarning of NumPy reaches the user's console, or, where warnings are errors, costs a batch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recorder = new_recorder(buckets={"detection_confidence": [1e-300, 0.5, 1e300]})
        for values in ([float("inf"), float("-inf")], np.array([np.inf, -np.inf, 3e38, 3e38], np.float32), [1e308] * 9):
            with recorder.track(model="m") as call:
                call.detections(values)
                call.detections(np.array([60000, np.inf], np.float16))
        scrape(recorder)
    assert [str(warning.message) for warning in caught] == []


def test_an_iterator_as_result_is_not_consumed(recorder: Recorder, scrape: Scrape) -> None:
    """The extractor gets the result itself; what it leaves, the caller gets."""

    @recorder.track(model="m", detections="auto")
    def infer() -> Iterator[int]:
        return iter([1, 2, 3])

    assert list(infer()) == [1, 2, 3]
    assert scrape(recorder).dropped() == {"unrecognised_result": 1}


def test_an_empty_batch_has_no_frames(recorder: Recorder, scrape: Scrape) -> None:
    """`auto` takes a list for a list of frames: an empty one has none, and an inference it was all the same."""

    @recorder.track(model="m", detections="auto")
    def infer() -> list[object]:
        return []

    assert infer() == []
    page = scrape(recorder)
    assert page.value("inferences_total") == 1
    assert page.value("objects_per_frame_count") == 0


def test_subclasses_of_list_are_lists(recorder: Recorder, scrape: Scrape) -> None:
    """Also when they are empty."""

    class Scores(list[float]):
        pass

    for values in (Scores(), Scores([0.5, 0.75])):
        with recorder.track(model="m") as call:
            call.detections(values)
    page = scrape(recorder)
    assert page.value("objects_per_frame_count") == page.value("objects_per_frame_sum") == 2
    assert page.dropped() == {}
