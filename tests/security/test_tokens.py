"""The text of tokens: golden, and everything that is none refused without repeating it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_common.errors import Code, EmberError
from fs_common.security.tokens import TOKEN_TEXT_LENGTH, Token, make_token, parse_token, secret_digest, token_text

GOLDEN = "ember.00010203.BAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMEywDn"
TOKEN = make_token(bytes(range(36)))


def test_the_text_is_golden() -> None:
    assert token_text(TOKEN) == GOLDEN and len(GOLDEN) == TOKEN_TEXT_LENGTH
    assert TOKEN.id == "00010203" and TOKEN.secret == bytes(range(4, 36))
    assert secret_digest(TOKEN).hex() == "5346eb1db5d4f5a3987a9ef601acc8f70806aeba8bc0fc91b004ac3cb407aa94"


@given(st.binary(min_size=36, max_size=36))
def test_every_token_survives_its_text(random: bytes) -> None:
    token = make_token(random)
    assert parse_token(token_text(token)) == token


@given(st.integers(0, len(GOLDEN) - 1), st.sampled_from("abcdefXYZ0189-_. \n"))
def test_one_wrong_character_is_found(position: int, character: str) -> None:
    text = GOLDEN[:position] + character + GOLDEN[position + 1 :]
    if text != GOLDEN:
        with pytest.raises(EmberError) as refused:
            parse_token(text)
        assert refused.value.code is Code.UNAUTHENTICATED
        assert GOLDEN[15:40] not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no token"),
        ("secret", "no token"),
        (GOLDEN[:-1], "no token"),
        (GOLDEN + "\n", "no token"),
        (GOLDEN.upper(), "no token"),
        (GOLDEN.replace("00010203", "00010204"), "damaged"),
        ("ember.00010203." + "A" * 48, "damaged"),
    ],
)
def test_what_is_no_token_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(EmberError, match=words) as refused:
        parse_token(text)
    assert refused.value.code is Code.UNAUTHENTICATED


def test_nothing_prints_a_secret() -> None:
    shown = f"{TOKEN} {TOKEN!r} {[TOKEN]} {Token.__repr__(TOKEN)}"
    assert "00010203" in shown and "BAUGBwg" not in shown and "\\x04" not in shown
