"""The rewards that stand on CLIP, on a small one of the same classes, and the real aesthetic predictor where it is at hand."""

import hashlib
import shutil
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from rediffuse import train
from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub
from rediffuse.rewards.aesthetic import FILE, NAMES, PUBLISHED, Aesthetic, Rater, predictor
from rediffuse.rewards.clip_score import ClipScore
from rediffuse.rewards.pickscore import PickScore
from rediffuse.types import HasFeatures, Prompt

pytestmark = pytest.mark.usefixtures("without_charts")

PROMPTS = [Prompt("a cat"), Prompt("a dog that is much longer than twelve letters"), Prompt("")]
REAL = (
    Path(__file__).parents[3] / "shared" / "data" / "aesthetic" / "sac+logos+ava1-l14-linearMSE.pth"
)


@pytest.fixture
def images():
    """Not square, and larger than the model's."""
    return torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logits(clip, images):
    """What transformers itself makes of them: (images, texts), and the scale."""
    from PIL import Image
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(clip)
    pictures = [
        Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()) for image in images
    ]
    words = CLIPTokenizer.from_pretrained(clip)(
        [p.text for p in PROMPTS], padding=True, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = model(
            **words,
            **CLIPImageProcessorPil.from_pretrained(clip)(images=pictures, return_tensors="pt"),
        )
    return output.logits_per_image, model.logit_scale.exp().item(), output.image_embeds


def test_the_scores_are_those_of_the_whole_model(clip, images, logits):
    """Each image with its own prompt, as transformers pairs all with all."""
    all_pairs, scale, _ = logits
    want = all_pairs.diagonal()
    torch.testing.assert_close(
        PickScore(clip=str(clip)).load("cpu")(images, PROMPTS), want, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        ClipScore(clip=str(clip)).load("cpu")(images, PROMPTS),
        100 * want / scale,
        atol=1e-3,
        rtol=0,
    )
    assert want.std() > 0.01


def aesthetic(clip, **over):
    return Aesthetic(
        **{"clip": str(clip), "predictor": str(clip / tiny.PREDICTOR), "sha256": None} | over
    )


def test_the_aesthetic_score_is_five_linear_maps_of_the_normalised_features(clip, images, logits):
    weights = load_file(clip / tiny.PREDICTOR)
    features = logits[2].double()
    for weight, bias in zip(NAMES[::2], NAMES[1::2], strict=True):
        features = features @ weights[weight].double().T + weights[bias].double()
    got = aesthetic(clip).load("cpu")(images, PROMPTS)
    torch.testing.assert_close(got.double(), features[:, 0], atol=1e-5, rtol=1e-5)
    assert got.std() > 1e-4


def test_a_score_does_not_depend_on_who_else_is_in_the_batch(clip, images):
    reward = aesthetic(clip).load("cpu")
    alone = torch.cat(
        [reward(image[None], [prompt]) for image, prompt in zip(images, PROMPTS, strict=True)]
    )
    torch.testing.assert_close(reward(images, PROMPTS), alone, atol=1e-6, rtol=1e-5)


def test_every_one_tells_what_its_network_sees(clip, images, logits):
    for options in (ClipScore(clip=str(clip)), PickScore(clip=str(clip)), aesthetic(clip)):
        reward = options.load("cpu")
        assert isinstance(reward, HasFeatures)
        features = reward.features(images)
        torch.testing.assert_close(features, logits[2], atol=1e-5, rtol=0)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def test_images_that_are_differentiated_are_prepared_alike(clip, images):
    """In torch instead of PIL, without rounding to 8 bits in between."""
    reward = ClipScore(clip=str(clip)).load("cpu")
    apart = reward.model._prepared(images) - reward.model._processed(images)
    assert 0 < apart.abs().max() < 0.25 and apart.abs().mean() < 0.02
    differentiated = reward(images.clone().requires_grad_(), PROMPTS)
    torch.testing.assert_close(differentiated.detach(), reward(images, PROMPTS), atol=0.2, rtol=0)


def test_weights_that_are_not_the_published_ones_are_refused_unless_named(clip):
    tensors = load_file(clip / tiny.PREDICTOR)
    found = hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in NAMES)).hexdigest()
    with pytest.raises(
        ConfigError, match=rf"their SHA-256 is {found}, not {PUBLISHED}.*--reward.sha256 {found}"
    ):
        predictor(clip / tiny.PREDICTOR, PUBLISHED)
    assert predictor(clip / tiny.PREDICTOR, found)[0].shape == (1024, 768)


