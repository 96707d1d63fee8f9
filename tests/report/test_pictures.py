import base64
import io
from pathlib import Path

import pytest
from made_up import grid, samples
from PIL import Image

from rediffuse.report import pictures
from rediffuse.report.pictures import Stage, evenly, frames, milestones, stages


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_stages_stand_in_the_order_of_training(tmp_path):
    samples(tmp_path, [12, 0, 100000])
    assert [stage.epoch for stage in stages(tmp_path / "samples")] == [0, 12, 100000]


def test_a_sheet_shows_what_the_grid_does(tmp_path):
    samples(tmp_path, [0], rows=2, side=64)
    (frame,) = frames(stages(tmp_path / "samples"), 3)
    assert (frame.name, frame.sheet.columns, frame.sheet.rows, frame.sheet.tile_pixels) == (
        "epoch-0",
        3,
        2,
        64,
    )
    before, after = Image.open(tmp_path / "samples/epoch-00000/grid.png"), decoded(frame.sheet.uri)
    for middle in ((32, 32), (160, 96)):
        assert all(
            abs(a - b) < 16
            for a, b in zip(before.getpixel(middle), after.getpixel(middle), strict=True)
        )


def test_a_tile_is_shown_by_its_place():
    """Of two tiles, each as wide as its frame but for the inset, the first stands at 1/104 of what hangs over."""
    sheet = pictures.Sheet("", 2, 1, 64)
    assert sheet.size == "204.00% 102.00%"
    assert sheet.place(0, 0) == "0.9615% 50.0000%" and sheet.place(1, 0) == "99.0385% 50.0000%"


def test_large_pictures_are_scaled_and_noise_stays_small(tmp_path):
    Image.effect_noise((12 * 256, 512), 200).convert("RGB").save(tmp_path / "grid.png")
    found = pictures.sheet(tmp_path / "grid.png", 0, 12)
    assert found.tile_pixels <= pictures.LARGEST_TILE and found.rows == 2
    assert len(found.uri) < pictures.MOST_BYTES * 4 / 3 + 100


def test_a_sheet_is_kept_until_its_file_changes(tmp_path):
    samples(tmp_path, [0])
    (stage,) = stages(tmp_path / "samples")
    first = frames([stage], 3)[0].sheet
    assert frames([stage], 3)[0].sheet is first
    grid(stage.grid, 3, 2, seed=9)
    assert frames([stage], 3)[0].sheet.uri != first.uri


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<svg/>"])
def test_a_picture_that_cannot_be_read_is_left_out(content, tmp_path):
    samples(tmp_path, [0, 1])
    (tmp_path / "samples/epoch-00001/grid.png").write_bytes(content)
    assert [frame.epoch for frame in frames(stages(tmp_path / "samples"), 3)] == [0]


def test_without_the_prompts_the_first_picture_tells_the_columns(tmp_path):
    samples(tmp_path, [0], side=16)
    assert frames(stages(tmp_path / "samples"), 0) == []
    grid(tmp_path / "samples/epoch-00000/000.png", 1, 1)
    assert frames(stages(tmp_path / "samples"), 0)[0].sheet.columns == 3


def epochs(found):
    return [stage.epoch for stage in found]


def test_first_and_last_are_always_chosen():
    found = [Stage(epoch, Path()) for epoch in range(201)]
    assert epochs(evenly(found, 5)) == [0, 50, 100, 150, 200]
    chosen = epochs(milestones(found, 40, also=[101, 999]))
    assert chosen[:3] == [0, 8, 16] and chosen[-1] == 200 and 101 in chosen and len(chosen) <= 43
    assert epochs(milestones(found[:1], 40, [0])) == [0] and milestones(
        [], 40, [3]
    ) == [] == evenly([], 8)


def test_a_run_that_grows_goes_on_with_the_pictures_it_had():
    found = [Stage(epoch, Path()) for epoch in range(100)]
    for n in range(41, 79):
        assert set(epochs(milestones(found[:n], 40))) - {n - 1} <= set(
            epochs(milestones(found[: n + 1], 40))
        )
