"""The loopback addresses of this machine."""

import re
from collections.abc import Sequence

NAMES = ("127.0.0.1", "localhost", "::1")
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


def is_own(hosts: Sequence[str]) -> bool:
    """Whether a request to a server on loopback is addressed to this machine.

    Any other host name comes from a foreign page in a local browser, whose name was made to resolve
    to this machine (DNS rebinding). Any port is accepted, since it may be that of a tunnel.

    Args:
        hosts: The Host headers of the request.
    """
    return len(hosts) == 1 and OWN_HOST.fullmatch(hosts[0]) is not None
