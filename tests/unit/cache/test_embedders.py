"""Embedders: unit vectors that depend on the text alone, or EmbedderUnavailable."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from headgate.cache.embedders import MiniLM, RemoteEmbedder
from headgate.cache.reading import EmbedderUnavailable
from headgate.cache.shipped import SHIPPED, Manifest
from headgate.cache.wordpiece import WordPiece

Vector = NDArray[np.float32]
MARKS = ["[CLS]", "[SEP]", "[UNK]"]


def model_of(infer: Callable[[Sequence[tuple[int, ...]]], list[tuple[Vector, Vector, NDArray[np.float16]]]]) -> MiniLM:
    """Two numbers a vector, made by `infer`."""
    return MiniLM(WordPiece(MARKS), infer, Manifest("tiny", "1", 2, {}), np.ones(len(MARKS), np.float32))


@pytest.fixture(scope="module")
def minilm() -> Iterator[MiniLM]:
    model = MiniLM.load()
    yield model
    asyncio.run(model.close())


async def test_a_vector_is_of_unit_length_and_384_numbers_of_single_precision(minilm: MiniLM) -> None:
    vector = await minilm.embed("How do I reset my password?")
    assert vector.shape == (minilm.dimensions,) == (384,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


async def test_a_rewording_is_nearer_than_another_question(minilm: MiniLM) -> None:
    asked, reworded, other = await asyncio.gather(
        minilm.embed("How do I reset my password?"),
        minilm.embed("I forgot my password, how can I change it?"),
        minilm.embed("What is the tallest mountain in Europe?"),
    )
    assert asked @ reworded > 0.7
    assert asked @ other < 0.3


async def test_known_similarities_come_out_as_published(minilm: MiniLM) -> None:
    """The example on the published model's own page: three sentences, their cosines to two digits."""
    weather, sunny, stadium = await asyncio.gather(
        minilm.embed("The weather is lovely today."),
        minilm.embed("It's so sunny outside!"),
        minilm.embed("He drove to the stadium."),
    )
    assert weather @ sunny == pytest.approx(0.67, abs=0.02)
    assert weather @ stadium == pytest.approx(0.10, abs=0.02)
    assert sunny @ stadium == pytest.approx(0.14, abs=0.02)


async def test_a_vector_does_not_depend_on_the_texts_that_share_its_batch(minilm: MiniLM) -> None:
    texts = [f"Question number {number}" + ", and some more" * (number % 5) for number in range(40)]
    alone = [await minilm.embed(text) for text in texts]
    together = await asyncio.gather(*map(minilm.embed, texts))
    np.testing.assert_allclose(together, alone, atol=1e-5)


async def test_a_text_is_cut_at_128_pieces_and_says_so(minilm: MiniLM) -> None:
    cut = "hello " * 126
    assert minilm.fits(cut)
    assert not minilm.fits(cut + "goodbye")
    np.testing.assert_allclose(await minilm.embed(cut), await minilm.embed(cut + "goodbye"), atol=1e-6)


async def test_two_loads_have_the_same_identity_and_vectors(minilm: MiniLM) -> None:
    again = MiniLM.load(threads=2)
    assert again.identity == minilm.identity
    np.testing.assert_allclose(await again.embed("hello"), await minilm.embed("hello"), atol=1e-5)
    await again.close()


async def test_a_closed_model_is_unavailable() -> None:
    model = MiniLM.load()
    await model.close()
    with pytest.raises(EmbedderUnavailable):
        await model.embed("hello")


