"""What an auditor found as a Prometheus text file, written whole or not at all: for the textfile collector of a node exporter.

Not here: when it is written (:mod:`mesh.cli.auditing`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mesh.cli.collecting import whole_file
from mesh.codes import CODES
from mesh.protocol.alarms import Standing
from mesh.protocol.audited import AuditState, tally

__all__ = ["exposition", "write_metrics"]

ALARMS: Final = (
    "outcome_missing", "authorization_missing", "start_missing", "end_missing", "log_behind", "log_silent", "finality_stalled",
    "attest_lag", "witness_lag",
)  # fmt: skip
"""Codes of alarms: each has a sample, also while none stands, so that a rule never meets a series that is not there."""

_Samples = Iterable[tuple[str, int]]


def write_metrics(path: Path, state: AuditState, standing: Sequence[Standing], *, caught_up: bool, now_ms: int) -> None:
    """Write the file.

    Raises:
        Refused: ``config_invalid`` if it cannot be written.
    """
    with whole_file(path) as file:
        file.write(exposition(state, standing, caught_up=caught_up, now_ms=now_ms).encode())


def exposition(state: AuditState, standing: Sequence[Standing], *, caught_up: bool, now_ms: int) -> str:
    """The text format (https://prometheus.io/docs/instrumenting/exposition_formats/), version 0.0.4."""
    numbers, logs = tally(state), sorted(state.logs.items())
    alarms, found = Counter(item.code for item in standing), Counter(item.code for item in state.findings)
    families: list[tuple[str, str, str, _Samples]] = [
        ("timestamp_seconds", "gauge", "When this was written.", [("", now_ms // 1000)]),
        ("caught_up", "gauge", "Whether all that is known to be final was judged.", [("", int(caught_up))]),
        ("decisions", "gauge", "Decisions that were repeated.", _verdicts(numbers.match, numbers.mismatch, numbers.unverifiable)),
        ("starts", "gauge", "Starts that enforcers signed, held to what authorized them.",
         _verdicts(numbers.starts_match, numbers.starts_mismatch, numbers.starts_unverifiable)),
        ("breakglass", "gauge", "Decisions with a broken glass.", [("", numbers.breakglass)]),
        ("pruned", "gauge", "Records below a floor of which only hashes were to be had.", [("", numbers.pruned)]),
        ("findings", "gauge", "Findings ever, kept or not.", [("", numbers.findings)]),
        ("findings_kept", "gauge", "Findings that are kept, by code.", [(_label("code", code), found[code]) for code in sorted(found)]),
        ("alarms", "gauge", "Alarms that stand, by code and the exit status that they are worth.",
         [(f'{{code="{code}",exit="{CODES[code].exit}"}}', alarms[code]) for code in ALARMS]),
        ("log_records", "gauge", "Records that were judged.", [(_label("log", origin), log.frontier.size) for origin, log in logs]),
        ("log_final", "gauge", "Records that are final.", [(_label("log", origin), log.certified) for origin, log in logs]),
        ("log_signed", "gauge", "Records that its own key has signed.", [(_label("log", origin), log.signed) for origin, log in logs]),
    ]  # fmt: skip
    lines = list[str]()
    for name, kind, told, samples in families:
        lines += [f"# HELP mesh_audit_{name} {told}", f"# TYPE mesh_audit_{name} {kind}"]
        lines += [f"mesh_audit_{name}{labels} {value}" for labels, value in samples]
    return "".join(f"{line}\n" for line in lines)


def _verdicts(match: int, mismatch: int, unverifiable: int) -> _Samples:
    named = (("match", match), ("mismatch", mismatch), ("unverifiable", unverifiable))
    return [(_label("verdict", name), count) for name, count in named]


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{{name}="{escaped}"}}'
