from collections import Counter

import pytest
import torch

from rediffuse.errors import ConfigError
from rediffuse.prompts._animals import NAMES, UNSEEN_ACTIVITIES
from rediffuse.prompts.animals import Animals
from rediffuse.prompts.animals_activities import AnimalsActivities
from rediffuse.prompts.counting import Counting
from rediffuse.prompts.everyday_objects import EverydayObjects
from rediffuse.prompts.imagenet_animals import ImagenetAnimals
from rediffuse.prompts.one_prompt import OnePrompt
from rediffuse.prompts.text_file import TextFile
from rediffuse.prompts.unseen_activities import UnseenActivities
from rediffuse.prompts.unseen_animals import UnseenAnimals
from rediffuse.prompts.unseen_animals_activities import UnseenAnimalsActivities
from rediffuse.prompts.vqa import QuestionPrompts
from rediffuse.types import Prompt


def taken(prompts, n, seed=0):
    return prompts.draw(n, torch.Generator().manual_seed(seed))


def drawn(prompts, n, seed=0):
    return [prompt.text for prompt in taken(prompts, n, seed)]


def test_the_45_animals_have_the_right_article():
    texts = set(drawn(Animals(), 2000))
    assert len(texts) == len(NAMES) == 45
    assert "an ant" in texts
    assert "a cat" in texts
    assert not [text for text in texts if text.startswith("an ") and text != "an ant"]


def test_bare_nouns_are_the_published_aesthetic_task():
    assert set(drawn(Animals(article=False), 2000)) == set(NAMES)


def test_balanced_draws_give_every_animal_its_turn():
    assert set(Counter(drawn(Animals(balanced=True), 90)).values()) == {2}
    assert max(Counter(drawn(Animals(balanced=True), 10)).values()) == 1
    assert max(Counter(drawn(Animals(), 90)).values()) > 2


def test_the_398_animals_of_imagenet():
    texts = drawn(ImagenetAnimals(balanced=True), 398)
    assert len(set(texts)) == 398
    assert {
        "tench, Tinca tinca",
        "Chihuahua",
        "Mexican hairless",
        "puffer, pufferfish, blowfish, globefish",
    } < set(texts)


def test_135_animals_at_an_activity():
    texts = set(drawn(AnimalsActivities(balanced=True), 135))
    assert len(texts) == 135
    assert {"an ant riding a bike", "a dog washing the dishes", "a cat playing chess"} < texts


def test_154_herds_and_what_is_asked_of_them():
    prompts = {prompt.text: prompt.metadata for prompt in taken(Counting(balanced=True), 154)}
    assert len(prompts) == 154
    assert prompts["six turtles"] == {
        "questions": ["How many turtles are there in this image?", "What animal is in this image?"],
        "answers": ["six", "turtle"],
    }
    assert {"two wolves", "eight fish", "three sheep"} < set(prompts)


def test_15_and_14_prompts_with_three_questions_each():
    prompts = {prompt.text: prompt.metadata for prompt in taken(QuestionPrompts(balanced=True), 15)}
    assert len(prompts) == 15
    assert prompts["a monkey washing dishes"] == {
        "questions": [
            "who is washing the dishes?",
            "what is the monkey doing?",
            "what is the monkey washing?",
        ],
        "answers": ["monkey", "washing", "dishes"],
    }
    assert prompts["a bear riding a bike"]["questions"] == [
        "who is riding the bike?", "what is the bear doing?", "what is the bear riding?",
    ]  # fmt: skip
    assert prompts["a dog playing chess"]["questions"][0] == "who is playing chess?"
    older = {
        prompt.text: prompt.metadata for prompt in taken(QuestionPrompts("v0", balanced=True), 14)
    }
    assert len(older) == 14
    assert older["an elephant playing basketball"]["answers"] == [
        "elephant",
        "playing",
        "basketball",
    ]
    assert older["a cat playing piano"]["questions"] == [
        "who is playing the piano?", "what is the cat doing?", "what is the cat playing?",
    ]  # fmt: skip
    assert older["a whale painting a mural"]["questions"][0] == "who is painting the mural?"


def test_a_text_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa cat\r\n\r\n  a dog on the moon \nein B\u00e4r\n".encode())
    assert set(drawn(TextFile(path), 100)) == {"a cat", "a dog on the moon", "ein Bär"}


def test_a_kind_of_file_that_cannot_be_read(tmp_path):
    (tmp_path / "prompts.csv").write_text("prompt\na cat\n")
    with pytest.raises(ConfigError, match=r"is a .csv file; it takes .txt"):
        TextFile(tmp_path / "prompts.csv")
    (tmp_path / "LOUD.JSONL").write_text('{"prompt": "a cat"}\n')
    assert set(drawn(TextFile(tmp_path / "LOUD.JSONL"), 3)) == {"a cat"}


def test_json_lines_have_weights_and_more_for_the_reward_to_see(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"prompt": "a cat", "weight": 3, "count": 2}\n\n{"prompt": "a dog"}\n{"prompt": "a bug", "weight": 0}\n'
    )
    counts = Counter(drawn(TextFile(path), 4000))
    assert counts["a cat"] / counts["a dog"] == pytest.approx(3, rel=0.15)
    assert "a bug" not in counts
    assert Prompt("a cat", {"count": 2}) in taken(TextFile(path), 20)
    assert Counter(drawn(TextFile(path, balanced=True), 10)) == {"a cat": 5, "a dog": 5}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n  \n", "holds no prompt"),
        (b"a cat\n\xff\xfe\x00", "line 2 .* is not UTF-8"),
        (b"a cat\n\x00\x01\n", "line 2 .* holds a zero byte"),
        (None, "cannot read .* No such file"),
        ("a folder", "cannot read .* Is a directory"),
    ],
)
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_bad_text_file(tmp_path, content, said, kind):
    path = tmp_path / f"prompts.{kind}"
    if isinstance(content, bytes):
        path.write_bytes(content.replace(b"a cat", b'{"prompt": "a cat"}'))
    elif content:
        path.mkdir()
    with pytest.raises(ConfigError, match=said):
        TextFile(path)


