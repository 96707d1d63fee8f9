"""The options of a run that a rule decides: the rows of its passes, and one pass or two."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace

import torch

from rediffuse.config.schema import Config, Rows
from rediffuse.costs import devices
from rediffuse.costs.devices import Device
from rediffuse.lookup.parts import Parts
from rediffuse.planning.work import architecture_of, decided_one_pass, decided_rows, workload
from rediffuse.processes.machine import main_memory
from rediffuse.processes.world import World


def decided(
    config: Config, parts: Parts, world: World, measured: Mapping[str, int] | None = None
) -> Config:
    """Returns the configuration with the rows of passes and `one_pass` filled in, where they are
    left to the rule. All processes get the same: the fewest rows of any of them.

    Args:
        config: The run's configuration.
        parts: Its components.
        world: This process's device.
        measured: Rows by kind of pass that were found by timing, to be used instead of the rule's.
    """
    device, local = device_of(world), local_size()
    architecture, work = architecture_of(parts), workload(config, parts, world.size)
    one_pass = decided_one_pass(config, architecture, device, work, main_memory() // local)
    one_pass = not world.any(not one_pass)
    chosen = decided_rows(config, architecture, device, work, one_pass=one_pass, measured=measured)
    return replace(config, rows=_fewest(chosen, world), one_pass=one_pass)


def _fewest(chosen: Rows, world: World) -> Rows:
    """Returns the fewest rows of all processes."""
    if world.size == 1 or chosen.sampling is None:
        return chosen
    names = list(asdict(chosen))
    every = torch.zeros(world.size, len(names), dtype=torch.float64)
    every[world.rank] = torch.tensor(list(asdict(chosen).values()), dtype=torch.float64)
    least = world.summed([every])[0].amin(0).long().tolist()
    return Rows(**dict(zip(names, least, strict=True)))


def device_of(world: World) -> Device:
    """Returns the device of this process, with its share of the machine."""
    memory = main_memory() // local_size()
    if world.device.startswith("cuda"):
        card = torch.cuda.get_device_properties(world.device)
        return devices.on_this_machine(card.name, card.total_memory)
    if world.device == "cpu":
        return devices.on_this_machine(None, memory, world.lanes.number)
    return devices.on_this_machine(world.device, memory)


def local_size() -> int:
    """Returns the number of processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
