"""Inputs of a prompt that are files: found, read, told apart, kept an eye on, and shown."""

import base64
import io
import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image
from tiny import numbers, weights

from rediffuse.cli import main
from rediffuse.config import inputs
from rediffuse.errors import ConfigError
from rediffuse.images import MOST_INPUT_PIXELS, input_image
from rediffuse.prompts.text_file import TextFile
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder
from rediffuse.start import resume, train
from rediffuse.types import Prompt


def paint(path, colour, size=(8, 8), **options):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def lines(path, *values):
    rows = [
        {"prompt": "", "inputs": {"image": value, "strength": 2}, "note": 1} for value in values
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def place(tmp_path):
    """A file of prompts, and two pictures of one name."""
    paint(tmp_path / "dark" / "photo.png", (20, 20, 20))
    paint(tmp_path / "bright" / "photo.png", (230, 230, 230))
    lines(tmp_path / "mine.jsonl", {"file": "dark/photo.png"}, {"file": "bright/photo.png"})
    return tmp_path


# -- found


def test_a_file_is_looked_for_beside_the_prompts_and_stored_whole(place, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    dark = TextFile(place / "mine.jsonl").prompts[0]
    assert dark.inputs == {"image": {"file": str(place / "dark" / "photo.png")}, "strength": 2}
    assert dark.metadata == {"note": 1}
    lines(place / "mine.jsonl", {"file": str(place / "dark" / "photo.png")})
    assert TextFile(place / "mine.jsonl").prompts[0] == dark


def test_two_files_of_one_name_look_alike_and_are_two_prompts(place):
    dark, bright = TextFile(place / "mine.jsonl").prompts
    assert dark.shown == bright.shown == "[image=photo.png, strength=2]"
    assert dark.key != bright.key and dark.group != bright.group
    again = TextFile(place / "mine.jsonl").prompts[0]
    assert dark.key == again.key and dark.group == again.group


def test_without_files_a_prompt_is_known_by_what_is_shown():
    for prompt in (Prompt("a cat"), Prompt("a dog", {}, {"seconds": 2.5, "place": {"file": 3}})):
        assert prompt.key == prompt.shown


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"file": "nowhere.png"}, "is not there"),
        ({"file": "dark"}, "is a folder, not a plain file"),
        ({"file": "pipe"}, "is a pipe, not a plain file"),
        ({"file": ""}, "is a folder, not a plain file"),
        ({"file": "a\0b"}, "is not there"),
    ],
)
def test_what_is_no_plain_file_is_refused_with_its_line_before_a_model_is_loaded(
    value, said, place
):
    os.mkfifo(place / "pipe")
    lines(place / "mine.jsonl", {"file": "dark/photo.png"}, value)
    prompts = {"name": "text_file", "path": str(place / "mine.jsonl")}
    model = {"name": f"{tiny.FILE}:NeverLoaded"}
    with pytest.raises(ConfigError, match=rf"prompts\.path: line 2 of .*inputs\.image: .*({said})"):
        train(tiny.config(model=model, prompts=prompts), place / "run")
    assert not (place / "run").exists()


@pytest.mark.parametrize("value", [{"file": 3}, {"file": "x.png", "size": 2}, "x.png", ["x.png"]])
def test_other_values_are_those_of_json(value, place):
    lines(place / "mine.jsonl", value)
    assert TextFile(place / "mine.jsonl").prompts[0].inputs["image"] == value


def test_a_copy_of_the_prompts_names_the_same_files(place):
    content = b'\xef\xbb\xbf{"prompt": "a cat"}\n\n' + (place / "mine.jsonl").read_bytes()
    (place / "copied").mkdir()
    copy = place / "copied" / "mine.jsonl"
    copy.write_bytes(inputs.with_absolute_paths(content, place))
    assert TextFile(copy).prompts[1:] == TextFile(place / "mine.jsonl").prompts
    assert copy.read_bytes().splitlines()[0] == content.splitlines()[0]
    plain = b'{"prompt": "a cat"}\r\n'
    assert inputs.with_absolute_paths(plain, place) == plain


