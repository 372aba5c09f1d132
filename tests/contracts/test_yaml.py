"""YAML that no reader can take for something else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.contracts.yaml import to_yaml
from tests.contracts.yamltext import parse

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]))
)
NAMES = st.text("abcxyz$_- :#0123456789", min_size=1, max_size=8) | st.sampled_from(["yes", "no", "on", "null", "3.10"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner.filter(lambda item: not isinstance(item, list)), max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5))
def test_what_is_written_is_read_again(value: dict[str, Any]) -> None:
    assert parse(to_yaml(value)) == value


@pytest.mark.parametrize("text", ["3.10", "no", "0o17", "12:30", "~", "1e3", "", " x ", "a: b", "# c", "- d"])
def test_no_string_is_taken_for_anything_else(text: str) -> None:
    assert f'key: "{text}"' in to_yaml({"key": text})


def test_a_comment_stands_above_its_key() -> None:
    written = to_yaml({"a": {"b": 1, "c": 2}}, comments={"a.c": "one\ntwo"})
    assert written == "a:\n  b: 1\n  # one\n  # two\n  c: 2\n"
