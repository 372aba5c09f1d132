"""Policies of others are read strictly where a log could get lost, and ours name strangers without asking for them."""

import pytest
from hypothesis import given

from mesh.core.log.checkpoint import cosigner, log_verifier
from mesh.core.log.tlogpolicy import Outsider, read_logs, tlog_policy
from mesh.limits import TLOG_POLICY_BYTES_MAX
from tests.core.kit import HOSTILE, refuses, secret
from tests.core.log.logs import ATTESTERS, LOG

OTHER = log_verifier("log.example/other", secret(5).public)
OUT = cosigner("witness.example/w1", secret(77).public)


def test_what_is_written_is_read() -> None:
    text = tlog_policy(LOG, ATTESTERS, 3, {"w1": Outsider(OUT, "https://witness.example/")})
    assert read_logs(text.encode()) == [LOG]
    assert f"witness outside/w1 {OUT.vkey} https://witness.example/\n" in text
    assert text.endswith("group Quorum 3 eu1 eu2 eu3 eu4\nquorum Quorum\n")


@pytest.mark.parametrize("key", [LOG.key, next(iter(ATTESTERS.values()))])
def test_one_key_under_two_names_is_refused(key: str) -> None:
    with refuses("bad_key"):
        tlog_policy(LOG, ATTESTERS, 3, {"w1": Outsider(cosigner("x", key), "https://x")})


def test_comments_tabs_and_empty_lines_are_of_the_format() -> None:
    data = f"\n# log nothing\n \t log \t {LOG.vkey}  https://log.example/ \nlog {OTHER.vkey}\n\t# more\nquorum none\n"
    assert read_logs(data.encode()) == [LOG, OTHER]
    assert read_logs(b"quorum none\n") == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"log {LOG.vkey}\n", "malformed"),
        (f"log {LOG.vkey}\nquorum none\nquorum none\n", "malformed"),
        (f"lgo {LOG.vkey}\nquorum none\n", "malformed"),
        ("log\nquorum none\n", "malformed"),
        (f"log {LOG.vkey} url more\nquorum none\n", "malformed"),
        (f"log {LOG.vkey}\nquorum none", "malformed"),
        (f"log {LOG.vkey}\r\nquorum none\n", "malformed"),
        ("witness x\nquorum x\n", "malformed"),
        ("group x 1\nquorum x\n", "malformed"),
        (f"log {LOG.vkey}\nlog {LOG.vkey}\nquorum none\n", "bad_key"),
        (f"log {OUT.vkey}\nquorum none\n", "bad_key"),
        ("log x\nquorum none\n", "malformed"),
        (f"log {LOG.vkey.replace('+', '+0', 1)}\nquorum none\n", "malformed"),
    ],
)
def test_a_line_that_could_hide_a_log_refuses_the_file(text: str, code: str) -> None:
    with refuses(code):
        read_logs(text.encode())


def test_a_file_is_bounded() -> None:
    filler = b"#" * (TLOG_POLICY_BYTES_MAX - 13) + b"\n"
    assert read_logs(filler + b"quorum none\n") == []
    with refuses("too_large"):
        read_logs(b"#" + filler + b"quorum none\n")


@given(HOSTILE)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    with refuses("malformed", "bad_key", "too_large"):
        read_logs(b"log " + data + b"\n")
