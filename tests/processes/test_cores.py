"""Lanes: results in order, not far ahead, and no error that ends the work without a word."""

import pytest

from rediffuse.processes.cores import Lanes


@pytest.fixture(params=[1, 3])
def lanes(request):
    lanes = Lanes(request.param)
    yield lanes
    lanes.close()


def test_results_come_in_order_and_not_far_ahead(lanes):
    begun = []

    def squared(number):
        begun.append(number)
        return number**2

    results = lanes.map(squared, range(100))
    assert [next(results) for _ in range(10)] == [number**2 for number in range(10)]
    assert len(begun) <= 10 + 2 * lanes.number
    assert list(results) == [number**2 for number in range(10, 100)]


def test_a_stop_iteration_ends_nothing_in_silence(lanes):
    """As a reward raises it that reads its answers by `next`."""

    def third_fails(number):
        return next(iter([] if number == 2 else [number]))

    results = lanes.map(third_fails, range(5))
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(results)
