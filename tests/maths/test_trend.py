import math
import random

import pytest

from rediffuse.maths.trend import trend


def test_a_slope_in_its_own_errors_worked_by_hand():
    # y = 0, 2, 1, 3: slope 0.8, residuals -0.3, 0.9, -0.9, 0.3, whose squares add up to 1.8; error sqrt(0.9 / 5)
    along = trend([0, 2, 1, 3])
    assert along.sure == pytest.approx(0.8 / math.sqrt(0.9 / 5))
    assert (along.first, along.last) == (0, 3)
    assert along.way == "flat"


def test_noise_that_is_known_bounds_how_sure_a_straight_line_can_be():
    line = [0.1 * i for i in range(8)]
    assert trend(line).way == "rises"
    assert trend(line, [1.0] * 8).way == "flat"
    assert trend(line, [0.01] * 8).way == "rises"
    assert trend([-value for value in line], [0.01] * 8).way == "falls"


def test_noise_alone_seldom_looks_like_a_slope():
    chance = random.Random(0)
    ways = [trend([chance.gauss(0, 1) for _ in range(12)]).way for _ in range(500)]
    assert ways.count("flat") >= 490


def test_values_that_never_change_are_flat():
    assert trend([2.0] * 6).way == "flat"
    assert trend([2.0]).way == "flat"


def test_of_few_values_a_bend_is_no_noise():
    soon_done = [-1.6, -0.5, -0.2, -0.1]
    assert trend(soon_done).way == "flat"
    assert trend(soon_done, [0.17] * 4).way == "rises"
    assert trend(soon_done, [0.5] * 4).way == "flat"
    assert trend([*soon_done, *[-0.1] * 6], [0.17] * 10).way == "flat"  # the slope alone, of many
