"""Options of names: texts that become numbers, lists and words, or are refused by name."""

from __future__ import annotations

import pytest

from steer.errors import ConfigError
from steer.options import integer, json_or_text, names, number, refuse_unknown


def test_an_option_nobody_has_is_refused_with_those_there_are() -> None:
    refuse_unknown("arm", {"seed": "1"}, ("seed", "size"))
    with pytest.raises(ConfigError, match=r"arm has no options \['sed'\]; it has \['seed', 'size'\]"):
        refuse_unknown("arm", {"sed": "1"}, ("size", "seed"))
    with pytest.raises(ConfigError, match="it has none"):
        refuse_unknown("arm", {"seed": "1"}, ())


def test_texts_become_what_they_mean() -> None:
    assert (integer({"a": "3"}, "a", 0), integer({}, "a", 7)) == (3, 7)
    assert (number({"a": "0.02"}, "a", 0.0), number({}, "a", 0.1)) == (0.02, 0.1)
    assert names({"a": "front,,wrist"}, "a") == ("front", "wrist")
    assert names({}, "a") == ()


@pytest.mark.parametrize(
    ("read", "words"), [(integer, "a='x': expected a whole number"), (number, "expected a number")]
)
def test_a_text_that_is_no_number_is_named(read, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read({"a": "x"}, "a", 0)


@pytest.mark.parametrize(("text", "value"), [("3", 3), ('["front"]', ["front"]), ("true", True), ("front", "front")])
def test_json_where_it_is_json(text: str, value: object) -> None:
    assert json_or_text(text) == value
