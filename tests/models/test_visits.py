"""A network that visits a device leaves it as it came."""

import pytest
import torch
from torch import nn

from rediffuse.models._visits import home_of, visiting

META = torch.device("meta")
"""Another device than the host that every machine has."""


@pytest.mark.parametrize(
    ("device", "home"), [("cpu", "cpu"), ("cuda", "cpu"), ("cuda:1", "cpu"), ("mps", "mps")]
)
def test_a_network_lives_on_the_host_where_that_frees_memory_of_the_device(device, home):
    assert home_of(torch.device(device)) == torch.device(home)


def test_a_visitor_computes_on_the_device_and_stays_on_the_host():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    with visiting(network, META) as visitor:
        assert visitor(torch.ones(1, 3, device=META)).device == META
    assert {each.device.type for each in network.state_dict().values()} == {"cpu"}
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert network(torch.ones(1, 3)).device.type == "cpu"


def test_a_network_that_is_at_home_is_not_copied():
    network = nn.Linear(3, 2)
    with visiting(network, torch.device("cpu")) as visitor:
        assert visitor is network
