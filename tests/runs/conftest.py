from functools import cache

import pytest
import tiny

from rediffuse import train


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """Of so many epochs, the folder of a run; to be copied before it is changed."""

    @cache
    def folder(epochs):
        path = tmp_path_factory.mktemp("trained") / "run"
        train(tiny.config(epochs=epochs), path)
        return path

    return folder
