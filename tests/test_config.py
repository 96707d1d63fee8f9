import pytest
import tiny

from rediffuse.config.merge import merge
from rediffuse.config.reading import read_yaml
from rediffuse.config.schema import from_mapping, from_yaml, to_yaml
from rediffuse.errors import ConfigError


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"epoch": 3}, r"epoch: no such key; .*Did you mean 'epochs'\?"),
        ({"optimizer": {"beta": 1}}, r"optimizer\.beta: no such key.*Did you mean 'betas'"),
        ({"epochs": "ten"}, r"epochs: .*valid integer.*got 'ten'"),
        ({"epochs": 0}, r"epochs: .*greater than 0 \(got 0\)"),
        ({"epochs": -2}, r"epochs: .*\(got -2\)"),
        ({"epochs": 2.5}, "epochs: "),
        ({"learning_rate": -1e-3}, "learning_rate: .*greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate: "),
        ({"prompts_per_epoch": None}, "prompts_per_epoch: "),
        ({"optimizer": 3}, "optimizer: "),
        ({"optimizer": {"betas": [0.9]}}, r"optimizer\.betas"),
        ({"scoring": {"max_failed": 2}}, r"scoring\.max_failed: .*less than or equal to 1"),
        ({"reward": 3}, "reward: must hold keys and values"),
        (
            {"prompts_per_epoch": 4, "images_per_prompt": 2, "updates_per_epoch": 9},
            r"9 updates .*4 prompts x 2 images = 8",
        ),
    ],
)
def test_what_cannot_be_is_named_by_its_key(raw, said):
    with pytest.raises(ConfigError, match=said):
        from_mapping(raw)


def test_several_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        from_mapping({"epochs": 0, "seed": -1})
    assert "epochs" in str(caught.value)
    assert "seed" in str(caught.value)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert from_mapping({"learning_rate": "1e-4"}).learning_rate == 1e-4


def test_a_config_survives_its_file(tmp_path):
    config = tiny.config(seed=3, optimizer={"betas": [0.5, 0.75]})
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "config.yaml") == config


def test_another_component_keeps_none_of_the_first_ones_options():
    merged = merge({"reward": {"name": "jpeg", "quality": 3}}, {"reward": {"name": "redness"}})
    assert merged == {"rewards": [{"name": "redness"}]}


@pytest.mark.parametrize(
    "content", [b"- a\n- b\n", b"{", b"\xff\xfe", b"!!python/object/apply:os.system ['true']"]
)
def test_a_file_that_is_no_configuration(content, tmp_path):
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        read_yaml(tmp_path / "run.yaml")