def test_named_files_are_found_also_where_json_hides_the_word(place):
    hidden = (place / "mine.jsonl").read_text().replace('"file"', '"\\u0066ile"')
    (place / "hidden.jsonl").write_text(hidden)
    want = [place / "dark" / "photo.png", place / "bright" / "photo.png"]
    assert inputs.named_in(place / "mine.jsonl") == inputs.named_in(place / "hidden.jsonl") == want
    assert inputs.named_in(place / "gone.jsonl") == []
    (place / "broken.jsonl").write_text('{"inputs": {"file"\n[3]\n{"inputs": ["file"]}\n')
    assert inputs.named_in(place / "broken.jsonl") == []


# -- read


def value(path):
    return {"file": str(path)}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_png_jpeg_and_webp_are_read_to_the_size_asked(kind, tmp_path):
    paint(tmp_path / f"a.{kind}", (255, 0, 0), (20, 10))
    image = input_image(value(tmp_path / f"a.{kind}"), 8)
    assert image.shape == (3, 8, 8) and image.dtype == torch.float32
    torch.testing.assert_close(image[:, 4, 4], torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["gif", "bmp", "tiff", "ppm", "ico"])
def test_other_kinds_are_not(kind, tmp_path):
    paint(tmp_path / f"a.{kind}", (255, 0, 0), (16, 16))
    with pytest.raises(ConfigError, match=rf"a\.{kind}.*as a PNG, JPEG or WebP"):
        input_image(value(tmp_path / f"a.{kind}"), 8)


def test_it_is_the_middle_square(tmp_path):
    wide = Image.new("RGB", (30, 10), "blue")
    wide.paste("red", (10, 0, 20, 10))
    wide.save(tmp_path / "a.png")
    image = input_image(value(tmp_path / "a.png"), 10)
    assert (image[0] == 1).all() and (image[2] == 0).all()


def test_a_photo_is_turned_upright(tmp_path):
    photo, exif = Image.new("RGB", (8, 8), "black"), Image.Exif()
    photo.paste("white", (0, 0, 4, 8))  # the left half, which 6 says is the upper one
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.png", exif=exif)
    photo.save(tmp_path / "plain.png")
    turned, plain = (input_image(value(tmp_path / f"{n}.png"), 8) for n in ("turned", "plain"))
    assert (turned[:, 0] == 1).all() and (turned[:, 7] == 0).all()
    assert (plain[:, :, 0] == 1).all() and (plain[:, :, 7] == 0).all()


