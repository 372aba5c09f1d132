"""A value has one byte string, the one of RFC 8785; every other spelling, and every other value, is refused by its code."""

import hashlib
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, Hex16, Hex32, Integer, Millis, Name, Params, Payload, Spiffe, Text, Token
from mesh.errors import Refused
from mesh.limits import CLOCK_MS_MAX, INT_MAX, LIST_ITEMS_MAX, PARAMS_MAX, STRING_CHARS_MAX
from tests.core.kit import HOSTILE, refuses

BYTES_MAX = 200_000


class Sample(Payload):
    """One of each."""

    flag: bool
    count: Count
    text: Text
    params: Params


def sample(params: str = "{}") -> bytes:
    return f'{{"count":7,"flag":true,"params":{params},"text":"t"}}'.encode()


def decode(data: bytes) -> Sample:
    return canonical.decode(Sample, data, bytes_max=BYTES_MAX)


INTEGERS = st.integers(-INT_MAX, INT_MAX)
STRINGS = st.text(max_size=40) | st.text('\x00\x01\x08\t\n\x0b\x0c\r\x1f "\\/\x7f\x80\x9f\u2028\u2029\ufeff\uffff\U0001f600', max_size=20)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", fullmatch=True)
SCALARS = st.booleans() | INTEGERS | STRINGS
PARAMS = st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=5), max_size=8)


@given(PARAMS)
def test_encoding_is_that_of_an_independent_rfc_8785_library(params: Any) -> None:
    assert canonical.encode(params) == rfc8785.dumps(params)


@given(PARAMS, st.booleans(), st.integers(0, INT_MAX), STRINGS)
def test_a_payload_survives_its_own_encoding(params: Any, flag: bool, count: int, text: str) -> None:
    value = Sample(flag=flag, count=count, text=text, params=params)
    data = canonical.encode(value)
    assert data == rfc8785.dumps({"flag": flag, "count": count, "text": text, "params": params})
    assert decode(data) == value


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12))
def test_nested_values_are_encoded_alike(value: Any) -> None:
    assert canonical.encode(value) == rfc8785.dumps(value)


def test_the_sample_is_canonical() -> None:
    for data in (sample(), sample('{"a":1,"b":2}'), sample('{"a":[true,-1,"x"]}')):
        assert canonical.encode(decode(data)) == data


