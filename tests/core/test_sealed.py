"""What is sealed opens for its auditors, as it was signed, or says what is wrong: with the key, with the box, or with who asked."""

import pickle

import msgspec
import pytest
from nacl import bindings
from nacl.public import PrivateKey, SealedBox

from mesh.adapters.sealer import seal
from mesh.core.bytes.sealkeys import OVERHEAD_BYTES, SealKey, admit_seal_key
from mesh.core.run.params import Opening, commit
from mesh.core.run.sealed import Box, Seal, box_hash, check_boxes, content, open_box, told
from mesh.errors import Refused
from mesh.limits import SEALED_BOX_BYTES_MAX, SEALED_BOXES_BYTES_MAX, STRING_CHARS_MAX
from tests.core.kit import refuses
from tests.support.factory import AUDITORS, secret
from tests.support.sealed import hidden

HOLDER = secret("a workload").public
FINANCE, TAX = AUDITORS["finance"], AUDITORS["tax"]
SMALL_ORDER = ["00" * 32, "01" + "00" * 31, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"]


def _sealed(opening: Opening) -> tuple[dict[str, list[Seal]], list[Box], dict[str, str]]:
    seals, boxes = seal(opening, {name: key.public for name, key in AUDITORS.items()}, holder=HOLDER)
    return {opening.name: seals}, boxes, {opening.name: commit(opening)}


def _with(data: bytes) -> tuple[dict[str, list[Seal]], list[Box], dict[str, str]]:
    """A seal and a box of these bytes, whatever they are."""
    seal_ = Seal(auditor="finance", key=FINANCE.public, box=box_hash(data))
    return {"payee": [seal_]}, [Box(name="payee", auditor="finance", box=data.hex())], {"payee": commit(hidden())}


def _for_finance(data: bytes) -> bytes:
    return bindings.crypto_box_seal(data, bytes.fromhex(FINANCE.public))


# -------------------------------------------------------------------------------------------------------------- it opens


@pytest.mark.parametrize("value", ["Ada", "", 7, True, ["a", 1], "\x80\x00", "é" * STRING_CHARS_MAX])
def test_each_auditor_opens_what_was_signed(value: object) -> None:
    opening = hidden(value)
    sealed, boxes, committed = _sealed(opening)
    check_boxes(sealed, boxes)
    for key in (FINANCE, TAX):
        assert open_box(sealed, committed, boxes, "payee", key, holder=HOLDER) == opening


def test_boxes_are_those_of_libsodium() -> None:
    """Whoever has any binding of it opens them; what it seals opens here."""
    _, boxes, _ = _sealed(hidden())
    seed = bytes(range(32))
    sealed_here = seal(hidden(), {"me": SealKey(seed).public}, holder=HOLDER)[1][0]
    assert SealedBox(PrivateKey(seed)).decrypt(bytes.fromhex(sealed_here.box)) == content(hidden(), HOLDER)
    assert SealKey(seed).open(SealedBox(PrivateKey(seed).public_key).encrypt(b"anything")) == b"anything"
    assert SealKey(seed).open(bytes.fromhex(boxes[0].box)) is None


def test_the_same_value_never_makes_the_same_box_twice() -> None:
    assert _sealed(hidden())[1] != _sealed(hidden())[1]


def test_a_box_does_not_tell_the_length_of_a_short_value() -> None:
    sizes = {len(_sealed(hidden("x" * length))[1][0].box) for length in range(130)}
    assert sizes == {2 * (256 + OVERHEAD_BYTES)}


def test_the_longest_string_fits_into_a_box_and_a_longer_list_does_not() -> None:
    longest = hidden("\U0001f511" * STRING_CHARS_MAX)
    assert len(content(longest, HOLDER)) + OVERHEAD_BYTES == SEALED_BOX_BYTES_MAX
    sealed, boxes, committed = _sealed(longest)
    assert open_box(sealed, committed, boxes, "payee", TAX, holder=HOLDER) == longest
    with refuses("too_large"):
        content(hidden(["\U0001f511" * STRING_CHARS_MAX, "x" * 300]), HOLDER)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "payee", "auditor": "tax", "box": "00" * (SEALED_BOX_BYTES_MAX + 1)}, Box)


def test_it_is_said_in_words_for_whom() -> None:
    assert told(_sealed(hidden())[0]) == "payee for finance, tax"
    assert told({}) == ""


# ----------------------------------------------------------------------------------------------- the boxes on their way


def test_only_exactly_the_boxes_that_are_named_pass() -> None:
    sealed, boxes, _ = _sealed(hidden())
    one, other = boxes
    for wrong in ([], [one], [other, one], [one, one], [one, other, other], [one, msgspec.structs.replace(other, name="payer")]):
        with refuses("box_mismatch"):
            check_boxes(sealed, wrong)
    with refuses("box_mismatch"):
        check_boxes({}, boxes)
    check_boxes({}, [])


def test_a_swapped_box_is_found() -> None:
    """The box of the other auditor, and that of another intent."""
    sealed, (one, other), committed = _sealed(hidden())
    swapped = [msgspec.structs.replace(one, box=other.box), msgspec.structs.replace(other, box=one.box)]
    elsewhere = _sealed(hidden())[1]
    for boxes in (swapped, elsewhere):
        with refuses("box_mismatch"):
            check_boxes(sealed, boxes)
        with refuses("box_mismatch"):
            open_box(sealed, committed, boxes, "payee", FINANCE, holder=HOLDER)


