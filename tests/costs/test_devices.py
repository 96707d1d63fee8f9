"""Devices: found by name, with the memory that they have."""

import subprocess

import pytest

from rediffuse.costs import devices
from rediffuse.costs.devices import GIB, OTHER_GPU, TABLE, found, named, on_this_machine
from rediffuse.costs.work import Work
from rediffuse.errors import ConfigError
from rediffuse.processes import machine


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "another GPU"),
        ("Radeon", "another GPU"),
    ],
)
def test_a_gpu_has_the_rates_of_its_name_and_its_own_memory(driver, name):
    device = on_this_machine(driver, 7 * GIB)
    known = {each.name: each for each in [*TABLE, OTHER_GPU]}[name]
    assert (device.name, device.memory_bytes) == (driver, 7 * GIB)
    assert (device.flops, device.is_known) == (known.flops, name != "another GPU")


def test_names_of_the_table_and_others():
    assert named("nvidia rtx 3060").memory_bytes == 12 * GIB
    assert named("cpu").cores == machine.num_cores()
    with pytest.raises(ConfigError, match="no device 'H10' in the table.*Did you mean 'H100'"):
        named("H10")


def test_the_driver_is_asked_for_a_gpu(monkeypatch):
    monkeypatch.setattr(devices.shutil, "which", lambda name: name)
    answers = iter(["NVIDIA L4, 23034\nNVIDIA L4, 23034\n", "", "No devices were found\n"])

    def answered(words, **options):
        return subprocess.CompletedProcess(words, 0, stdout=next(answers))

    monkeypatch.setattr(devices.subprocess, "run", answered)
    assert (found().name, found().kind, found().kind) == ("NVIDIA L4", "cpu", "cpu")
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    assert found().kind == "cpu"


def test_the_memory_is_that_of_the_container(monkeypatch, tmp_path):
    whole = machine.main_memory()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP", limit)
    limit.write_text("1000000\n")
    assert machine.main_memory() == 1_000_000
    limit.write_text("max\n")
    assert machine.main_memory() >= whole


def test_a_gpu_computes_while_operations_are_launched():
    cpu, card = on_this_machine(None), named("T4")
    busy, idle = Work(flops=1e12, calls=1000), Work(calls=1000)
    assert cpu.seconds(busy, "fp32") == pytest.approx(
        1e12 / cpu.flops["fp32"] + cpu.seconds(idle, "fp32")
    )
    assert card.seconds(busy, "fp32") == pytest.approx(1e12 / card.flops["fp32"])
    assert card.seconds(idle, "fp32") == 1000 * card.call_seconds
