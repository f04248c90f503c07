"""The tokeniser: equal to the published one, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.implementations import BertWordPieceTokenizer

from headgate.cache.embedders import SHIPPED
from headgate.cache.wordpiece import MAX_CHARACTERS, MAX_PIECES, WordPiece

VOCABULARY = SHIPPED / "vocab.txt"
START, END, UNKNOWN = 101, 102, 100

EXPECTED: list[tuple[str, list[int]]] = [
    ("", []),
    ("   \t\n ", []),
    ("How do I reset my password?", [2129, 2079, 1045, 25141, 2026, 20786, 1029]),
    (
        "Caf\xe9 d\xe9j\xe0-vu, \xd1AND\xda \xc5ngstr\xf6m",
        [7668, 2139, 3900, 1011, 24728, 1010, 16660, 8566, 17076, 15687],
    ),
    ("I\u0307stanbul \u0130zmir ISPARTA", [9960, 1045, 2480, 14503, 2003, 19362, 2696]),
    (
        "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
        [1169, 29722, 29735, 29733, 29733, 29723, 29735, 29733, 1173, 18199, 29733, 29735, 29736, 15297],
    ),
    ("stra\xdfe STRASSE \u1e9e", [2358, 27807, 2358, 8180, 3366, 1096]),
    ("\u4f60\u597d\uff0c\u4e16\u754c hello\u4e16\u754cabc", [100, 100, 1989, 1745, 100, 7592, 1745, 100, 5925]),
    ("\u6771\u4eac\u304b\u3089\u4eac\u90fd\u307e\u3067", [1879, 1755, 1651, 30211, 1755, 1961, 1677, 30191]),
    ("\u30ab\u30bf\u30ab\u30ca \uff76\uff80\uff76\uff85 \u304c", [1700, 30235, 30226, 30241, 100, 1651]),
    (
        "\ud55c\uad6d\uc5b4 \ubb38\uc7a5",
        [1469, 30006, 30021, 29991, 30014, 30020, 29999, 30008, 1459, 30014, 30021, 30000, 30006, 30025],
    ),
    (
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u0401\u0436\u0438\u043a \u0439",
        [1194, 16856, 10325, 25529, 15290, 22919, 1010, 1185, 29743, 10325, 23925, 1188],
    ),
    (
        "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
        [1295, 17149, 29820, 29816, 25573, 1271, 25573, 23673, 29830, 25573, 23673, 22192],
    ),
    (
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
        [1339, 29877, 29863, 29861, 29878, 1330, 29876, 29873, 29876],
    ),
    ("\u0e44\u0e17\u0e22", [100]),
    ("a\U0001f600b \U0001f469\u200d\U0001f469\u200d\U0001f467 \xe9", [100, 100, 1041]),
    (
        "don't stop\u2014won't \u201cquote\u201d \u2026",
        [2123, 1005, 1056, 2644, 1517, 2180, 1005, 1056, 1523, 14686, 1524, 1529],
    ),
    ("[CLS] a [MASK]b[SEP] [cls] [ MASK ]", [101, 1037, 103, 1038, 102, 1031, 18856, 2015, 1033, 1031, 7308, 1033]),
    ("[[UNK]] [PAD", [1031, 100, 1033, 1031, 11687]),
    ("a\x00b\x07c\ufffdd\u200be\xadf\x7f", [5925, 3207, 2546]),
    (
        "tab\tnew\nline\rcr\xa0nbsp\u3000wide\u2028ls\x0bvt\x0cff\x85nel\x1fus",
        [21628, 2047, 2240, 13675, 1050, 5910, 2361, 2898, 1048, 2015, 2615, 24475, 2546, 11877, 2271],
    ),
    ("unaffable embeddings tokenization", [14477, 20961, 3468, 7861, 8270, 4667, 2015, 19204, 3989]),
    ("antidisestablishmentarianism", [3424, 10521, 4355, 7875, 13602, 3672, 12199, 2964]),
    ("z" * 100, [1062, *[13213] * 49, 2480]),
    ("z" * 101, [100]),
    ("1,234.56 $7 50% #hash", [1015, 1010, 22018, 1012, 5179, 1002, 1021, 2753, 1003, 1001, 23325]),
    ("@user x^2 `code` ~ a_b|c", [1030, 5310, 1060, 1034, 1016, 1036, 3642, 1036, 1066, 1037, 1035, 1038, 1064, 1039]),
    (
        "http://a.b/c?d=e&f=g",
        [8299, 1024, 1013, 1013, 1037, 1012, 1038, 1013, 1039, 1029, 1040, 1027, 1041, 1004, 1042, 1027, 1043],
    ),
    ("e\u0301\u0327 o\u0302\u0323", [1041, 1051]),
    ("\u2126 \u212b \ufb01 \xbd \xb2", [1179, 1037, 1984, 1092, 1082]),
    ("\U0001d518\U0001d52b\U0001d526 \U00020000\U00020001 \U0002b820 \u8c48", [100, 100, 100, 100, 100]),
    ("\u01c5 \u0149 \u0390", [100, 100, 1163]),
    (
        "don`t \xbfqu\xe9? \xaboui\xbb \xa1 \xb7",
        [2123, 1036, 1056, 1094, 10861, 1029, 1077, 15068, 2072, 1090, 1067, 1087],
    ),
]


@pytest.fixture(scope="module")
def wordpiece() -> WordPiece:
    return WordPiece(VOCABULARY.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def published() -> BertWordPieceTokenizer:
    tokeniser = BertWordPieceTokenizer(str(VOCABULARY), lowercase=True)
    tokeniser.enable_truncation(MAX_PIECES)
    return tokeniser


@pytest.mark.parametrize(("text", "ids"), EXPECTED)
def test_a_tricky_text_has_the_published_ids(wordpiece: WordPiece, text: str, ids: list[int]) -> None:
    """The ids were written down from the published tokeniser."""
    assert wordpiece.encode(text) == (START, *ids, END)


SCRIPTS = [
    st.characters(max_codepoint=0x2AF, exclude_categories=["Cs"]),
    st.characters(min_codepoint=0x300, max_codepoint=0x52F),
    st.characters(min_codepoint=0x5D0, max_codepoint=0x60F),
    st.characters(min_codepoint=0x2000, max_codepoint=0x22FF),
    st.characters(min_codepoint=0x3000, max_codepoint=0x30FF),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x4E40),
    st.characters(min_codepoint=0xAC00, max_codepoint=0xAC40),
    st.characters(min_codepoint=0x1F600, max_codepoint=0x1F640),
    st.sampled_from("  \t\n\r\u00a0\u3000\ufffd\u200d.,!?-_[]\uff0c\u3002\u03a3\u0130"),
    st.sampled_from(["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "the ", "ing", "un", "ization ", "123", "\u0301"]),
]


@given(st.lists(st.one_of(SCRIPTS), max_size=80).map("".join))
def test_any_text_has_the_published_ids(wordpiece: WordPiece, published: BertWordPieceTokenizer, text: str) -> None:
    """Scripts whose character classes have been the same in every recent Unicode version."""
    assert wordpiece.encode(text) == tuple(published.encode(text).ids)


WORDS = st.sampled_from(["hello", "tokenization", "caf\u00e9", "\u4e16", "q" * 120, "!"])


@given(st.lists(WORDS, min_size=90).map(" ".join))
def test_a_long_text_is_cut_where_the_published_tokeniser_cuts(
    wordpiece: WordPiece, published: BertWordPieceTokenizer, text: str
) -> None:
    expected = tuple(published.encode(text[:MAX_CHARACTERS]).ids)
    assert wordpiece.encode(text) == expected
    assert len(expected) <= MAX_PIECES


@given(st.text())
def test_whatever_the_text_there_are_sentinels_and_at_most_128_pieces(wordpiece: WordPiece, text: str) -> None:
    """Lone surrogates included."""
    ids = wordpiece.encode(text + "\ud800")
    assert (ids[0], ids[-1]) == (START, END)
    assert len(ids) <= MAX_PIECES


def test_the_memo_gives_the_same_ids_again(wordpiece: WordPiece) -> None:
    first = wordpiece.encode("Unfathomable, na\u00efve tokenization!")
    assert wordpiece.encode("Unfathomable, na\u00efve tokenization!") == first


def test_the_memo_survives_more_words_than_it_holds(wordpiece: WordPiece) -> None:
    expected = [wordpiece.encode(f"w{number}") for number in range(20_000)]
    assert [wordpiece.encode(f"w{number}") for number in range(20_000)] == expected


def test_leading_blanks_do_not_count_against_the_characters_looked_at(wordpiece: WordPiece) -> None:
    assert wordpiece.encode(" \n" * 5_000 + "hello") == wordpiece.encode("hello")


def test_characters_beyond_the_limit_are_not_looked_at(wordpiece: WordPiece) -> None:
    head = "a" * MAX_CHARACTERS
    assert wordpiece.encode(head + " hello") == wordpiece.encode(head) == (START, UNKNOWN, END)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("How do I reset my password?", True),
        ("hello " * 126, True),
        ("hello " * 127, False),
        ("a" * MAX_CHARACTERS + " hello", False),
        ("thanks \U0001f600", False),
        ("say [UNK]", False),
    ],
)
def test_a_text_fits_when_no_piece_is_cut_off_or_unknown(wordpiece: WordPiece, text: str, *, fits: bool) -> None:
    """Otherwise another text could have the same ids."""
    assert wordpiece.fits(text) is fits
