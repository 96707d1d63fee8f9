"""The model card says how the export of its own family is loaded."""

import pytest
import tiny
import yaml

from rediffuse import train

pytestmark = pytest.mark.usefixtures("without_charts")


def card(model, place):
    """(its front matter, its text)"""
    train(tiny.config(model=model, epochs=1, evaluation={"every": 0}), place / "run")
    _, front, text = (place / "run" / "adapter" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.parametrize(
    ("what", "tags", "said"),
    [
        ("lora", ["diffusers", "lora"], "pipeline.load_lora_weights(THIS_FOLDER)"),
        (
            "full",
            ["diffusers"],
            'UNet2DConditionModel.from_pretrained(THIS_FOLDER, subfolder="unet")',
        ),
    ],
)
def test_of_stable_diffusion_it_names_its_pipeline_or_its_network(
    what, tags, said, pipeline, tmp_path
):
    model = {"name": "stable_diffusion", "source": str(pipeline), "train": what}
    front, text = card(model, tmp_path)
    assert front == {
        "library_name": "diffusers",
        "tags": [*tags, "reinforcement-learning", "rediffuse"],
    }
    assert said in text and "# stable_diffusion, fine-tuned for redness" in text


def test_of_a_model_of_pixels_it_names_what_loads_that(pixels, tmp_path):
    front, text = card({"name": "ddpm", "source": str(pixels)}, tmp_path)
    assert front["tags"][:2] == ["diffusers", "lora"]
    assert "DDPMPipeline.from_pretrained(BASE_MODEL)" in text
    assert "StableDiffusionPipeline" not in text


def test_of_a_model_of_ones_own_it_names_the_files(tmp_path):
    front, text = card({"name": f"{tiny.FILE}:Toy"}, tmp_path)
    assert front == {"tags": ["reinforcement-learning", "rediffuse"]}
    assert f"The trained weights are in `{tiny.ADAPTER}`" in text
    assert "diffusers" not in text.lower()
