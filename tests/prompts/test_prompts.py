from collections import Counter

import pytest
import torch

from rediffuse.errors import ConfigError
from rediffuse.prompts.animals import NAMES, Animals
from rediffuse.prompts.text_file import TextFile


def drawn(prompts, n, seed=0):
    return [prompt.text for prompt in prompts.draw(n, torch.Generator().manual_seed(seed))]


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


def test_a_text_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa cat\r\n\r\n  a dog on the moon \nein B\u00e4r\n".encode())
    assert set(drawn(TextFile(path), 100)) == {"a cat", "a dog on the moon", "ein Bär"}


@pytest.mark.parametrize(
    ("content", "said"), [(b"\n  \n", "holds no prompt"), (b"\xff\xfe\x00", "not UTF-8"), (None, "cannot read")]
)
def test_a_bad_text_file(tmp_path, content, said):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        TextFile(path)