def test_what_is_transparent_is_white_and_grey_of_16_bits_is_grey(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("P", (8, 8)).save(tmp_path / "palette.png", transparency=0)
    Image.fromarray((torch.full((8, 8), 128 * 257)).numpy().astype("uint16")).save(
        tmp_path / "deep.png"
    )
    Image.new("CMYK", (8, 8)).save(tmp_path / "ink.jpeg")
    for name in ("clear.png", "palette.png", "ink.jpeg"):
        assert (input_image(value(tmp_path / name), 4) > 0.98).all()
    torch.testing.assert_close(
        input_image(value(tmp_path / "deep.png"), 4), torch.full((3, 4, 4), 128 / 255)
    )


def claims(path, width, height):
    """A PNG file of a few bytes that says it has so many pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8193, 9999, 100_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(side, tmp_path, recwarn):
    claims(tmp_path / "bomb.png", side, side)
    with pytest.raises(ConfigError, match="bomb.png"):
        input_image(value(tmp_path / "bomb.png"), 8)
    assert side * side > MOST_INPUT_PIXELS


@pytest.mark.parametrize("content", [b"", b"a cat", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_damaged_file_is_named(content, tmp_path):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read '.*bad\.png'"):
        input_image(value(tmp_path / "bad.png"), 8)


@pytest.mark.parametrize("wrong", [{"file": "/nowhere/a.png"}, {"file": "/"}, "a.png", {}, None])
def test_what_names_no_file_is_refused(wrong):
    with pytest.raises(ConfigError, match="no file on this machine"):
        input_image(wrong, 8)


# -- a run of them


def config(place, **over):
    usual = {
        "model": {"name": f"{tiny.FILE}:Editor"},
        "prompts": {"name": "text_file", "path": str(place / "mine.jsonl"), "balanced": True},
        "prompts_per_epoch": 32,
        "images_per_prompt": 1,
        "algorithm": {"name": "ddpo_is", "advantage": "per_prompt", "clip_range": 0.1},
        "learning_rate": 5e-3,
        "epochs": 4,
        "evaluation": {"every": 2, "num_prompts": 2, "images_per_prompt": 2},
    }
    return tiny.config(**{**usual, **over})


def test_a_model_that_starts_from_an_image_trains_resumes_and_shows_what_it_was_given(place):
    history = train(config(place), place / "whole")
    assert history[-1]["reward_mean"] > history[0]["reward_mean"]
    train(config(place, epochs=2), place / "run")
    (place / "mine.jsonl").unlink()  # a run has its own copy, which names the same files
    resume(place / "run", epochs=4)
    ours, theirs = weights(place / "whole"), weights(place / "run")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert numbers(place / "whole") == numbers(place / "run")
    made = [
        input_image(value(place / "run" / "samples" / "epoch-00000" / f"{i:03d}.png"), 4).mean()
        for i in range(4)
    ]
    assert max(made[:2]) < 0.4 and min(made[2:]) > 0.6  # two columns, of two pictures each
    assert log.read(RunFolder(place / "run").monitor)[0]["images_per_prompt"] == 2


def shown_inputs(run):
    """The pictures that the page says the model was given."""
    page = (run / "report.html").read_text()
    found = re.findall(r'<img class="given" src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def test_the_page_shows_each_prompts_image_above_its_strip(place):
    train(config(place, epochs=2), place / "run")
    images = shown_inputs(place / "run")
    assert [image.getpixel((3, 3)) for image in images] == [(20,) * 3, (230,) * 3] * 2
    assert "[image=photo.png, strength=2]" in (place / "run" / "report.html").read_text()


def test_prompts_without_images_show_none_and_other_files_are_the_models_affair(place):
    (place / "words.txt").write_text("a cat")
    rows = [{"prompt": "a cat", "inputs": {"words": {"file": "words.txt"}}}, {"prompt": "a dog"}]
    (place / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train(config(place, epochs=1, model={"name": f"{tiny.FILE}:Toy"}), place / "run")
    assert shown_inputs(place / "run") == []
    assert not (place / "run" / "samples" / "inputs").exists()


def test_several_images_of_a_prompt_stand_side_by_side(place):
    both = {name: {"file": f"{name}/photo.png"} for name in ("dark", "bright")}
    row = {"prompt": "mix", "inputs": {**both, "image": {"file": "dark/photo.png"}}}
    (place / "mine.jsonl").write_text(json.dumps(row))
    train(config(place, epochs=1), place / "run")
    image = shown_inputs(place / "run")[0]
    assert image.width == 3 * image.height
    middle = [image.getpixel((x * image.height + 9, 9))[0] for x in range(3)]
    assert middle == [230, 20, 20]  # by their names


def test_an_input_that_changed_since_the_run_began_is_noticed(place):
    train(config(place, epochs=1, evaluation={"every": 1}), place / "run")
    assert len(resume(place / "run", epochs=2)) == 1  # the control
    paint(place / "dark" / "photo.png", (30, 20, 20))
    with pytest.raises(ConfigError, match=r"prompts\.path: .*dark/photo\.png changed"):
        resume(place / "run", epochs=3)
    assert len(resume(place / "run", epochs=3, accept_changed_files=True)) == 1
    (place / "dark" / "photo.png").unlink()
    with pytest.raises(ConfigError, match=r"line 1 of .*dark/photo\.png' is not there"):
        resume(place / "run", epochs=4)


def test_a_strangers_run_reads_no_image_of_this_machine_without_a_permission(place, capsys):
    flags = ["--model", f"{tiny.FILE}:Editor", "--prompts", "text_file", "--epochs", "1"]
    flags += ["--reward", "redness", "--evaluation.held-out", "[]", "--sampler.num-steps", "4"]
    flags += ["--sampler.num-quiet-steps", "0", "--prompts.path", str(place / "mine.jsonl")]
    sizes = ["--prompts-per-epoch", "4", "--updates-per-epoch", "1", "--run-dir"]

    def exits(*words):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        return stop.value.code, capsys.readouterr().err

    code, err = exits("train", "demo/incompressibility", *flags, *sizes, place / "run")
    assert code == 0, err
    assert exits("resume", place / "run", "--epochs", "2")[0] == 0  # whose owner typed it
    shutil.copytree(place / "run", place / "a-strangers")
    code, err = exits("resume", place / "a-strangers", "--epochs", "3")
    assert code == 2 and "photo.png and 1 more" in err and "(prompts.path.inputs)" in err
    assert exits("resume", place / "a-strangers", "--epochs", "3", "--trust-code")[0] == 0


def test_what_lies_in_the_runs_own_folder_takes_no_permission(place):
    from rediffuse.lookup import trust

    train(config(place, epochs=1), place / "run")
    run = RunFolder(place / "run")
    asked = trust.asks(run.config(), run.path)
    assert set(asked) == {"model.name", "prompts.path.inputs"}
    paint(run.prompts / "own.png", "red")
    lines(run.prompts / "mine.jsonl", {"file": "own.png"})
    assert set(trust.asks(run.config(), run.path)) == {"model.name"}


# -- of the command line


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of a model that takes an image, one of labels, and one of text."""
    place = tmp_path_factory.mktemp("runs")
    paint(place / "dark.png", (20, 20, 20))
    paint(place / "bright.png", (230, 230, 230))
    lines(place / "mine.jsonl", {"file": "dark.png"})
    train(config(place, epochs=1), place / "image")
    labels = {"prompts": {"name": f"{tiny.FILE}:Labels"}, "reward": {"name": f"{tiny.FILE}:first"}}
    train(
        config(place, epochs=1, model={"name": f"{tiny.FILE}:OfVectors"}, **labels), place / "label"
    )
    train(tiny.config(epochs=1), place / "text")
    return place


def sampled(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["sample", *words, "--trust-code"])
    return stop.value.code, capsys.readouterr()


def brightness(path):
    with Image.open(path) as image:
        return torch.tensor(list(image.convert("L").tobytes())).float().mean().item()


def test_sample_takes_an_image_from_the_working_directory(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    made = []
    for name in ("dark", "bright"):
        words = ["--inputs", f"{{image: {{file: {name}.png}}}}", "--seed", "7"]
        code, said = sampled(capsys, "image", *words)
        assert code == 0, said.err
        made.append(brightness(said.out.strip().splitlines()[-1]))
        assert f"image-{name}-png-7.png" in said.out
    assert made[0] < 100 < 160 < made[1]


def test_sample_takes_a_label_and_what_is_given_matters(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    content = []
    for number, label in enumerate(("0", "1", "1")):
        out = f"{number}.png"
        words = ["--inputs", f"{{label: {label}}}", "--out", out]
        assert sampled(capsys, "label", *words)[0] == 0
        content.append(Path(out).read_bytes())
    assert content[1] == content[2]


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        (
            "image",
            ["--inputs", "{image: {file: nowhere.png}}"],
            "--inputs: inputs.image: .*not there",
        ),
        ("image", ["--inputs", "dark.png"], "--inputs: 'dark.png' is not a mapping"),
        ("image", ["--inputs", "[1]"], "--inputs: '?.1.'? is not a mapping"),
        ("image", ["--inputs", "{image: &a 3}"], "--inputs, line 1: anchors"),
        ("image", ["--inputs", "{image: {file: mine.jsonl}}"], "as a PNG, JPEG or WebP image"),
        ("label", ["--prompt", "a cat"], "this model takes no text. Leave it out"),
        ("text", [], "--prompt: this model takes a text"),
    ],
)
def test_what_sample_cannot_be_asked(run, words, said, runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    code, told = sampled(capsys, run, *words)
    assert code == 2 and re.search(said, told.err)
    assert "Traceback" not in told.err