DEEP = 30_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(sample() + b" ", "non_canonical", id="a space behind"),
        pytest.param(sample() + b"\n", "non_canonical", id="a newline behind"),
        pytest.param(b" " + sample(), "non_canonical", id="a space before"),
        pytest.param(sample().replace(b":", b": "), "non_canonical", id="spaces inside"),
        pytest.param(sample('{"b":2,"a":1}'), "non_canonical", id="keys in another order"),
        pytest.param(b'{"flag":true,"count":7,"params":{},"text":"t"}', "non_canonical", id="members in another order"),
        pytest.param(sample('{"a":1,"a":1}'), "non_canonical", id="a key twice"),
        pytest.param(sample('{"a":1,"a":2}'), "non_canonical", id="a key twice with two values"),
        pytest.param(b'{"count":7,"count":7,"flag":true,"params":{},"text":"t"}', "non_canonical", id="a member twice"),
        pytest.param(sample('{"a":-0}'), "non_canonical", id="minus nought"),
        pytest.param(sample('{"a":"\\u0041"}'), "non_canonical", id="an escape that need not be"),
        pytest.param(sample('{"a":"\\/"}'), "non_canonical", id="an escaped slash"),
        pytest.param(sample('{"a":"\\u001F"}'), "non_canonical", id="an escape in capitals"),
        pytest.param(sample('{"a":"\\u000a"}'), "non_canonical", id="a long escape where a short one is"),
        pytest.param(sample('{"a":"\\ud83d\\ude00"}'), "non_canonical", id="an escaped pair of surrogates"),
        pytest.param(sample('{"a":1.0}'), "malformed", id="a float"),
        pytest.param(sample('{"a":1.5}'), "malformed", id="a fraction"),
        pytest.param(sample('{"a":1e0}'), "malformed", id="an exponent"),
        pytest.param(sample('{"a":1E400}'), "malformed", id="an exponent past all floats"),
        pytest.param(sample('{"a":NaN}'), "malformed", id="not a number"),
        pytest.param(sample('{"a":null}'), "malformed", id="null"),
        pytest.param(sample("null"), "malformed", id="null for a member"),
        pytest.param(sample('{"a":{}}'), "malformed", id="a map in a map"),
        pytest.param(sample('{"a":[[1]]}'), "malformed", id="a list in a list"),
        pytest.param(sample('{"a":[null]}'), "malformed", id="null in a list"),
        pytest.param(sample('{"a":01}'), "malformed", id="a leading nought"),
        pytest.param(sample('{"a":+1}'), "malformed", id="a plus sign"),
        pytest.param(sample(f'{{"a":{INT_MAX + 1}}}'), "malformed", id="an integer past 2^53-1"),
        pytest.param(sample(f'{{"a":{-INT_MAX - 1}}}'), "malformed", id="an integer below -(2^53-1)"),
        pytest.param(sample(f'{{"a":{2**64}}}'), "malformed", id="an integer past 64 bits"),
        pytest.param(sample(f'{{"a":{"9" * 5_000}}}'), "malformed", id="an integer of 5,000 digits"),
        pytest.param(sample('{"a":"\\ud800"}'), "malformed", id="a lone surrogate"),
        pytest.param(sample('{"a":"\\udc00x"}'), "malformed", id="a lone low surrogate"),
        pytest.param(sample('{"a":"\\ud800\\ud800"}'), "malformed", id="two high surrogates"),
        pytest.param(sample('{"a":"@"}').replace(b"@", b"\xed\xa0\x80"), "malformed", id="a surrogate in UTF-8"),
        pytest.param(sample('{"a":"@"}').replace(b"@", b"\xff"), "malformed", id="no UTF-8"),
        pytest.param(sample('{"a":"@"}').replace(b"@", b"\xc0\x80"), "malformed", id="overlong UTF-8"),
        pytest.param(sample('{"a":"@"}').replace(b"@", b"\n"), "malformed", id="a bare control character"),
        pytest.param(b"\xef\xbb\xbf" + sample(), "malformed", id="a byte order mark"),
        pytest.param(sample().replace(b'"text"', b'"test"'), "malformed", id="an unknown member"),
        pytest.param(sample().replace(b'"params"', b'"Params"'), "malformed", id="a member in capitals"),
        pytest.param(b'{"count":7,"extra":1,"flag":true,"params":{},"text":"t"}', "malformed", id="one member more"),
        pytest.param(b'{"count":7,"flag":true,"params":{}}', "malformed", id="one member less"),
        pytest.param(sample().replace(b"true", b"1"), "malformed", id="a number for a boolean"),
        pytest.param(sample().replace(b"7", b"true"), "malformed", id="a boolean for a number"),
        pytest.param(sample().replace(b"7", b'"7"'), "malformed", id="a string for a number"),
        pytest.param(sample().replace(b"7", b"-1"), "malformed", id="a negative count"),
        pytest.param(sample('{"":1}'), "malformed", id="an empty name"),
        pytest.param(sample('{"a b":1}'), "malformed", id="a space in a name"),
        pytest.param(sample('{"a\\n":1}'), "malformed", id="a newline behind a name"),
        pytest.param(sample('{"é":1}'), "malformed", id="a name outside of ASCII"),
        pytest.param(sample() + sample(), "malformed", id="two values"),
        pytest.param(sample()[:-1], "malformed", id="cut off"),
        pytest.param(b"", "malformed", id="nothing"),
        pytest.param(b"[]", "malformed", id="a list"),
        pytest.param(sample("[" * DEEP), "malformed", id="deep where a map must be"),
        pytest.param(sample('{"a":' + "[" * DEEP + "]" * DEEP + "}"), "malformed", id="deep lists"),
        pytest.param(b'{"a":' * DEEP, "malformed", id="deep maps"),
        pytest.param(b"[" * DEEP, "malformed", id="deep from the start"),
        pytest.param(sample().replace(b'"t"', b'"t","z":' + b"[" * DEEP + b"]" * DEEP), "malformed", id="deep in an unknown member"),
    ],
)
def test_any_other_spelling_is_refused_by_its_code(data: bytes, code: str) -> None:
    with refuses(code):
        decode(data)


@given(HOSTILE)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    for kind in (Sample, dict[str, Params]):
        try:
            value = canonical.decode(kind, data, bytes_max=BYTES_MAX)
        except Refused:
            continue
        assert canonical.encode(value) == data


@given(st.integers(0, 60), st.integers(0, 60), HOSTILE)
def test_spliced_payloads_raise_only_our_error(start: int, end: int, data: bytes) -> None:
    whole = sample('{"a":1,"b":[true,"x"]}')
    spliced = whole[:start] + data + whole[end:]
    try:
        value = decode(spliced)
    except Refused:
        return
    assert canonical.encode(value) == spliced


def test_size_is_judged_before_anything_else() -> None:
    assert canonical.decode(Sample, sample(), bytes_max=len(sample())) == decode(sample())
    with refuses("too_large"):
        canonical.decode(Sample, sample(), bytes_max=len(sample()) - 1)
    with refuses("too_large"):
        canonical.decode(Sample, b"\xff" * 11, bytes_max=10)


