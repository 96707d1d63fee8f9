import pytest

from rediffuse.maths.student import quantile


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [
        (0.975, 10, 2.2281), (0.995, 10, 3.1693), (0.9995, 10, 4.5869), (0.9995, 20, 3.8495), (0.9995, 30, 3.6460),
        (0.975, 120, 1.9799), (0.9995, 120, 3.3735),
    ],
)  # fmt: skip
def test_it_is_that_of_printed_tables(share, freedom, value):
    assert quantile(share, freedom) == pytest.approx(value, rel=2e-3)


def test_far_out_it_is_that_of_the_law_itself():
    scipy = pytest.importorskip("scipy.stats")
    for share in (1 - 1e-4, 1 - 1e-5):
        for freedom in (10, 15, 23, 47):
            assert quantile(share, freedom) == pytest.approx(scipy.t.ppf(share, freedom), rel=1e-2)
