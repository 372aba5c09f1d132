"""Notes are C2SP's, in one spelling; only known keys are believed, and a known key that lies spoils the note."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes.keys import SecretKey
from mesh.core.log.note import (
    KEY_ID_BYTES,
    Line,
    Note,
    SignatureType,
    Verifier,
    append_lines,
    cosignature_message,
    format_lines,
    key_id,
    open_note,
    parse_lines,
    parse_note,
    verify_lines,
)
from mesh.errors import Refused
from mesh.limits import CLOCK_MS_MAX, NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, STRING_CHARS_MAX
from tests.core.kit import HOSTILE, flips, needs_vectors, refuses, secret, vectors

TEXT = b"first line\n\nthird line\n"
ALICE, BOB = secret(1), secret(2)
ALICE_PLAIN = Verifier("example.com/alice", SignatureType.PLAIN, ALICE.public)
BOB_COSIGNS = Verifier("example.com/bob", SignatureType.COSIGNATURE, BOB.public)
TIME_S_MAX = CLOCK_MS_MAX // 1000


def plain(text: bytes = TEXT, *, number: int = 1, name: str = "example.com/alice") -> Line:
    key = secret(number)
    return Line(name, key_id(name, SignatureType.PLAIN, bytes.fromhex(key.public)), key.sign(text))


def cosigned(text: bytes = TEXT, *, time_s: int = 1_234, name: str = "example.com/bob") -> Line:
    signature = BOB.sign(cosignature_message(text, time_s))
    return Line(name, key_id(name, SignatureType.COSIGNATURE, bytes.fromhex(BOB.public)), time_s.to_bytes(8, "big") + signature)


NOTE = Note(TEXT, (plain(), cosigned())).encode()


# ------------------------------------------------------------------------------------------------------------ believing


def test_a_note_is_believed_on_the_word_of_each_known_key() -> None:
    opened = open_note(NOTE, [ALICE_PLAIN, BOB_COSIGNS])
    assert opened.text == TEXT
    assert [(signed.verifier, signed.time_s) for signed in opened.signed] == [(ALICE_PLAIN, 0), (BOB_COSIGNS, 1_234)]
    assert opened.strangers == 0


def test_the_lines_of_one_name_alone_make_a_note_about_the_same() -> None:
    assert parse_note(NOTE).only("example.com/bob") == Note(TEXT, (cosigned(),))
    assert parse_note(NOTE).only("example.com/carol").lines == ()


def test_lines_of_unknown_keys_are_ignored() -> None:
    opened = open_note(NOTE, [BOB_COSIGNS])
    assert [signed.verifier for signed in opened.signed] == [BOB_COSIGNS]
    assert opened.strangers == 1


def test_sharing_only_the_name_or_only_the_key_id_is_being_unknown() -> None:
    alike = Note(TEXT, (Line("example.com/alice", b"\0\0\0\0", b"x" * 64), Line("mallory", plain().key_id, b"x" * 64), plain()))
    opened = open_note(alike.encode(), [ALICE_PLAIN])
    assert (len(opened.signed), opened.strangers) == (1, 2)


def test_a_note_without_a_known_key_is_refused() -> None:
    with refuses("bad_signature"):
        open_note(NOTE, [Verifier("example.com/alice", SignatureType.PLAIN, BOB.public)])
    with refuses("bad_signature"):
        open_note(NOTE, [])


def test_a_known_key_with_a_bad_signature_spoils_the_note() -> None:
    forged = Note(TEXT, (cosigned(), Line("example.com/alice", plain().key_id, plain(b"other\n").signature))).encode()
    with refuses("bad_signature"):
        open_note(forged, [ALICE_PLAIN, BOB_COSIGNS])
    assert open_note(forged, [BOB_COSIGNS]).strangers == 1


def test_a_known_key_may_not_sign_twice_but_strangers_may() -> None:
    again = Note(TEXT, (plain(), cosigned(time_s=1), cosigned(time_s=2))).encode()
    with refuses("malformed"):
        open_note(again, [ALICE_PLAIN, BOB_COSIGNS])
    assert open_note(again, [ALICE_PLAIN]).strangers == 2


def test_a_signature_of_one_type_is_not_one_of_the_other() -> None:
    as_plain = Line("example.com/bob", key_id("example.com/bob", SignatureType.PLAIN, bytes.fromhex(BOB.public)), cosigned().signature[8:])
    with refuses("bad_signature"):
        open_note(Note(TEXT, (as_plain,)).encode(), [Verifier("example.com/bob", SignatureType.PLAIN, BOB.public)])
    untimed = Line("example.com/bob", cosigned().key_id, BOB.sign(TEXT))
    with refuses("bad_signature"):
        open_note(Note(TEXT, (untimed,)).encode(), [BOB_COSIGNS])


def test_the_time_of_a_cosignature_is_signed() -> None:
    later = (1_235).to_bytes(8, "big") + cosigned().signature[8:]
    with refuses("bad_signature"):
        open_note(Note(TEXT, (Line("example.com/bob", cosigned().key_id, later),)).encode(), [BOB_COSIGNS])


@pytest.mark.parametrize("time_s", [0, TIME_S_MAX])
def test_a_time_within_the_calendar_is_believed(time_s: int) -> None:
    assert open_note(Note(TEXT, (cosigned(time_s=time_s),)).encode(), [BOB_COSIGNS]).signed[0].time_s == time_s


@pytest.mark.parametrize("time_s", [TIME_S_MAX + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_time_past_the_calendar_is_refused(time_s: int) -> None:
    with refuses("bad_signature"):
        open_note(Note(TEXT, (cosigned(time_s=time_s),)).encode(), [BOB_COSIGNS])


def twins(name: str) -> list[Verifier]:
    seen: dict[bytes, bytes] = {}
    for number in range(1 << 20):  # an id has four bytes: two keys of one id turn up after some 2^16
        public = hashlib.sha256(b"%d" % number).digest()
        other = seen.setdefault(key_id(name, SignatureType.PLAIN, public), public)
        if other != public:
            return [Verifier(name, SignatureType.PLAIN, key.hex()) for key in (public, other)]
    pytest.fail("no two keys of one id")


def test_two_keys_that_answer_to_one_id_are_refused() -> None:
    one, other = twins("twin")
    assert one.key_id == other.key_id
    with refuses("bad_key"):
        open_note(NOTE, [one, other])
    assert open_note(NOTE, [ALICE_PLAIN, ALICE_PLAIN]).signed[0].verifier == ALICE_PLAIN


def test_a_line_is_judged_only_by_its_own_key() -> None:
    with refuses("bad_signature"):
        Verifier("someone/else", SignatureType.PLAIN, ALICE.public).verify(TEXT, plain())


def test_lines_that_arrive_alone_are_verified_over_their_text() -> None:
    answer = format_lines([cosigned(), plain(name="stranger")])
    assert [signed.line for signed in verify_lines(TEXT, parse_lines(answer), [BOB_COSIGNS])] == [cosigned()]
    with refuses("bad_signature"):
        verify_lines(b"another\n", parse_lines(answer), [BOB_COSIGNS])


def test_every_changed_byte_of_a_note_is_noticed() -> None:
    for changed in flips(NOTE):
        with refuses("malformed", "non_canonical", "bad_signature"):
            opened = open_note(changed, [ALICE_PLAIN, BOB_COSIGNS])
            if opened.strangers:  # the name of a key may be changed: then its line says nothing any more
                raise Refused("bad_signature")


# -------------------------------------------------------------------------------------------------------------- reading


def test_a_note_survives_its_own_encoding() -> None:
    note = parse_note(NOTE)
    assert note.text == TEXT
    assert note.lines == (plain(), cosigned())
    assert note.encode() == NOTE


NAMES = st.text(min_size=1, max_size=20).filter(lambda name: re.fullmatch(r"[^\s+\x00-\x20]+", name) and name.isprintable())
LINES = st.builds(Line, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n"), max_size=60).map(lambda text: f"{text}\n".encode())


@given(TEXTS, st.lists(LINES, min_size=1, max_size=5))
def test_any_note_survives_its_own_encoding(text: bytes, lines: list[Line]) -> None:
    note = Note(text, tuple(lines))
    assert parse_note(note.encode()) == note


@given(HOSTILE)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    for read in (parse_note, parse_lines, lambda data: open_note(data, [ALICE_PLAIN])):
        try:
            read(data)
        except Refused:
            continue
        assert parse_lines(data), "only well-formed lines may pass"


@given(st.integers(0, len(NOTE)), st.integers(0, len(NOTE)), HOSTILE)
def test_spliced_notes_raise_only_our_error(start: int, end: int, data: bytes) -> None:
    spliced = NOTE[:start] + data + NOTE[end:]
    try:
        opened = open_note(spliced, [ALICE_PLAIN, BOB_COSIGNS])
    except Refused:
        return
    assert opened.text == TEXT


SIG = base64.b64encode(b"\0\0\0\0sig").decode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        b"text\n\n\n",
        f"text\n— a {SIG}\n".encode(),  # no empty line
        f"text\n\n— a {SIG}".encode(),  # no final newline
        f"text\n\n— a {SIG}\n\n".encode(),  # an empty line below the signatures
        f"text\n\n- a {SIG}\n".encode(),  # another dash
        f"text\n\n—a {SIG}\n".encode(),
        f"text\n\n—  {SIG}\n".encode(),  # no name
        f"text\n\n— a+b {SIG}\n".encode(),
        f"text\n\n— a\u00a0b {SIG}\n".encode(),  # a space that is not ASCII
        f"text\n\n— a\u2003b {SIG}\n".encode(),
        f"text\n\n— a  {SIG}\n".encode(),
        f"text\n\n— a {SIG} \n".encode(),
        f"text\n\n— a {SIG[:-1]}\n".encode(),  # padding cut off
        f"text\n\n— a {SIG.replace('=', '')}é\n".encode(),
        "text\n\n— a AAAAAA==\n".encode(),  # a key id without a signature
        "text\n\n— a \n".encode(),
        f"te\rxt\n\n— a {SIG}\n".encode(),
        f"te\txt\n\n— a {SIG}\n".encode(),
        f"te\0xt\n\n— a {SIG}\n".encode(),
        b"te\xffxt\n\n" + f"— a {SIG}\n".encode(),
        b"te\xed\xa0\x80xt\n\n" + f"— a {SIG}\n".encode(),  # a lone surrogate
    ],
)
def test_what_is_not_a_note_is_malformed(data: bytes) -> None:
    with refuses("malformed"):
        parse_note(data)


def test_stray_bits_in_base64_are_another_spelling() -> None:
    strict = base64.b64encode(b"\0\0\0\0s").decode()
    assert strict == "AAAAAHM="
    parse_note(f"text\n\n— a {strict}\n".encode())
    with refuses("non_canonical"):
        parse_note("text\n\n— a AAAAAHN=\n".encode())


def test_the_text_ends_at_the_last_empty_line() -> None:
    inner = Note(b"inner\n", (plain(b"inner\n"),)).encode()
    outer = Note(inner, (cosigned(inner),))
    assert open_note(outer.encode(), [BOB_COSIGNS]).text == inner
    assert parse_note(f"\n\n— a {SIG}\n".encode()).text == b"\n"


def test_a_note_may_be_as_long_as_its_limit() -> None:
    tail = Note(b"\n", (plain(),)).encode()
    longest = b"x" * (NOTE_BYTES_MAX - len(tail)) + tail
    assert len(parse_note(longest).encode()) == NOTE_BYTES_MAX
    with refuses("too_large"):
        parse_note(b"x" + longest)
    with refuses("too_large"):
        parse_lines(b"x" * (NOTE_BYTES_MAX + 1))


def test_a_note_may_have_as_many_lines_as_its_limit() -> None:
    lines = tuple(plain(name=f"key{number}") for number in range(NOTE_SIGNATURES_MAX + 1))
    assert len(parse_note(Note(TEXT, lines[:-1]).encode()).lines) == NOTE_SIGNATURES_MAX
    with refuses("too_large"):
        parse_note(Note(TEXT, lines).encode())


# --------------------------------------------------------------------------------------------------------------- adding


def test_lines_are_added_below_those_already_there() -> None:
    note = Note(TEXT, (plain(),)).encode()
    assert append_lines(note, [cosigned()]) == NOTE
    assert append_lines(NOTE, [cosigned(), plain()]) == NOTE, "one that stands there is not doubled"
    assert append_lines(NOTE, []) == NOTE


def test_no_key_gets_a_second_line() -> None:
    with refuses("malformed"):
        append_lines(NOTE, [cosigned(time_s=9)])


def test_lines_are_added_up_to_the_limits() -> None:
    lines = [plain(name=f"key{number}") for number in range(NOTE_SIGNATURES_MAX)]
    assert len(parse_note(append_lines(Note(TEXT, (plain(),)).encode(), lines[1:])).lines) == NOTE_SIGNATURES_MAX
    with refuses("too_large"):
        append_lines(Note(TEXT, (plain(),)).encode(), lines)
    tail = Note(b"\n", (plain(),)).encode()
    longest = b"x" * (NOTE_BYTES_MAX - len(tail)) + tail
    with refuses("too_large"):
        append_lines(longest, [cosigned()])


# ----------------------------------------------------------------------------------------------------------------- keys


def test_a_verifier_key_survives_its_own_text() -> None:
    for verifier in (ALICE_PLAIN, BOB_COSIGNS):
        assert Verifier.from_vkey(verifier.vkey) == verifier


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\n", "\ud800"])
def test_a_key_has_no_name_that_could_not_stand_in_a_line(name: str) -> None:
    with refuses("malformed"):
        Verifier(name, SignatureType.PLAIN, ALICE.public)


@pytest.mark.parametrize("key", ["", "00", ALICE.public.upper(), ALICE.public + "\n", ALICE.public + "00", "zz" * 32])
def test_a_key_is_32_bytes_in_lowercase_hex(key: str) -> None:
    with refuses("bad_key"):
        Verifier("name", SignatureType.PLAIN, key)


def test_only_the_whole_of_a_verifier_key_is_one() -> None:
    vkey = ALICE_PLAIN.vkey
    for start in range(len(vkey)):
        for end in range(start + 1, len(vkey) + 1):
            if (start, end) != (0, len(vkey)):
                with refuses("malformed", "bad_key"):
                    Verifier.from_vkey(vkey[start:end])


def test_every_changed_character_of_a_verifier_key_is_noticed() -> None:
    vkey = ALICE_PLAIN.vkey
    for at, char in enumerate(vkey):
        with refuses("malformed", "bad_key"):
            Verifier.from_vkey(vkey[:at] + chr(ord(char) + 1) + vkey[at + 1 :])


def test_only_keys_for_known_types_are_taken() -> None:
    for kind in (0x00, 0x02, 0x05, 0x06, 0xFF):
        public = bytes.fromhex(ALICE.public)
        text = f"a+{key_id('a', kind, public).hex()}+{base64.b64encode(bytes([kind]) + public).decode()}"
        with refuses("bad_key"):
            Verifier.from_vkey(text)


def test_no_key_of_small_order_is_taken() -> None:
    point = bytes([1]) + bytes(31)  # the identity: one constant signature fits every message
    text = f"a+{key_id('a', 1, point).hex()}+{base64.b64encode(bytes([1]) + point).decode()}"
    with refuses("bad_key"):
        Verifier.from_vkey(text)


def test_a_verifier_key_may_be_as_long_as_a_string() -> None:
    rest = len(ALICE_PLAIN.vkey) - len(ALICE_PLAIN.name)
    longest = Verifier("n" * (STRING_CHARS_MAX - rest), SignatureType.PLAIN, ALICE.public)
    assert len(longest.vkey) == STRING_CHARS_MAX
    assert Verifier.from_vkey(longest.vkey) == longest
    with refuses("too_large"):
        Verifier.from_vkey(Verifier("n" * (STRING_CHARS_MAX - rest + 1), SignatureType.PLAIN, ALICE.public).vkey)


# -------------------------------------------------------------------------------------------------------------- vectors


@needs_vectors
def test_published_notes_are_believed() -> None:
    notes = vectors("notes/tlog-notes.json")["notes"]
    assert len(notes) == 9
    for case in notes:
        name, written, material = case["vkey"].split("+", 2)
        raw = base64.b64decode(material)
        assert key_id(name, raw[0], raw[1:]).hex() == written, case["id"]
        if "note" in case:  # the one without is a key that is no point, published for its id
            verifier = Verifier.from_vkey(case["vkey"])
            opened = open_note(case["note"].encode(), [verifier])
            assert [signed.verifier for signed in opened.signed] == [verifier], case["id"]


@needs_vectors
def test_published_bad_keys_are_refused() -> None:
    bad = vectors("notes/tlog-notes.json")["negative"]["bad_vkeys"]
    assert len(bad) == 2
    for vkey in bad:
        with refuses("malformed", "bad_key"):
            Verifier.from_vkey(vkey)


@needs_vectors
def test_a_published_cosignature_is_made_anew_byte_for_byte() -> None:
    case = next(case for case in vectors("notes/tlog-notes.json")["notes"] if "cosignature-v1 (seed" in case["id"])
    note = parse_note(case["note"].encode())
    message = cosignature_message(note.text, 1_234)
    assert note.lines[0].signature == (1_234).to_bytes(8, "big") + SecretKey(bytes.fromhex(case["seed_hex"])).sign(message)
    assert len(note.lines[0].key_id) == KEY_ID_BYTES


@needs_vectors
def test_a_published_signature_is_made_anew_byte_for_byte() -> None:
    case = next(case for case in vectors("notes/tlog-notes.json")["notes"] if "EnochRoot" in case["id"])
    note = parse_note(case["note"].encode())
    assert note.lines[1].signature == SecretKey(bytes.fromhex(case["seed_hex"])).sign(note.text)
