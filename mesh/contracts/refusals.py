"""Bytes that must be refused, each for one reason only: everything else about them is right, signatures included.

Rules
-----
1. A case names a procedure of the README beside the vectors, what goes into it, the code that must come out, and the bug that lets it pass.
2. Bad payloads are signed as they stand, so that nobody refuses them for their signature.

Not here: logs (:mod:`mesh.contracts.logrefusals`), running the cases (a test does, and so does any other implementation).
"""

import base64
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from mesh.contracts.example import OPENING, Signed, key
from mesh.contracts.story import story
from mesh.core.bytes.envelope import KINDS, assemble, pae
from mesh.limits import INTENT_BYTES_MAX

__all__ = ["Case", "changed", "statement_cases", "text"]

_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of the Ed25519 group (RFC 8032, section 5.1)."""
_SMALL_ORDER: Final = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
"""A point of order 2."""
_IDENTITY: Final = "01" + "00" * 31
_BEYOND_P: Final = "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
"""y = p + 3: on the curve once reduced, but a second spelling of that point."""
_NO_POINT: Final = "02" + "00" * 31


class Case(msgspec.Struct, frozen=True):
    """One vector that must be refused."""

    name: str
    procedure: str
    input: dict[str, Any]
    code: str
    catches: str
    """One line: which bug lets it pass."""

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"refused/{self.name}_refused.json"


def text(data: bytes) -> str:
    """Bytes as a vector carries them."""
    return base64.b64encode(data).decode()


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    """``data`` with the one place that reads ``old`` replaced: a vector that did not change would test nothing."""
    if data.count(old) != 1:
        msg = f"{old!r} stands {data.count(old)} times"
        raise ValueError(msg)
    return data.replace(old, new)


def _intent() -> Signed:
    return _named("intent")


def _named(name: str) -> Signed:
    return next(item for item in story().statements if item.name == name)


def _sealed(payload: bytes, kind: str = "intent", *signers: str) -> bytes:
    signing = [key(name) for name in signers or ("workload",)]
    message = pae(KINDS[kind].payload_type, payload)
    return assemble(KINDS[kind].payload_type, payload, {one.public: one.sign(message) for one in signing})


def _read(data: bytes, kind: str = "intent") -> dict[str, Any]:
    return {"kind": kind, "envelope": text(data)}


def statement_cases() -> Iterator[Case]:
    """Everything about payloads, envelopes, signatures and keys."""
    yield from _payloads()
    yield from _envelopes()
    yield from _signatures()
    yield from _keys()
    yield from _rosters()


def _payloads() -> Iterator[Case]:
    body = _intent().draft.payload

    def case(name: str, payload: bytes, code: str, catches: str) -> Case:
        return Case(name, "read", _read(_sealed(payload)), code, catches)

    def cut(old: bytes, new: bytes) -> bytes:
        return changed(body, old, new)

    amount = b'"amount_cents":124900'
    yield case("space", cut(amount, b'"amount_cents": 124900'), "non_canonical", "parsing and re-serialising before hashing")
    yield case("key_order", _swapped(body), "non_canonical", "hashing a map in its arrival order")
    yield case(
        "duplicate_key", cut(amount, b'"amount_cents":1,' + amount), "non_canonical", "first wins here, last wins there: two amounts"
    )
    yield case("escape", cut(b'"mesh":"example"', b'"mesh":"\\u0065xample"'), "non_canonical", "two spellings of one string")
    yield case("trailing_newline", body + b"\n", "non_canonical", "a reader that stops at the closing brace")
    yield case("trailing_value", body + b"{}", "malformed", "a reader that takes the first of two values")
    yield case("minus_zero", cut(amount, b'"amount_cents":-0'), "non_canonical", "-0 read as 0 and written back as 0")
    yield case("float", cut(amount, b'"amount_cents":124900.5'), "malformed", "amounts as binary floating point")
    yield case("whole_float", cut(amount, b'"amount_cents":124900.0'), "malformed", "124900.0 taken for an integer")
    yield case("exponent", cut(amount, b'"amount_cents":1249e2'), "malformed", "an exponent taken for an integer")
    yield case("huge_integer", cut(amount, b'"amount_cents":9007199254740992'), "malformed", "rounding past 2^53")
    yield case("null", cut(b'"purpose":"pay what is due"', b'"purpose":null'), "malformed", "null as a twin of absent")
    yield case("unknown_field", cut(b'"action":"send"', b'"action":"send","also":1'), "malformed", "an unread restriction")
    yield case("missing_field", cut(b'"assurance_min":"local",', b""), "malformed", "a default that nobody signed")
    yield case("newline_in_name", cut(b'"mesh":"example"', b'"mesh":"example\\n"'), "malformed", "$ that matches before a final newline")
    yield case("not_utf8", cut(b"pay what", b"pay\xff what"), "malformed", "replacing what cannot be decoded")
    yield case("deep", b"[" * 12_000, "malformed", "a parser whose stack follows the input")
    yield case("long", body + b" " * (INTENT_BYTES_MAX + 1 - len(body)), "too_large", "parsing before measuring")


def _swapped(body: bytes) -> bytes:
    first, second = b'"action":"send",', b'"assurance_min":"local",'
    return changed(changed(body, first, b""), second, second + first)


def _envelopes() -> Iterator[Case]:
    good = _intent().envelope
    public = key("workload").public.encode()
    line = good[good.index(b'{"keyid"') : good.index(b"]}")]
    signature = line[line.index(b'"sig":"') + 7 : -2]

    def case(name: str, data: bytes, code: str, catches: str, kind: str = "intent") -> Case:
        return Case(name, "read", _read(data, kind), code, catches)

    yield case("envelope_space", good + b" ", "non_canonical", "two byte strings of one statement, stored twice")
    yield case("envelope_member", good[:-1] + b',"until_ms":1}', "malformed", "an unread restriction")
    yield case("doubled_signature", changed(good, line, line + b"," + line), "non_canonical", "one key counted twice")
    yield case("unsorted_signatures", _unsorted(), "non_canonical", "an envelope whose bytes depend on who signed first", "roster")
    yield case("stray_bits", changed(good, signature, _stray(signature)), "non_canonical", "base64 that ignores its last bits")
    yield case("base64url", _urlsafe(), "malformed", "accepting two alphabets")
    yield case("short_signature", changed(good, signature, signature[:-4]), "malformed", "a length taken from the input")
    yield case("upper_case_key", changed(good, public, public.upper()), "malformed", "one key under two ids")
    yield case("wrong_kind", _named("authorization").envelope, "wrong_kind", "one kind read as another")


def _unsorted() -> bytes:
    good = _named("roster").envelope
    start, end = good.index(b'{"keyid"'), good.index(b"]}")
    lines = good[start + 1 : end - 1].split(b"},{")
    return good[: start + 1] + b"},{".join(reversed(lines)) + good[end - 1 :]


def _stray(encoded: bytes) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(encoded[-3]) ^ 1
    return encoded[:-3] + alphabet[last : last + 1] + encoded[-2:]


def _urlsafe() -> bytes:
    for item in story().statements:
        start = item.envelope.index(b'"sig":"') + 7
        sig = item.envelope[start : item.envelope.index(b'"', start)]
        if item.kind == "intent" and (b"+" in sig or b"/" in sig):
            return changed(item.envelope, sig, sig.replace(b"+", b"-").replace(b"/", b"_"))
    raise LookupError


def _signatures() -> Iterator[Case]:
    intent = _intent()
    body, message = intent.draft.payload, intent.draft.message
    holder = key("workload")
    kind = intent.draft.payload_type

    def case(name: str, data: bytes, catches: str, public: str = holder.public) -> Case:
        return Case(name, "verify", {**_read(data), "key": public}, "bad_signature", catches)

    good = holder.sign(message)
    more = (int.from_bytes(good[32:], "little") + _ORDER).to_bytes(32, "little")
    other = changed(body, b"124900", b"924900")
    forged = bytes.fromhex(_IDENTITY) + bytes(32)
    yield case("changed_payload", assemble(kind, other, {holder.public: good}), "believing a signature over something else")
    yield case("malleable_s", assemble(kind, body, {holder.public: good[:32] + more}), "S is not checked against the group order")
    yield case("bare_payload", assemble(kind, body, {holder.public: holder.sign(body)}), "signing without the payload type")
    yield case(
        "other_type",
        assemble(kind, body, {holder.public: holder.sign(pae(KINDS["possession"].payload_type, body))}),
        "a signature given for one purpose used for another",
    )
    yield case("small_order_signature", assemble(kind, body, {_SMALL_ORDER: forged}), "one signature for every message", _SMALL_ORDER)
    yield case("nobody_signed", assemble(kind, body, {}), "counting no signature as no objection")


def _keys() -> Iterator[Case]:
    def case(name: str, public: str, catches: str) -> Case:
        return Case(name, "admit_key", {"key": public}, "bad_key", catches)

    yield case("small_order_key", _SMALL_ORDER, "a key under which one signature fits half of all messages")
    yield case("identity_key", _IDENTITY, "a key under which one signature fits every message")
    yield case("key_beyond_p", _BEYOND_P, "two spellings of one key, counted as two")
    yield case("no_point", _NO_POINT, "a key that is found out only when something is to be verified")
    yield case("key_in_capitals", key("workload").public.upper(), "two spellings of one key, counted as two")


def _rosters() -> Iterator[Case]:
    body = _named("roster").draft.payload
    root = [key(f"root-{number}").public for number in (1, 2, 3)]

    def roots(payload: bytes) -> bytes:
        return _sealed(payload, "roster", "root-1", "root-3")

    yield Case(
        "unsound_quorum",
        "read",
        _read(roots(changed(body, b'"k":3', b'"k":2')), "roster"),
        "roster_unsound",
        "two quorums without an honest member in common",
    )
    yield Case(
        "roster_small_order_key",
        "read",
        _read(roots(changed(body, root[1].encode(), _SMALL_ORDER.encode())), "roster"),
        "bad_key",
        "keys that are checked at verification only",
    )
    yield Case(
        "roster_one_key_twice",
        "read",
        _read(roots(changed(body, root[1].encode(), root[2].encode())), "roster"),
        "bad_key",
        "one person who counts as two",
    )
    yield Case(
        "one_signature_of_two",
        "threshold",
        {**_read(_sealed(body, "roster", "root-1"), "roster"), "keys": root, "threshold": 2},
        "threshold_not_met",
        "any signature taken for enough",
    )
    yield Case(
        "one_key_listed_twice",
        "threshold",
        {**_read(_sealed(body, "roster", "root-1"), "roster"), "keys": [root[0], root[0]], "threshold": 2},
        "threshold_not_met",
        "counting entries of a list instead of keys",
    )
    opened = {"name": OPENING.name, "salt": OPENING.salt, "value": "invoice 4712"}
    yield Case(
        "other_opening",
        "open",
        {"committed": {OPENING.name: _commitment()}, "openings": [opened]},
        "opening_mismatch",
        "policy deciding on a value that nobody signed",
    )


def _commitment() -> str:
    return str(msgspec.json.decode(_intent().draft.payload)["committed"][OPENING.name])
