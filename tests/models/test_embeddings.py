"""Texts are encoded once, and what is remembered of them stays within its bytes."""

import threading
import time

import torch

from rediffuse.models._embeddings import Embeddings

BYTES = 16
"""Of one embedding: four numbers of fp32."""


class Encoder:
    """Notes which texts it is asked for."""

    def __init__(self, seconds=0.0):
        self.asked, self.seconds = [], seconds

    def __call__(self, texts):
        for text in texts:
            self.asked.append(text)
            time.sleep(self.seconds)
            yield torch.full((4,), float(ord(text)))


def test_embeddings_come_in_the_order_of_their_texts_and_each_is_encoded_once():
    encoder = Encoder()
    embeddings = Embeddings(encoder)
    embeddings.of(["b"])
    found = embeddings.of(["a", "b", "a", "c"])
    assert [int(each[0]) for each in found] == [ord(text) for text in "abac"]
    assert encoder.asked == ["b", "a", "c"]


def test_the_least_recently_used_text_is_forgotten_first():
    encoder = Encoder()
    embeddings = Embeddings(encoder, 2 * BYTES)
    for text in "abac":  # c takes the place of b
        embeddings.of([text])
    assert embeddings.num_bytes == 2 * BYTES
    embeddings.of(["a"])
    assert encoder.asked == ["a", "b", "c"]
    embeddings.of(["b"])
    assert encoder.asked == ["a", "b", "c", "b"]


def test_texts_that_do_not_fit_are_encoded_all_the_same():
    embeddings = Embeddings(Encoder(), 2 * BYTES)
    assert [int(each[0]) for each in embeddings.of("abcd")] == [ord(text) for text in "abcd"]
    assert embeddings.num_bytes == 2 * BYTES
    nothing = Embeddings(Encoder(), BYTES - 1)
    assert len(nothing.of("ab")) == 2
    assert nothing.num_bytes == 0


def test_preparing_stops_where_the_bytes_are_used_up_and_forgets_nothing():
    encoder = Encoder()
    embeddings = Embeddings(encoder, 2 * BYTES)
    embeddings.prepare("abcdef")
    assert encoder.asked == ["a", "b", "c"]
    embeddings.of("ab")
    assert encoder.asked == ["a", "b", "c"]


def test_threads_that_need_the_same_text_have_it_encoded_once():
    encoder = Encoder(seconds=0.01)
    embeddings = Embeddings(encoder)
    threads = [threading.Thread(target=embeddings.of, args=("abc",)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(encoder.asked) == ["a", "b", "c"]
