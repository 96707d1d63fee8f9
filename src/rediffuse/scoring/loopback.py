"""This machine as itself alone can reach it."""

import re
from collections.abc import Sequence

NAMES = ("127.0.0.1", "localhost", "::1")
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


def is_own(hosts: Sequence[str]) -> bool:
    """hosts: the Host headers of a request to a server on loopback. Any other name is that of a
    foreign page in a browser here, which made it point to this machine (DNS rebinding). The port
    may be a tunnel's.
    """
    return len(hosts) == 1 and OWN_HOST.fullmatch(hosts[0]) is not None