def test_an_absent_model_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="cannot be loaded"):
        MiniLM.load(tmp_path)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    """One more piece at the end of the vocabulary."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "model"))
    with (folder / "vocab.txt").open("a") as vocabulary:
        vocabulary.write("more\n")
    with pytest.raises(EmbedderUnavailable, match=r"vocab\.txt is altered"):
        MiniLM.load(folder)


@pytest.mark.parametrize("answer", [[np.nan, 1.0], [3.0, 4.0], [1.0], [0.0, 0.0]])
async def test_a_model_that_answers_nonsense_is_unavailable(answer: list[float]) -> None:
    def infer(batch: Sequence[tuple[int, ...]]) -> list[tuple[Vector, Vector, NDArray[np.float16]]]:
        return [(np.array(answer, np.float32), np.zeros(2, np.float32), np.zeros((1, 2), np.float16)) for _ in batch]

    model = model_of(infer)
    with pytest.raises(EmbedderUnavailable, match=r"no vector from tiny@1-.*: NotUnit$"):
        await model.embed("hello")
    await model.close()


async def test_a_question_that_was_embedded_is_not_read_again(minilm: MiniLM) -> None:
    vector = await minilm.embed("Is this read once?")
    assert (await minilm.read("Is this read once?")).vector is vector


async def test_a_piece_is_nearest_to_the_piece_of_the_same_meaning(minilm: MiniLM) -> None:
    """What a reading is for: in another question each piece has its partner, and one that lacks it stands out."""
    asked, other = await asyncio.gather(
        minilm.read("what is the price of gold"), minilm.read("what does silver cost today")
    )
    cosines = asked.tokens.astype(np.float32) @ other.tokens.astype(np.float32).T
    price, gold = 3, 5
    silver, cost = 2, 3
    assert int(cosines[price].argmax()) == cost
    assert int(cosines[gold].argmax()) == silver


def test_words_that_tell_more_are_rarer(minilm: MiniLM) -> None:
    pieces = WordPiece((SHIPPED / "vocab.txt").read_text(encoding="utf-8").splitlines())
    the, what, gold, password, mark = (
        float(minilm.rarity[number]) for number in pieces.encode("the what gold password ?")[1:-1]
    )
    assert mark == the < what < gold < password
    assert the < 0.05
    assert password > 0.9


def answering(body: bytes) -> Callable[[bytes], Awaitable[bytes]]:
    async def post(_request: bytes) -> bytes:
        return body

    return post


async def test_a_remote_vector_is_scaled_to_unit_length() -> None:
    sent = []

    async def post(request: bytes) -> bytes:
        sent.append(msgspec.json.decode(request))
        return b'{"object":"list","data":[{"index":0,"embedding":[3,4]}],"usage":{"prompt_tokens":1}}'

    embedder = RemoteEmbedder(post, model="text-embedding-3-small", dimensions=2)
    vector = await embedder.embed("hello")
    assert vector.tolist() == pytest.approx([0.6, 0.8])
    assert vector.dtype == np.float32
    assert sent == [{"model": "text-embedding-3-small", "input": "hello", "encoding_format": "float"}]
    await embedder.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"error":{"message":"no"}}',
        b'{"data":[]}',
        b'{"data":[{"embedding":[1,0]},{"embedding":[1,0]}]}',
        b'{"data":[{"embedding":[0,0]}]}',
        b'{"data":[{"embedding":[1,0,0]}]}',
        b'{"data":[{"embedding":[null,1]}]}',
        b'{"data":[{"embedding":[1e999,1]}]}',
        b'{"data":[{"embedding":[NaN,1]}]}',
        b'{"data":[{"embedding":[]}]}',
        b'{"data":[{"embedding":"AACAPwAAAAA="}]}',
    ],
)
async def test_a_remote_answer_without_one_good_vector_is_unavailable(body: bytes) -> None:
    embedder = RemoteEmbedder(answering(body), model="m", dimensions=2)
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed("hello")


async def test_a_remote_vector_of_huge_or_tiny_numbers_is_scaled_too() -> None:
    for numbers in (b"1e308,1e308", b"1e-308,1e-308"):
        embedder = RemoteEmbedder(answering(b'{"data":[{"embedding":[' + numbers + b"]}]}"), model="m", dimensions=2)
        assert (await embedder.embed("hello")).tolist() == pytest.approx([0.5**0.5, 0.5**0.5])


async def test_a_remote_endpoint_that_is_too_slow_is_unavailable() -> None:
    async def post(_request: bytes) -> bytes:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        return b""

    with pytest.raises(EmbedderUnavailable, match="TimeoutError"):
        await RemoteEmbedder(post, model="m", dimensions=2).embed("hello")


async def test_a_remote_endpoint_that_fails_is_unavailable_and_its_message_stays_inside() -> None:
    """The message of a lower error may hold an address or a key."""

    async def post(_request: bytes) -> bytes:
        reason = "secret"
        raise ConnectionError(reason)

    with pytest.raises(EmbedderUnavailable, match=r"^no vector from remote:m/2: ConnectionError$"):
        await RemoteEmbedder(post, model="m", dimensions=2).embed("hello")


def test_a_remote_identity_names_model_and_size() -> None:
    post = answering(b"")
    small, large = (RemoteEmbedder(post, model="m", dimensions=size) for size in (2, 3))
    assert small.identity != large.identity
    assert small.fits("short")
    assert not small.fits("long " * 10_000)
