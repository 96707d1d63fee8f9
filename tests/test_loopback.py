import pytest

from rediffuse.scoring.loopback import is_own


@pytest.mark.parametrize(
    ("hosts", "own"),
    [
        (["127.0.0.1"], True),
        (["localhost:8765"], True),
        (["LOCALHOST"], True),
        (["[::1]:9"], True),
        (["evil.example:8765"], False),
        (["localhost.evil.example"], False),
        (["localhost:8765@evil.example"], False),
        (["localhost", "evil.example"], False),
        ([], False),
        ([""], False),
    ],
)
def test_only_a_request_that_names_loopback_is_this_machine_s_own(hosts, own):
    assert is_own(hosts) == own
