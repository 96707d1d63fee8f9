import json
import time

import pytest

from benchmarks import gpu
from benchmarks._gpu_table import shares, table
from benchmarks.gpu import Part


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["gpu", "--tiny", *map(str, words)])
    assert gpu.main() == 0


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the pipeline, built once."""
    return tmp_path_factory.mktemp("gpu")


def test_the_script_runs_from_end_to_end_on_a_cpu(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.jsonl"
    parts = "device,matmul,flops,rows-2,trl-1,contiguous,cuda-graph-1"
    run(monkeypatch, "--out", out, "--folder", folder, "--parts", parts)
    found = {row["part"]: row for row in rows(out)}
    assert list(found) == parts.split(",")
    assert not [row for row in found.values() if "error" in row]
    assert found["rows-2"]["rows"]["sampling"] == 2
    assert found["flops"]["forward_backward_teraflop"] > found["flops"]["forward_teraflop"] > 0
    assert "absent" in found["trl-1"]
    assert found["cuda-graph-1"]["skipped"] == "needs CUDA"
    assert "rows-2" in capsys.readouterr().out


def test_what_is_measured_is_not_measured_again(folder, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    out.write_text(
        '{"part": "device", "setting": "tiny", "cores": 1}\n'
        '{"part": "matmul", "setting": "other", "teraflop_per_second": 1}\n'
        '{"part": "matmul", "setting": "tiny", "error": "OutOfMemoryError"}\n'
    )
    run(monkeypatch, "--out", out, "--folder", folder, "--parts", "device,matmul")
    assert [row["part"] for row in rows(out)] == ["device", "matmul", "matmul", "matmul"]
    assert rows(out)[3]["teraflop_per_second"] > 0


def broken(setting):
    raise RuntimeError("CUDA error")


def slow(setting):
    time.sleep(60)


def test_a_part_that_fails_does_not_end_the_others(tmp_path, monkeypatch):
    setting = gpu.Setting("tiny", "cpu", {}, tmp_path)
    parts = {"a": Part(broken), "b": Part(lambda setting: {"figure": 1})}
    monkeypatch.setattr(gpu, "all_parts", lambda setting: parts)
    gpu.run(setting, tmp_path / "out.jsonl", None, 60)
    first, second = rows(tmp_path / "out.jsonl")
    assert first["error"] == "RuntimeError: CUDA error"
    assert second["figure"] == 1
    assert list(gpu.finished(tmp_path / "out.jsonl", "tiny")) == ["b"]


def test_the_budget_ends_a_part_and_those_after_it(tmp_path, monkeypatch):
    setting = gpu.Setting("tiny", "cpu", {}, tmp_path)
    monkeypatch.setattr(gpu, "all_parts", lambda setting: {"a": Part(slow), "b": Part(slow)})
    began = time.monotonic()
    gpu.run(setting, tmp_path / "out.jsonl", None, 0.2)
    assert time.monotonic() - began < 30
    (row,) = rows(tmp_path / "out.jsonl")
    assert row["error"].startswith("TimeoutError")


LOOP = {
    "part": "rows-8",
    "sampling_images_per_second": 2.0,
    "training_images_per_second": 1.0,
    "images_per_second": 2 / 3,
    "peak_allocated_gigabytes": 3.25,
}
COUNTED = {
    "forward_teraflop": 1.0,
    "forward_backward_teraflop": 3.0,
    "decoding_teraflop": 10.0,
}


def test_the_share_is_of_the_measured_rate():
    found = {"matmul": {"teraflop_per_second": 400.0}, "flops": COUNTED}
    sampling, training = shares(LOOP, found)
    assert sampling == pytest.approx(2 * (50 + 10) / 400)
    assert training == pytest.approx(150 / 400)
    assert shares(LOOP, {}) == (None, None)
    text = table({**found, "rows-8": LOOP})
    assert "30%" in text
    assert "3.25" in text


def test_sampling_is_scaled_without_its_decoding(tmp_path):
    setting = gpu.Setting("tiny", "cpu", {}, tmp_path, steps=10)
    found = gpu.parts._scaled(setting, sampling=1.5, training=2.0, decoding=0.5)
    assert found["sampling_images_per_second"] == pytest.approx(1 / 5.5)
    assert found["images_per_second"] == pytest.approx(1 / 15.5)