def test_a_string_that_is_no_text_cannot_be_encoded() -> None:
    with refuses("malformed"):
        canonical.encode(Sample(flag=True, count=0, text="\udcff", params={}))


def taken(kind: Any, value: object) -> bool:
    """Whether ``value`` passes as ``kind``; what does not must be refused as malformed."""
    code = ""
    try:
        assert canonical.decode(kind, msgspec.json.encode(value), bytes_max=BYTES_MAX) == value
    except Refused as refused:
        code = refused.code
    assert code in {"", "malformed"}
    return not code


@pytest.mark.parametrize(
    ("kind", "most", "beyond"),
    [
        pytest.param(Integer, INT_MAX, INT_MAX + 1, id="an integer"),
        pytest.param(Integer, -INT_MAX, -INT_MAX - 1, id="a negative integer"),
        pytest.param(Count, INT_MAX, INT_MAX + 1, id="a count"),
        pytest.param(Count, 0, -1, id="the smallest count"),
        pytest.param(Millis, CLOCK_MS_MAX, CLOCK_MS_MAX + 1, id="a time"),
        pytest.param(Millis, 0, -1, id="the first time"),
        pytest.param(Text, "é" * STRING_CHARS_MAX, "é" * (STRING_CHARS_MAX + 1), id="a text"),
        pytest.param(Params, {"a": ["x"] * LIST_ITEMS_MAX}, {"a": ["x"] * (LIST_ITEMS_MAX + 1)}, id="a list"),
        pytest.param(Params, {"a": "x" * STRING_CHARS_MAX}, {"a": "x" * (STRING_CHARS_MAX + 1)}, id="a parameter"),
        pytest.param(Params, {"a": ["x" * STRING_CHARS_MAX]}, {"a": ["x" * (STRING_CHARS_MAX + 1)]}, id="an item"),
        pytest.param(
            Params,
            {f"a{number:02}": 1 for number in range(PARAMS_MAX)},
            {f"a{number:02}": 1 for number in range(PARAMS_MAX + 1)},
            id="a map",
        ),
        pytest.param(Token, "a" * 32, "a" * 33, id="a token"),
        pytest.param(Name, "a" * 64, "a" * 65, id="a name"),
        pytest.param(Hex32, "0f" * 32, "0f" * 32 + "0", id="32 bytes"),
        pytest.param(Hex16, "0f" * 16, "0f" * 16 + "0", id="16 bytes"),
        pytest.param(Spiffe, "spiffe://" + "d" * 64 + "/" + "p" * 180, "spiffe://" + "d" * 64 + "/" + "p" * 181, id="a SPIFFE id"),
    ],
)
def test_a_value_may_be_as_large_as_its_limit_and_no_larger(kind: Any, most: object, beyond: object) -> None:
    assert taken(kind, most)
    assert not taken(kind, beyond)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Token, ["a", "eu-west-1", "0"], ["", "-a", "A", "a.b", "a b", "a\n", "é", "a*", "a>"]),
        (Name, ["a", "_x", "Payment.send", "a-b"], ["", "1a", "-a", "a b", "a\n", "a/b", "é"]),
        (Hex32, ["0" * 64], ["0" * 63, "0" * 63 + "\n", "0" * 64 + "\n", "A" * 64, "g" * 64]),
        (Hex16, ["0" * 32], ["0" * 31, "0" * 31 + "\n", "0" * 32 + "\n", "A" * 32]),
        (
            Spiffe,
            ["spiffe://mesh.example/agent", "spiffe://m/a/b/c", "spiffe://m/..a", "spiffe://m/...", "spiffe://m/a.b_c-d"],
            [
                "spiffe://m",
                "spiffe://m/",
                "spiffe:///a",
                "spiffe://m//a",
                "spiffe://m/a/",
                "spiffe://m/.",
                "spiffe://m/..",
                "spiffe://m/./a",
                "spiffe://m/a/../b",
                "spiffe://m/a/..",
                "spiffe://m/a\n",
                "spiffe://m/a b",
                "spiffe://M/a",
                "spiffe://m:1/a",
                "spiffe://u@m/a",
                "spiffe://m/a?q",
                "spiffe://m/%61",
                "http://m/a",
            ],
        ),
    ],
)
def test_words_have_their_shape(kind: Any, good: list[str], bad: list[str]) -> None:
    assert all(taken(kind, word) for word in good)
    assert not [word for word in bad if taken(kind, word)]


def test_digests_are_sha_256() -> None:
    assert canonical.sha256_hex(b"abc") == hashlib.sha256(b"abc").hexdigest()
