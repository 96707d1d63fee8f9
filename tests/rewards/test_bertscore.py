"""BERTScore against its published formula, written out a pair at a time, on small encoders of three families."""

import math
from importlib.machinery import ModuleSpec

import pytest
import tiny
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DebertaConfig,
    DebertaModel,
    RobertaConfig,
    RobertaModel,
)

from rediffuse.errors import ConfigError
from rediffuse.prompts._animals import NAMES
from rediffuse.rewards._bertscore import PACKAGED, BertScore

CANDIDATES = ["a dog is riding a bike", "cat", "two dog playing chess in the image"]
REFERENCES = [
    "the image contains a dog riding a bike",
    "the image contains a cat",
    "the image contains three cat",
]
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
FAMILIES = {
    "bert": (BertModel, BertConfig(**SIZE)),
    "roberta": (RobertaModel, RobertaConfig(**SIZE, pad_token_id=0)),
    "deberta": (
        DebertaModel,
        DebertaConfig(
            **SIZE, relative_attention=True, pos_att_type=["c2p", "p2c"], max_relative_positions=8
        ),
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    kind, config = FAMILIES[request.param]
    config.vocab_size = len(tiny.VOCABULARY)
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    tiny.word_pieces(32).save_pretrained(folder)
    return folder


def by_hand(folder, layer, candidate, reference):
    """Zhang et al. 2020, eq. 1-3, of the whole model's hidden states; beginnings and ends weigh nothing."""
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    vectors = []
    for sentence in (candidate, reference):
        with torch.no_grad():
            states = (
                model(**tokenizer(sentence, return_tensors="pt"), output_hidden_states=True)
                .hidden_states[layer][0]
                .double()
            )
        vectors.append([(state / state.norm()).tolist() for state in states])

    def cosine(x, y):
        return sum(a * b for a, b in zip(x, y, strict=True))

    ours, theirs = vectors
    recall = [max(cosine(x, y) for y in ours) for x in theirs[1:-1]]
    precision = [max(cosine(x, y) for x in theirs) for y in ours[1:-1]]
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return p, r, 2 * p * r / (p + r)


@pytest.mark.parametrize("layer", [1, 2, None])
def test_it_is_the_published_formula(layer, encoder):
    got = BertScore.load("reward.encoder", str(encoder), None, layer, "cpu")(CANDIDATES, REFERENCES)
    want = [by_hand(encoder, layer or 3, c, r) for c, r in zip(CANDIDATES, REFERENCES, strict=True)]
    torch.testing.assert_close(
        torch.stack(got, 1).double(), torch.tensor(want, dtype=torch.float64), atol=1e-5, rtol=0
    )
    assert got.recall.std() > 0.01
    assert not torch.allclose(got.recall, got.precision, atol=1e-3)


def test_a_score_does_not_depend_on_who_else_is_in_the_batch(encoder):
    score = BertScore.load("reward.encoder", str(encoder), None, 2, "cpu")
    alone = torch.cat([score([c], [r]).f1 for c, r in zip(CANDIDATES, REFERENCES, strict=True)])
    torch.testing.assert_close(score(CANDIDATES, REFERENCES).f1, alone, atol=1e-5, rtol=0)


def test_a_sentence_says_all_of_itself(encoder):
    same = BertScore.load("reward.encoder", str(encoder), None, 2, "cpu")(REFERENCES, REFERENCES)
    torch.testing.assert_close(torch.stack(same), torch.ones(3, 3), atol=1e-5, rtol=0)


def test_nothing_said_is_no_number_and_too_much_is_cut_off(encoder):
    score = BertScore.load("reward.encoder", str(encoder), None, 2, "cpu")
    got = score(["", "  \n", "cat " * 500], ["a cat"] * 3)
    assert [math.isnan(value) for value in got.recall.tolist()] == [True, True, False]
    assert [math.isnan(value) for value in got.precision.tolist()] == [True, True, False]
    torch.testing.assert_close(
        got.recall[2], score(["cat " * 30], ["a cat"]).recall[0], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("place", "layer", "said"),
    [(None, 9, "has 3 layers, but layer 9"), ("./nowhere", 2, "no folder and no")],
)
def test_an_encoder_that_cannot_be_had(place, layer, said, encoder):
    with pytest.raises(ConfigError, match=f"reward.encoder: .*{said}"):
        BertScore.load("reward.encoder", place or str(encoder), None, layer, "cpu")


def test_the_packaged_encoder_tells_animals_apart_without_a_network():
    """As the alignment reward uses it: a caption against each prompt; the right one is the likeliest."""
    score = BertScore.load("reward.encoder", PACKAGED, None, None, "cpu")
    recall = torch.stack(
        [
            score(
                [f"a {name} riding a bike"] * len(NAMES),
                [f"The image contains a {each}" for each in NAMES],
            ).recall
            for name in NAMES
        ]
    )
    assert (recall.argmax(1) == torch.arange(len(NAMES))).all()
    right, wrong = score(
        ["a cat riding a bike"] * 2,
        ["The image contains a cat riding a bike", "The image contains a cat playing chess"],
    ).recall
    assert right > wrong + 0.1


def test_a_packaged_encoder_that_is_missing_or_another(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"reward.encoder: .* not installed: pip install 'rediffuse\[offline\]'"
    ):
        BertScore.load("reward.encoder", PACKAGED, None, None, "cpu")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: ModuleSpec(name, None, origin=str(tmp_path / "__init__.py")),
    )
    with pytest.raises(ConfigError, match="not those that were published"):
        BertScore.load("reward.encoder", PACKAGED, None, None, "cpu")
