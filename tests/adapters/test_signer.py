"""Secret keys: private files, one use each, in no message."""

import errno
import os
import pickle
import traceback
from pathlib import Path

import pytest

from mesh.adapters.signer import KeyFile, Signer, generate, generate_seal, load, load_seal, public_of
from mesh.core.bytes.keys import SecretKey, verify
from mesh.core.bytes.sealkeys import SealKey
from mesh.errors import Refused
from mesh.limits import KEY_FILE_BYTES_MAX

SEED = bytes(range(32))
OTHER = bytes(range(1, 33))
GOOD = f"govmesh-key-v1 log {SecretKey(SEED).public} {SEED.hex()}\n".encode()


def written(tmp_path: Path, data: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "k"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def code_of(path: Path) -> str:
    with pytest.raises(Refused) as no:
        load(path)
    assert SEED.hex() not in "".join(traceback.format_exception(no.value))
    return no.value.code


def test_a_generated_key_is_loaded_and_signs(tmp_path: Path) -> None:
    made = generate(tmp_path / "log.key", "log", SEED)
    signer = Signer([load(tmp_path / "log.key")])
    assert signer.public("log") == made.key.public == SecretKey(SEED).public
    assert verify(bytes.fromhex(made.key.public), b"message", signer.sign("log", b"message"))


def test_the_file_is_one_line_that_names_use_and_public_key(tmp_path: Path) -> None:
    generate(tmp_path / "log.key", "log", SEED)
    assert (tmp_path / "log.key").read_bytes() == GOOD


def test_only_the_owner_can_read_a_new_key_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        generate(tmp_path / "log.key", "log", SEED)
    finally:
        os.umask(before)
    assert (tmp_path / "log.key").stat().st_mode & 0o777 == 0o600


def test_file_and_folder_are_synced_before_the_key_is_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    real = os.fsync

    def recording(handle: int) -> None:
        synced.append(os.path.isdir(f"/proc/self/fd/{handle}"))  # noqa: PTH112 -- through the descriptor
        real(handle)

    monkeypatch.setattr(os, "fsync", recording)
    generate(tmp_path / "log.key", "log", SEED)
    assert synced == [False, True]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    generate(tmp_path / "log.key", "log", SEED)
    with pytest.raises(Refused) as no:
        generate(tmp_path / "log.key", "log", OTHER)
    assert no.value.code == "key_exists"
    assert (tmp_path / "log.key").read_bytes() == GOOD


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "log.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused) as no:
        generate(tmp_path / "log.key", "log", SEED)
    assert no.value.code == "key_exists"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o644, 0o777])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    assert code_of(written(tmp_path, GOOD, mode)) == "key_exposed"


def test_a_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, GOOD)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert code_of(path) == "key_exposed"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:-2],
        GOOD + b"x",
        GOOD + GOOD,
        GOOD.replace(b"v1", b"v2"),
        GOOD.replace(b" log ", b" LOG "),
        GOOD.replace(b" log ", b"  log "),
        GOOD.replace(SEED.hex().encode(), OTHER.hex().encode()),
        GOOD.replace(SEED.hex().encode(), SEED.hex().upper().encode()),
        b"\xff" * 100,
    ],
)
def test_what_is_not_a_key_file_is_refused_without_showing_it(tmp_path: Path, data: bytes) -> None:
    assert code_of(written(tmp_path, data)) == "bad_key"


def test_a_file_of_the_largest_size_is_looked_at_and_a_larger_one_is_not(tmp_path: Path) -> None:
    assert code_of(written(tmp_path, GOOD.ljust(KEY_FILE_BYTES_MAX))) == "bad_key"
    assert code_of(written(tmp_path, GOOD.ljust(KEY_FILE_BYTES_MAX + 1))) == "too_large"


def test_a_disk_that_fails_leaves_no_half_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused) as no:
        generate(tmp_path / "log.key", "log", SEED)
    assert no.value.code == "config_invalid"
    assert not (tmp_path / "log.key").exists()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert code_of(tmp_path / "pipe") == "bad_key"
    assert code_of(tmp_path) == "config_invalid"
    assert code_of(tmp_path / "missing") == "config_invalid"
    assert code_of(tmp_path / "nul\0") == "config_invalid"


def test_a_key_is_not_made_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(Refused) as no:
        generate(tmp_path / "none" / "log.key", "log", SEED)
    assert no.value.code == "config_invalid"
    for use, seed in (("two words", SEED), ("", SEED), ("LOG", SEED), ("log", SEED[:31])):
        with pytest.raises(Refused) as no:
            generate(tmp_path / "log.key", use, seed)
        assert no.value.code == "bad_key"
    assert not (tmp_path / "log.key").exists()


def test_a_signer_has_one_key_for_a_use_and_one_use_for_a_key() -> None:
    log, same, other = KeyFile("log", SecretKey(SEED)), KeyFile("witness", SecretKey(SEED)), KeyFile("log", SecretKey(OTHER))
    for keys in ([log, same], [log, other]):
        with pytest.raises(Refused) as no:
            Signer(keys)
        assert no.value.code == "bad_key"


def test_a_signer_signs_for_no_use_it_has_no_key_for() -> None:
    signer = Signer([KeyFile("witness", SecretKey(SEED))])
    for call in (lambda: signer.sign("decision", b"m"), lambda: signer.public("decision")):
        with pytest.raises(Refused) as no:
            call()
        assert no.value.code == "bad_key"


def test_no_secret_is_in_anything_that_prints_or_travels() -> None:
    entry = KeyFile("log", SecretKey(SEED))
    signer = Signer([entry])
    for text in (repr(entry), str(entry), repr(signer), f"{signer}", repr(vars(signer))):
        assert SEED.hex() not in text
        assert repr(SEED) not in text
        assert SecretKey(SEED).public[:8] in text
    for value in (entry, signer):
        with pytest.raises(TypeError):
            pickle.dumps(value)


# ------------------------------------------------------------------------------------------------------ keys that open boxes


def test_a_key_that_opens_boxes_is_kept_like_one_that_signs(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = generate_seal(tmp_path / "auditor.key", SEED)
    finally:
        os.umask(before)
    path = tmp_path / "auditor.key"
    assert path.read_bytes() == f"govmesh-key-v1 auditor-seal {SealKey(SEED).public} {SEED.hex()}\n".encode()
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_seal(path).public == made.public != SecretKey(SEED).public
    assert public_of(path) == ("auditor-seal", made.public)
    with pytest.raises(Refused) as no:
        generate_seal(path, OTHER)
    assert no.value.code == "key_exists"
    path.chmod(0o640)
    with pytest.raises(Refused) as exposed:
        load_seal(path)
    assert exposed.value.code == "key_exposed"


def test_a_key_signs_or_opens_and_is_never_loaded_as_the_other(tmp_path: Path) -> None:
    generate_seal(tmp_path / "opens.key", SEED)
    generate(tmp_path / "signs.key", "log", SEED)
    assert code_of(tmp_path / "opens.key") == "bad_key"
    for act in (lambda: load_seal(tmp_path / "signs.key"), lambda: generate(tmp_path / "new.key", "auditor-seal", OTHER)):
        with pytest.raises(Refused) as no:
            act()
        assert no.value.code == "bad_key"
    mixed = f"govmesh-key-v1 auditor-seal {SecretKey(SEED).public} {SEED.hex()}\n".encode()
    with pytest.raises(Refused) as halves:
        load_seal(written(tmp_path, mixed))
    assert halves.value.code == "bad_key"
    assert not (tmp_path / "new.key").exists()
