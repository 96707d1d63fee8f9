import pytest
import torch
from markupsafe import Markup
from tiny import build_clip, build_ddpm, build_encoder, build_pipeline, build_vlm


def pytest_addoption(parser):
    parser.addoption(
        "--full",
        action="store_true",
        help="tests of failing servers at their full size, in minutes",
    )


@pytest.fixture(scope="session")
def full(request):
    return request.config.getoption("--full")


@pytest.fixture(autouse=True, scope="session")
def _own_memory(tmp_path_factory):
    """What these tests allow is not remembered for whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        # pytest-xdist sets it; messages are one line where there is no terminal
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def without_charts(monkeypatch):
    """For tests that train and never look at the page: its charts take longer than a toy's training."""
    monkeypatch.setattr("rediffuse.report.charts.svg", lambda chart, prefix: Markup(""))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A folder with a tiny CLIP of random weights, whose features have 768 entries as those of the real one."""
    folder = tmp_path_factory.mktemp("clip")
    build_clip(folder)
    return folder


@pytest.fixture(scope="session")
def judge(tmp_path_factory):
    """Options of the alignment reward: a tiny vision-language model and a tiny text encoder of random weights."""
    vlm, encoder = tmp_path_factory.mktemp("vlm"), tmp_path_factory.mktemp("encoder")
    build_vlm(vlm)
    build_encoder(encoder)
    return {"vlm": str(vlm), "encoder": str(encoder), "layer": 2, "max_tokens": 8}


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A folder with a tiny StableDiffusionPipeline of random weights."""
    folder = tmp_path_factory.mktemp("pipeline")
    build_pipeline(folder)
    return folder


@pytest.fixture(scope="session")
def pixels(tmp_path_factory):
    """A folder with a tiny DDPMPipeline of random weights."""
    folder = tmp_path_factory.mktemp("pixels")
    build_ddpm(folder)
    return folder