@pytest.mark.parametrize("left", [0, 1, OVERHEAD_BYTES - 1, OVERHEAD_BYTES, OVERHEAD_BYTES + 255])
def test_a_truncated_box_is_found(left: int) -> None:
    sealed, (one, other), committed = _sealed(hidden())
    cut = [msgspec.structs.replace(one, box=one.box[: 2 * left]), other]
    with refuses("box_malformed"):
        check_boxes(sealed, cut)
    with refuses("box_malformed"):
        open_box(sealed, committed, cut, "payee", FINANCE, holder=HOLDER)


def test_one_changed_byte_of_a_box_is_found() -> None:
    sealed, (one, other), _ = _sealed(hidden())
    data = bytes.fromhex(one.box)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with refuses("box_mismatch"):
            check_boxes(sealed, [msgspec.structs.replace(one, box=changed.hex()), other])


def test_boxes_together_are_bounded() -> None:
    most = bytes(SEALED_BOX_BYTES_MAX)
    count = SEALED_BOXES_BYTES_MAX // SEALED_BOX_BYTES_MAX
    rest = bytes((SEALED_BOXES_BYTES_MAX - count * SEALED_BOX_BYTES_MAX - OVERHEAD_BYTES) // 256 * 256 + OVERHEAD_BYTES)

    def check(*data: bytes) -> None:
        sealed = {f"p{at}": [Seal(auditor="tax", key=TAX.public, box=box_hash(one))] for at, one in enumerate(data)}
        check_boxes(sealed, [Box(name=f"p{at}", auditor="tax", box=one.hex()) for at, one in enumerate(data)])

    check(*[most] * count, rest)
    with refuses("too_large"):
        check(*[most] * count, rest + bytes(256))


# --------------------------------------------------------------------------------------------------------- who finds what


def test_another_key_finds_nothing_sealed_for_it() -> None:
    sealed, boxes, committed = _sealed(hidden())
    for key, name in ((SealKey(bytes(range(32))), "payee"), (FINANCE, "payer")):
        with refuses("not_sealed_for"):
            open_box(sealed, committed, boxes, name, key, holder=HOLDER)


def test_a_box_that_is_not_here_is_no_lie_of_who_asked() -> None:
    sealed, boxes, committed = _sealed(hidden())
    with refuses("box_mismatch"):
        open_box(sealed, committed, boxes[1:], "payee", FINANCE, holder=HOLDER)


@pytest.mark.parametrize(
    "data",
    [
        bytes(256 + OVERHEAD_BYTES),
        bindings.crypto_box_seal(content(hidden(), HOLDER), bytes.fromhex(TAX.public)),
        _for_finance(bytes(256)),
        _for_finance(b"\x80" + bytes(511)),
        _for_finance(b"{}".ljust(255, b" ") + b"\x80"),
        _for_finance(content(hidden(), HOLDER)[:-1] + b"x"),
        _for_finance(b'{"name":"payee","salt":"00","value":1}\x80'.ljust(256, b"\0")),
    ],
)
def test_sealed_rubbish_is_found_by_its_auditor_and_by_nobody_else(data: bytes) -> None:
    sealed, boxes, committed = _with(data)
    check_boxes(sealed, boxes)
    with refuses("sealed_rubbish"):
        open_box(sealed, committed, boxes, "payee", FINANCE, holder=HOLDER)


@pytest.mark.parametrize("opening", [hidden("somebody else"), hidden(number=2), Opening(name="payer", salt=hidden().salt, value="x")])
def test_another_value_than_the_one_committed_to_is_found_by_its_auditor(opening: Opening) -> None:
    sealed, boxes, committed = _with(_for_finance(content(opening, HOLDER)))
    check_boxes(sealed, boxes)
    with refuses("sealed_falsely"):
        open_box(sealed, committed, boxes, "payee", FINANCE, holder=HOLDER)


def test_a_box_that_was_copied_into_somebody_elses_intent_says_so() -> None:
    sealed, boxes, committed = _sealed(hidden())
    with refuses("sealed_falsely"):
        open_box(sealed, committed, boxes, "payee", FINANCE, holder=secret("who copied it").public)


def test_what_is_sealed_and_commits_to_nothing_opens_for_nobody() -> None:
    sealed, boxes, _ = _sealed(hidden())
    with refuses("sealed_falsely"):
        open_box(sealed, {}, boxes, "payee", FINANCE, holder=HOLDER)


# ------------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("public", [*SMALL_ORDER, "", "ab", "zz" * 32, FINANCE.public.upper(), FINANCE.public + "00"])
def test_a_key_for_which_anybody_could_open_is_none(public: str) -> None:
    for admit in (admit_seal_key, lambda key: seal(hidden(), {"finance": key}, holder=HOLDER)):
        with refuses("bad_key"):
            admit(public)
    assert admit_seal_key(FINANCE.public) == bytes.fromhex(FINANCE.public)


def test_a_key_has_one_spelling() -> None:
    """What is sealed for another spelling of a key, that key does not open; and one auditor could stand there as two."""
    public = bytes.fromhex(FINANCE.public)
    for other in (public[:31] + bytes([public[31] | 0x80]), (9 + 2**255 - 19).to_bytes(32, "little")):
        with refuses("bad_key"):
            admit_seal_key(other.hex())


def test_a_secret_that_opens_is_in_no_message_and_does_not_travel() -> None:
    seed = bytes(range(32))
    key = SealKey(seed)
    assert seed.hex() not in repr(key) + str(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(Refused) as no:
        SealKey(seed[1:])
    assert no.value.code == "bad_key"
