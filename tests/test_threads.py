import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
import torch

from rediffuse.processes.threads import Abandoned, Caller, Pool, undisturbed


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
    for future in (Caller().submit(raises), pool.submit(raises)):
        with pytest.raises(type(error)):
            future.result(5)
    pool.stop()


@pytest.mark.parametrize(
    "begin",
    [
        "caller = Caller(); caller.submit(lambda: time.sleep(60))",
        "Pool(2).submit(lambda: time.sleep(60))",
    ],
)
def test_a_call_that_hangs_does_not_keep_the_process_from_ending(begin):
    code = f"import time\nfrom rediffuse.processes.threads import Caller, Pool\n{begin}\ntime.sleep(0.1)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


def test_a_caller_makes_all_calls_on_one_thread_with_an_event_loop():
    caller, kept = Caller(), threading.local()

    def first():
        kept.db = sqlite3.connect(":memory:")
        return threading.get_ident()

    def second():
        kept.db.execute("create table seen (p text)")
        asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))
        return threading.get_ident()

    assert caller.call(first) == caller.call(second) != threading.get_ident()
    with pytest.raises(AttributeError):
        Caller().call(second)  # the control: another caller has another thread


def test_a_call_that_takes_too_long_is_abandoned_and_the_next_one_has_a_new_thread():
    caller, go = Caller(), threading.Event()
    first = caller.call(threading.get_ident)
    with pytest.raises(Abandoned):
        caller.call(go.wait, 0.05)
    assert caller.call(threading.get_ident, 5) != first
    go.set()


def test_a_timeout_of_the_call_itself_is_its_own():
    def late():
        raise TimeoutError("the server's")

    caller = Caller()
    with pytest.raises(TimeoutError, match="the server's"):
        caller.call(late, 5)
    assert caller.call(lambda: 1, 5) == 1


@pytest.mark.parametrize("end", ["caller.close()", "del caller"])
def test_the_thread_of_a_caller_ends_with_it(end):
    names = {"caller": Caller()}
    thread = names["caller"].call(threading.current_thread)
    exec(end, names)
    thread.join(5)
    assert not thread.is_alive()


def changes_everything():
    os.chdir("/")
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("high")


def ambient():
    tensor = torch.zeros(1)
    return (
        os.getcwd(), tensor.dtype, torch.is_grad_enabled(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    )  # fmt: skip


def test_what_a_call_changes_for_the_process_is_restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caller = Caller()
    here, there = ambient(), caller.call(ambient)
    caller.call(changes_everything)
    assert (ambient(), caller.call(ambient)) == (here, there)
    with undisturbed():
        changes_everything()
        assert all(a != b for a, b in zip(ambient(), here, strict=True))  # the control
    assert ambient() == here


def test_a_call_that_is_abandoned_leaves_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go = threading.Event()
    with pytest.raises(Abandoned):
        Caller().call(lambda: (os.chdir("/"), go.wait(5)), 0.2)
    assert os.getcwd() == str(tmp_path)
    go.set()


def test_a_working_directory_that_is_gone_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert Caller().call(lambda: 3) == 3


def test_the_state_of_the_process_is_restored_before_a_result_is_there(monkeypatch):
    """Whoever waited for it may load a model next, which changes the default dtype for a while."""
    from rediffuse.processes import threads

    def slow():
        time.sleep(0.2)
        return torch.get_default_dtype()

    monkeypatch.setattr(threads, "AMBIENT", ((slow, torch.set_default_dtype),))
    caller = Caller()
    assert caller.submit(lambda: 3).result(5) == 3
    torch.set_default_dtype(torch.float16)
    try:
        time.sleep(0.5)  # in which a thread that is late would restore what it saw
        assert torch.get_default_dtype() == torch.float16
    finally:
        torch.set_default_dtype(torch.float32)
        caller.close()
