"""Subjects: spelled in one place, closed to text from outside."""

import hashlib
from collections.abc import Callable

import pytest

from mesh.core import subjects
from mesh.errors import Refused

ONE = [subjects.hb, subjects.law, subjects.sync]
TWO = [
    subjects.outcome,
    subjects.quorum,
    subjects.lineage,
    subjects.checkpoint,
    subjects.cosig,
    subjects.law_stored,
    subjects.fraud,
    subjects.ctl,
]
REGIONAL = [subjects.outcome, subjects.quorum, subjects.lineage, subjects.checkpoint, subjects.cosig, subjects.law_stored, subjects.fraud]
HOSTILE = ["", "a.b", "*", ">", "a b", "a\n", "\r\nPUB x 0", "A", "é", "_", "a" * 33, "$js"]


def test_subjects_are_spelled_as_the_protocol_says() -> None:
    assert subjects.intent("eu", "acme", "billing") == "mesh.v1.eu.intent.acme.billing"
    assert subjects.outcome("eu", "e1") == "mesh.v1.eu.outcome.e1"
    assert subjects.quorum("eu", "g1") == "mesh.v1.eu.quorum.g1"
    assert subjects.lineage("eu", "g1") == "mesh.v1.eu.lineage.g1"
    assert subjects.checkpoint("eu", "g1") == "mesh.v1.eu.checkpoint.g1"
    assert subjects.cosig("eu", "g1") == "mesh.v1.eu.cosig.g1"
    assert subjects.law_stored("eu", "abc") == "mesh.v1.eu.law.abc"
    assert subjects.fraud("eu", "g1") == "mesh.v1.eu.fraud.g1"
    assert subjects.hb("g1") == "mesh.v1.hb.g1"
    assert subjects.law("abc") == "mesh.v1.law.abc"
    assert subjects.sync("g1") == "mesh.v1.sync.g1"
    assert subjects.ctl("g1", "drain") == "mesh.v1.ctl.g1.drain"


@pytest.mark.parametrize("token", HOSTILE)
def test_no_text_from_outside_becomes_a_token(token: str) -> None:
    calls: list[Callable[[], str]] = [lambda build=build: build(token) for build in ONE]  # type: ignore[misc]
    calls += [lambda build=build: build("eu", token) for build in TWO]  # type: ignore[misc]
    calls += [lambda build=build: build(token, "g1") for build in TWO]  # type: ignore[misc]
    calls += [
        lambda: subjects.intent("eu", token, "w"),
        lambda: subjects.intent("eu", "t", token),
        lambda: subjects.intent(token, "t", "w"),
    ]
    for call in calls:
        with pytest.raises(Refused) as no:
            call()
        assert no.value.code == "malformed"


def test_a_token_of_32_characters_is_the_longest() -> None:
    assert subjects.hb("a" * 32).endswith("a" * 32)


@pytest.mark.parametrize("word", ["hb", "law", "sync", "ctl"])
def test_no_region_is_called_like_a_word_of_the_plan(word: str) -> None:
    for build in REGIONAL:
        with pytest.raises(Refused):
            build(word, "g1")
    with pytest.raises(Refused):
        subjects.intent(word, "t", "w")


def test_a_subscriber_may_ask_for_all_but_a_star_from_outside_is_refused() -> None:
    assert subjects.intent("eu", subjects.ANY, subjects.ANY) == "mesh.v1.eu.intent.*.*"
    assert subjects.lineage(subjects.ANY, subjects.ANY) == "mesh.v1.*.lineage.*"
    with pytest.raises(Refused):
        subjects.hb("*")


def test_short_names_are_tokens_and_130_bits_of_the_hash() -> None:
    name = "spiffe://mesh/agent/billing"
    token = subjects.short(name)
    assert subjects.hb(token) == f"mesh.v1.hb.{token}"
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    value = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") >> (256 - 130)
    assert token == "".join(alphabet[(value >> shift) & 31] for shift in range(125, -1, -5))


def test_what_no_stream_binds_is_urgent_and_nothing_else_is() -> None:
    urgent = [subjects.hb("eu-1"), subjects.law(subjects.short("roster")), subjects.sync("eu-1"), subjects.ctl("eu-1", "drain")]
    rest = [
        subjects.intent("eu", "demo", "w"),
        subjects.outcome("eu", "gate"),
        subjects.lineage("eu", "eu-1"),
        subjects.law_stored("eu", "x"),
    ]
    assert [subject for subject in (*urgent, *rest) if subjects.is_urgent(subject)] == urgent
