from rediffuse.planning.timings import Timings, fewest_good


def test_the_fewest_rows_that_are_nearly_as_fast_as_the_best():
    assert fewest_good({1: 4.65, 2: 6.8, 4: 11.4, 8: 20.0, 16: 38.0}) == 8
    assert fewest_good({1: 1.0, 2: 2.0}) == 1


def test_seconds_of_other_rows_are_in_proportion():
    timings = Timings({"training": {1: 3.0, 8: 16.0}, "decoding": {}})
    assert timings.at("training", 8) == 16
    assert timings.at("training", 6) == 12
    assert timings.rows == {"training": 8}