def test_a_json_line_may_say_what_a_model_sees_besides_the_text(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"prompt": "", "inputs": {"label": 207}}\n{"prompt": "a dog", "inputs": {"seconds": 2.5}, "count": 1}\n'
    )
    label, dog = TextFile(path).prompts
    assert (label.text, label.inputs, label.shown) == ("", {"label": 207}, "[label=207]")
    assert (dog.inputs, dog.metadata, dog.shown) == (
        {"seconds": 2.5},
        {"count": 1},
        "a dog [seconds=2.5]",
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a dog"', "line 2 .* is not JSON"),
        ('{"prompt": "  "}', "line 2 .*: prompt: .* at least 1 character"),
        ("[" * 100_000, "line 2 .* is not JSON"),
        ('{"prompt": "a dog", "n": ' + "1" * 5000 + "}", "line 2 .* is not JSON"),
        ('["a dog"]', "line 2"),
        ('{"text": "a dog"}', "line 2 .*prompt: Field required"),
        ('{"prompt": 3}', "line 2 .*prompt: Input should be a valid string"),
        ('{"prompt": ""}', "line 2 .*prompt"),
        ('{"prompt": "a dog", "weight": -1}', "line 2 .*weight: .*greater than or equal to 0"),
    ],
)
def test_a_bad_json_line_is_named_by_its_number(tmp_path, line, said):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a cat"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=said):
        TextFile(path)


def test_weights_that_are_all_zero(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a cat", "weight": 0}\n')
    with pytest.raises(ConfigError, match="every weight"):
        TextFile(path)


def test_what_is_unseen_is_in_no_set_that_is_trained_on():
    trained = {
        text
        for prompts in (Animals(), AnimalsActivities(alone=True), Counting())
        for text in drawn(prompts, 5000)
    }
    sizes = {
        UnseenAnimals: 14,
        EverydayObjects: 40,
        UnseenActivities: 135,
        UnseenAnimalsActivities: 42,
    }
    for kind, size in sizes.items():
        texts = set(drawn(kind(balanced=True), size))
        assert len(texts) == size
        assert not texts & trained
    assert {"a penguin", "an owl", "an octopus"} < set(drawn(UnseenAnimals(), 500))
    assert "penguin" in drawn(UnseenAnimals(article=False), 500)
    assert {"an apple", "a car"} < set(drawn(EverydayObjects(), 1000))
    assert "a cat playing the guitar" in drawn(UnseenActivities(balanced=True), 135)
    assert "an owl eating a pizza" in drawn(UnseenAnimalsActivities(balanced=True), 42)


def test_the_embedded_model_knows_what_is_unseen_from_its_pretraining():
    from pretraining import vocabulary

    assert set(drawn(UnseenAnimals(article=False, balanced=True), 14)) == set(
        vocabulary.UNSEEN_ANIMALS
    )
    assert set(drawn(EverydayObjects(article=False, balanced=True), 40)) == set(vocabulary.OBJECTS)
    assert set(UNSEEN_ACTIVITIES) == set(vocabulary.UNSEEN_ACTIVITIES)


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("# my prompts\na cat\n\n# dogs\na dog #1\n", {"a cat", "a dog #1"}),
        (
            "\n\ufeff# no comment: the file begins with an empty line\na cat\n",
            {"\ufeff# no comment: the file begins with an empty line", "a cat"},
        ),
        ("a cat\n# 1 fan\n", {"a cat", "# 1 fan"}),
        ("#1 fan\n#comment\n", set()),
    ],
)
def test_lines_are_comments_where_the_first_line_is_one(content, prompts, tmp_path):
    (tmp_path / "mine.txt").write_text(content)
    if not prompts:
        with pytest.raises(ConfigError, match="holds no prompt"):
            TextFile(tmp_path / "mine.txt")
        return
    assert set(drawn(TextFile(tmp_path / "mine.txt"), 100)) == prompts


def test_many_lines_are_read_in_no_time(tmp_path):
    import time

    (tmp_path / "mine.txt").write_text("".join(f"prompt number {n}\n" for n in range(100_000)))
    began = time.perf_counter()
    assert len(TextFile(tmp_path / "mine.txt").prompts) == 100_000
    assert time.perf_counter() - began < 3, "a tenth of a million"


@pytest.mark.parametrize(
    "line",
    ["x" * 10_000_000, '{"prompt": "a cat \\ud83d"}', '{"prompt": "a cat", "tag": "\\ud83d"}'],
)
def test_a_line_that_is_no_prompt(line, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a cat"}\n' + line)
    with pytest.raises(ConfigError, match="line 2"):
        TextFile(tmp_path / "mine.jsonl")


def test_the_118_dogs_of_imagenet_and_one_dog():
    generator = torch.Generator().manual_seed(0)
    dogs = [
        prompt.text for prompt in ImagenetAnimals(only="dogs", balanced=True).draw(118, generator)
    ]
    assert len(set(dogs)) == 118 and {"Chihuahua", "Mexican hairless"} <= set(dogs)
    assert not {"sea lion", "timber wolf, grey wolf, gray wolf, Canis lupus"} & set(dogs)
    assert [prompt.text for prompt in OnePrompt().draw(3, generator)] == ["a dog"] * 3
