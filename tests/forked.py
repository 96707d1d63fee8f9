"""Processes of their own, forked from a server that has imported everything: a start costs no seconds.

Each has its own signals, exit code and files. The environment that libraries read when they are
imported is the server's, and a process ends without `atexit`: what a test says of a start from
nothing, of torch's launcher or of the very end needs `subprocess`.
"""

import multiprocessing
import os
import socket
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["rediffuse.start", "rediffuse.models._diffusers", "tiny", "forked"])


class Process:
    """Calls `function(*arguments)`, which can be pickled, in `folder`."""

    def __init__(self, folder, function, *arguments, **environment):
        self._said = Path(folder) / f"said-{environment.get('RANK', 0)}.txt"
        self._process = SERVER.Process(
            target=_call,
            args=(folder, self._said, {**os.environ, **environment}, function, arguments),
            daemon=True,
        )
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    def wait(self, seconds=120):
        """The exit code, that of a signal below 0; None if it still runs."""
        self._process.join(seconds)
        return self._process.exitcode

    @property
    def said(self):
        """What it has written to its standard error, as one line."""
        return " ".join(self._said.read_text().split())


def two(folder, function, *arguments):
    """Both processes of one world, without a launcher that would end one for the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    world = {**address, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        Process(folder, function, *arguments, **world, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]


def command(*words):
    """`rediffuse words…`"""
    from rediffuse.cli import main

    main([str(word) for word in words])


def _call(folder, said, environment, function, arguments):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with said.open("wb") as errors, Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    function(*arguments)
