"""Kinds of sample: what a file gives back is what was saved, and pages have a picture of each."""

import json
import wave

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from rediffuse.images import grid, letterboxed, read
from rediffuse.modalities.audio import Audio
from rediffuse.modalities.image import Image
from rediffuse.modalities.vector import Vector
from rediffuse.modalities.video import Video


def random(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def from_wav(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return torch.from_numpy(values.astype(np.float32)).view(-1, 2).T / 32767


def from_webp(path):
    with Pillow.open(path) as file:
        assert file.n_frames == 5
        frames = []
        for number in range(file.n_frames):
            file.seek(number)
            frames.append(torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1) / 255)
            assert file.info["duration"] == 250
    return torch.stack(frames)


def from_json(path):
    content = json.loads(path.read_text())
    return torch.tensor(content["values"]).view(content["shape"])


KINDS = {
    "image": (Image(), random(3, 6, 4), read),
    "video": (Video(4.0), random(5, 3, 8, 6), from_webp),
    "audio": (Audio(8000), random(2, 300) * 2 - 1, from_wav),
    "vector": (Vector(), random(2, 3) * 8 - 4, from_json),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_gives_back_what_quantized_says(name, tmp_path):
    modality, sample, opened = KINDS[name]
    assert modality.name == name
    modality.save(sample, tmp_path / "000")
    assert [path.name for path in tmp_path.iterdir()] == [f"000{modality.suffix}"]
    torch.testing.assert_close(
        opened(tmp_path / f"000{modality.suffix}"),
        modality.quantized(sample[None])[0],
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("name", KINDS)
def test_every_sample_has_a_picture_and_a_broken_one_is_told(name, tmp_path):
    modality, sample, _ = KINDS[name]
    broken = sample.clone()
    broken.view(-1)[0] = torch.nan
    shown = modality.preview(torch.stack([sample, sample.flip(-1), broken]))
    assert shown.ndim == 4 and shown.shape[:2] == (3, 3)
    assert shown[:2].min() >= 0 and shown[:2].max() <= 1 and not torch.equal(shown[0], shown[1])
    assert not shown[2].isfinite().all()
    modality.save(broken, tmp_path / "000")  # a broken sample is no obstacle to the others


def test_a_spectrogram_shows_a_high_note_above_a_low_one():
    time = torch.arange(4000) / 8000
    low, high = ((2 * torch.pi * note * time).sin().view(1, 1, -1) for note in (500.0, 3000.0))
    rows = [Audio(8000).preview(each)[0, 0].mean(1).argmax().item() for each in (low, high)]
    assert rows == [64 - 1 - 8, 64 - 1 - 48]  # bins of 8000 / 128 Hz, from below


def test_bars_of_a_vector_stand_up_or_hang_down():
    shown = Vector(2.0).preview(torch.tensor([[2.0, -1.0]]))[0, 0]
    up, down = shown[:, 0] < 1, shown[:, 63] < 1
    assert up[:32].all() and not up[32:].any()
    assert not down[:32].any() and down[32:48].all() and not down[48:].any()


def test_a_video_is_shown_by_four_of_its_frames():
    frames = torch.arange(5).view(1, 5, 1, 1, 1).expand(1, 5, 3, 2, 2) / 4
    corners = Video().preview(frames)[0, 0, ::2, ::2].flatten().tolist()
    assert corners == pytest.approx([0.0, 0.25, 0.75, 1.0])


def test_pictures_that_are_not_square_are_letterboxed():
    wide = torch.ones(1, 3, 2, 6)
    assert letterboxed(wide)[0, 0, :, 0].tolist() == [0, 0, 1, 1, 0, 0]
    assert grid(torch.ones(4, 3, 2, 6), columns=2).size == (12, 12)
