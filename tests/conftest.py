import pytest
import torch
from tiny import build_pipeline


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A folder with a tiny StableDiffusionPipeline of random weights."""
    folder = tmp_path_factory.mktemp("pipeline")
    build_pipeline(folder)
    return folder
