"""Scenes on disk: rendered once by all cores, read as a memory map."""

import json
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from pretraining.scenes import SIZE_PIXELS, Painter

NUM_HELD_OUT = 1000  # the last ones: never trained on
CHUNK = 500


@dataclass(frozen=True)
class Scenes:
    """images (N, 64, 64, 3) uint8 · captions [N] · labels (N, 3): animal, count, activity, as in `scenes.Scene`."""

    images: np.ndarray
    captions: list[str]
    labels: np.ndarray


def render(glyphs: Path, out: Path, num_scenes: int, seed: int, processes: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(
        out / "images.npy", "w+", np.uint8, (num_scenes, SIZE_PIXELS, SIZE_PIXELS, 3)
    )
    captions: list[str] = []
    labels: list[tuple[int, int, int]] = []
    with Pool(processes, _start, (glyphs, seed, num_scenes)) as pool:
        for start, scenes in zip(
            range(0, num_scenes, CHUNK), pool.imap(_chunk, range(0, num_scenes, CHUNK)), strict=True
        ):
            images[start : start + CHUNK] = np.stack([scene.image for scene in scenes])
            captions += [scene.caption for scene in scenes]
            labels += [(scene.animal, scene.count, scene.activity) for scene in scenes]
    images.flush()
    np.save(out / "labels.npy", np.array(labels))
    (out / "captions.json").write_text(json.dumps(captions))


def load(folder: Path) -> Scenes:
    captions = json.loads((folder / "captions.json").read_text())
    return Scenes(
        np.load(folder / "images.npy", mmap_mode="r"), captions, np.load(folder / "labels.npy")
    )


_painter: Painter
_seed: int
_num_scenes: int


def _start(glyphs: Path, seed: int, num_scenes: int) -> None:
    global _painter, _seed, _num_scenes
    _painter, _seed, _num_scenes = Painter(dict(np.load(glyphs))), seed, num_scenes


def _chunk(start: int) -> list:
    return [_painter.scene(_seed, index) for index in range(start, min(start + CHUNK, _num_scenes))]