def test_a_predictor_from_torch_save_is_read_without_its_pickle(clip, tmp_path):
    """A payload beside the tensors is never run."""
    tensors = load_file(clip / tiny.PREDICTOR)

    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save(
        {name: tensors[name] for name in NAMES} | {"more": Payload()}, tmp_path / "model.pth"
    )
    read = predictor(tmp_path / "model.pth", None)
    assert all(torch.equal(mine, tensors[name]) for mine, name in zip(read, NAMES, strict=True))
    assert not (tmp_path / "ran").exists()


def test_the_hub_s_predictor_is_converted_once(clip, tmp_path, monkeypatch):
    tensors = load_file(clip / tiny.PREDICTOR)
    snapshot = tmp_path / "models--someone--predictor" / "snapshots" / ("a1" * 20)
    snapshot.mkdir(parents=True)
    torch.save({name: tensors[name] for name in NAMES}, snapshot / FILE)
    monkeypatch.setattr(hub, "snapshot", lambda *asked: snapshot)
    assets = tmp_path / "assets"
    monkeypatch.setattr(
        hub, "cached_assets_path", partial(hub.cached_assets_path, assets_dir=assets)
    )
    first = tiny.loaded(
        {"name": "aesthetic", "predictor": "someone/predictor", "clip": str(clip), "sha256": None},
    )
    (converted,) = [path for path in assets.rglob("*") if path.is_file()]
    assert converted.name == "predictor.safetensors" and "a1" * 20 in str(converted)
    (snapshot / FILE).unlink()
    again = tiny.loaded(
        {"name": "aesthetic", "predictor": "someone/predictor", "clip": str(clip), "sha256": None},
    )
    assert all(
        torch.equal(*pair) for pair in zip(first.model.weights, again.model.weights, strict=True)
    )


@pytest.mark.parametrize("content", [b"", b"no zip", None, "shapes"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_file_that_holds_no_predictor(content, kind, tmp_path):
    path = tmp_path / f"model.{kind}"
    if content == "shapes":
        tensors = {name: torch.zeros(3) for name in NAMES}
        (torch.save if kind == "pth" else save_file)(tensors, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"does not hold the predictor's ten tensors"):
        predictor(path, None)


@pytest.mark.skipif(not REAL.exists(), reason="the published weights are not on this machine")
def test_the_published_predictor():
    """Read as torch reads it; and what it says of a feature, by hand in double precision."""
    read = predictor(REAL, PUBLISHED)
    theirs = torch.load(REAL, map_location="cpu", weights_only=True)
    assert all(torch.equal(mine, theirs[name]) for mine, name in zip(read, NAMES, strict=True))
    features = torch.nn.functional.normalize(
        torch.randn(4, 768, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    rater = Rater(None, read)
    by_hand = features.double()
    for number in (0, 2, 4, 6, 7):
        by_hand = (
            by_hand @ theirs[f"layers.{number}.weight"].double().T
            + theirs[f"layers.{number}.bias"].double()
        )
    torch.testing.assert_close(rater.rated(features).double(), by_hand[:, 0], atol=1e-4, rtol=0)
    assert 1 < by_hand.mean() < 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"predictor": "./nowhere.pth"},
            r"reward.predictor: no folder and no model on the Hub is called",
        ),
        ({"clip": "./nowhere"}, r"reward.clip: no folder and no model on the Hub is called"),
    ],
)
def test_what_cannot_be_had_is_told_before_the_model_is_loaded(options, said, clip, tmp_path):
    given = {
        "name": "aesthetic",
        "clip": str(clip),
        "predictor": str(clip / tiny.PREDICTOR),
        "sha256": None,
    }
    config = tiny.config(reward=given | options, model={"name": f"{tiny.FILE}:NeverLoaded"})
    with pytest.raises(ConfigError, match=said):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_clip(clip, tmp_path):
    shutil.copytree(clip, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"reward.clip: .* has no safetensors weights"):
        ClipScore(clip=str(tmp_path / "clip")).load("cpu")


def test_a_folder_means_the_same_in_any_working_directory(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    assert ClipScore(clip=clip.name).clip == str(clip)
    assert aesthetic(clip, predictor=f"{clip.name}/{tiny.PREDICTOR}").predictor == str(
        clip / tiny.PREDICTOR
    )
    assert Aesthetic().clip == "openai/clip-vit-large-patch14"


def test_a_run_learns_from_it(clip, tmp_path):
    options = {
        "name": "aesthetic",
        "clip": str(clip),
        "predictor": str(clip / tiny.PREDICTOR),
        "sha256": None,
    }
    history = train(tiny.config(reward=options, epochs=1), tmp_path / "run")
    assert history[0]["masked_rewards"] == 0 and history[0]["reward_std"] > 0
