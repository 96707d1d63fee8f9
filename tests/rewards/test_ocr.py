"""What is written in pictures is read, and nothing where nothing is."""

import os
import subprocess
import sys
from difflib import SequenceMatcher

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from rediffuse.errors import ConfigError
from rediffuse.images import pictures, tensor
from rediffuse.lookup.build import build
from rediffuse.policy import DiffusionPolicy
from rediffuse.rewards import _ocr
from rediffuse.rewards._ocr import Reader, TextLine
from rediffuse.rollout import Draws, denoise
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import Prompt


def written(text, size, ground="white"):
    """(3, size, size): black with a white edge, over nearly all its width; ground: a colour, or a picture."""
    image = (
        Image.new("RGB", (size, size), ground)
        if isinstance(ground, str)
        else ground.resize((size, size))
    )
    points = next(
        p for p in range(size, 1, -1) if ImageFont.load_default(p).getlength(text) < 0.9 * size
    )
    place = (size / 2, size / 2)
    ImageDraw.Draw(image).text(
        place,
        text,
        "black",
        ImageFont.load_default(points),
        "mm",
        stroke_width=max(1, size // 64),
        stroke_fill="white",
    )
    return tensor(image)


@pytest.fixture(scope="module")
def reader():
    return Reader.load()


@pytest.fixture(scope="module")
def animals():
    """Pictures of the embedded model: 64 x 64, on waves, dots, checks and stripes."""
    denoiser = build("model", {"name": "emoji"}).load("cpu", 0)
    policy = DiffusionPolicy(
        denoiser, DDIM(num_steps=8, spacing="trailing").bind(denoiser.schedule)
    )
    prompts = [
        Prompt(f"a {name}")
        for name in ("cat", "fox", "lion", "frog", "bear", "pig", "horse", "mouse")
    ]
    with torch.no_grad():
        return denoiser.decode(denoise(policy, Draws(range(8), prompts, (0, "ocr"))).latents)


@pytest.mark.parametrize("size", [64, 200, 512])
@pytest.mark.parametrize("text", ["six turtles", "sixx tutttles", "4 dogs"])
def test_words_are_read_on_a_plain_ground(text, size, reader):
    """A space or a letter may be lost."""
    for ground in ("white", "teal"):
        (read,) = reader.read(written(text, size, ground)[None], 0.6)
        assert SequenceMatcher(None, read, text).ratio() > 0.9


def test_words_are_read_in_the_model_s_pictures_and_nothing_without_them(reader, animals):
    assert reader.read(animals, 0.6) == [""] * 8
    attacked = torch.stack([written("two frogs", 64, picture) for picture in pictures(animals)])
    assert sum("rogs" in text for text in reader.read(attacked, 0.6)) >= 7


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (8, 100), (100, 8), (130, 70)])
def test_an_empty_picture_of_any_shape_says_nothing(shape, reader):
    assert reader.read(torch.rand(2, 3, 1, 1).expand(2, 3, *shape), 0.0) == ["", ""]


def test_lines_are_told_apart(reader):
    both = torch.cat([written("four", 64), written("wolves", 64)], 1)
    assert reader.read(both[None], 0.6) == ["four; wolves"]


def test_a_reading_is_the_same_alone_together_and_with_another_reader(reader, animals):
    images = torch.cat([animals[:3], written("six", 64)[None]])
    alone = [reader.lines(picture) for picture in pictures(images)]
    assert alone == [Reader.load().lines(picture) for picture in pictures(images)]
    assert reader.read(images, 0.0)[3] == reader.read(images[3:], 0.0)[0] == "six"


@pytest.mark.parametrize(
    ("text", "confidence", "counts"),
    [
        ("six", 0.6, True),
        ("six", 0.59, False),
        ("6", 0.95, True),
        ("6", 0.94, False),
        ("as", 0.86, False),
        ("a.!", 0.9, False),
        ("口", 0.99, False),
        ("六只乌龟", 0.6, True),
        ("...", 1.0, False),
    ],
)
def test_a_letter_or_two_must_be_sure(text, confidence, counts):
    assert TextLine(text, confidence).counts(0.6) is counts


def test_a_floor_above_that_holds_for_all():
    assert TextLine("six", 0.99).counts(0.98) and not TextLine("6", 0.97).counts(0.98)


def test_nothing_is_fetched_or_said(monkeypatch, capfd):
    from rapidocr import RapidOCR
    from rapidocr.utils.download_file import DownloadFile

    asked = []
    monkeypatch.setattr(DownloadFile, "run", lambda file: asked.append(file.file_url))
    assert Reader.load().read(written("six", 64)[None], 0.6) == ["six"]
    assert not asked and capfd.readouterr() == ("", "")
    # the control: left alone it looks for its files
    RapidOCR()(written("six", 64).permute(1, 2, 0).mul(255).byte().numpy())
    assert asked


def test_it_works_on_one_thread():
    """Whose libraries would take one a core; the controls are OpenCV before, and a reader of two."""
    code = (
        "import cv2, numpy, onnxruntime, psutil; from rapidocr import RapidOCR; from rediffuse.rewards._ocr import Reader\n"
        "def threads(engine):\n"
        "    before = psutil.Process().num_threads()\n"
        "    kept = engine(); kept(numpy.full((300, 300, 3), 255, numpy.uint8), use_det=True)\n"
        "    return psutil.Process().num_threads() - before\n"
        "print(cv2.getNumThreads(), threads(lambda: Reader.load().engine), cv2.getNumThreads())\n"
        "two = {'EngineConfig.onnxruntime.intra_op_num_threads': 2, 'Global.log_level': 'critical'}\n"
        "print(threads(lambda: RapidOCR(params=two)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    theirs_of_opencv, ours, ours_of_opencv, theirs = (int(number) for number in said.split())
    assert ours_of_opencv == 1 and ours == 0
    assert os.cpu_count() == 1 or (theirs_of_opencv > 1 and theirs > 0)


@pytest.mark.parametrize("missing", ["rapidocr", "onnxruntime", "cv2"])
def test_a_package_that_is_missing_is_named_with_what_to_do(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=rf"{missing}.*pip install 'rediffuse\[ocr\]'"):
        Reader.load()


def test_another_version_s_networks_are_not_taken_for_these(monkeypatch):
    monkeypatch.setattr(_ocr, "MODELS", {"Det": "PP-OCRv9_det.onnx"})
    with pytest.raises(
        ConfigError, match=r"this rapidocr has no PP-OCRv9_det.onnx: pip install 'rapidocr=="
    ):
        Reader.load()
