import subprocess
import sys
import threading
import time

import pytest

from rediffuse.threads import Pool, apart


def test_no_more_calls_run_at_a_time_than_asked_for():
    pool, together, most = Pool(3), [], []

    def call(number):
        together.append(number)
        most.append(len(together))
        time.sleep(0.02)
        together.remove(number)
        return number

    futures = [pool.submit(lambda number=number: call(number)) for number in range(20)]
    assert [future.result(5) for future in futures] == list(range(20))
    pool.stop()
    assert max(most) == 3


def test_what_has_not_begun_when_it_stops_never_does():
    pool, first_began, go, begun = Pool(1), threading.Event(), threading.Event(), []

    def first():
        first_began.set()
        return go.wait(5)

    future = pool.submit(first)
    pool.submit(lambda: begun.append(1))
    assert first_began.wait(5)
    pool.stop()
    go.set()
    assert future.result(5)
    time.sleep(0.1)
    assert not begun


@pytest.mark.parametrize("error", [KeyError("oh"), SystemExit(3)])
def test_what_a_call_raises_is_raised_where_its_result_is_asked_for(error):
    def raises():
        raise error

    pool = Pool(1)
    for future in (apart(raises), pool.submit(raises)):
        with pytest.raises(type(error)):
            future.result(5)
    pool.stop()


@pytest.mark.parametrize("begin", ["apart(lambda: time.sleep(60))", "Pool(2).submit(lambda: time.sleep(60))"])
def test_a_call_that_hangs_does_not_keep_the_process_from_ending(begin):
    code = f"import time\nfrom rediffuse.threads import Pool, apart\n{begin}\ntime.sleep(0.1)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
