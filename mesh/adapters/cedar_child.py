"""Whatever policy text does to the parser, it does it to a child process.

Rules
-----
1. Sizes and nesting are checked before the child starts (:mod:`mesh.adapters.cedar_text`), and still the parser is not trusted
   to survive: a child that dies by a signal, or takes too long, is a refusal of what it was given.
2. The child is this installation under ``python -I``: no environment, no user packages, no current directory. It bounds its
   own processor time, so that it ends even if its parent was killed.
3. It parses on a thread with the stack that evaluation will have, so what it survives, this process survives.

Not here: the checks themselves (:mod:`mesh.adapters.cedar`).
"""

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from mesh.adapters.cedar_lint import Finding
from mesh.adapters.cedar_text import gate_json, gate_policies, gate_schema
from mesh.core.bytes import canonical
from mesh.core.law.policy import Bundle, PolicyJson
from mesh.errors import Refused, Unavailable
from mesh.limits import BUNDLE_BYTES_MAX, POLICY_CHECK_MS_MAX

__all__ = ["Answer", "Source", "child", "examine_bundles", "parse_in_child", "parse_policies", "policy_texts"]

_ROOT: Final = str(Path(__file__).resolve().parents[2])
_START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from mesh.adapters.cedar_child import child; child(sys.argv[2])"


class Source(msgspec.Struct, frozen=True):
    """Policy text and the file it is from."""

    where: str
    text: str


class Answer(msgspec.Struct, frozen=True):
    """What the child found."""

    policies: list[PolicyJson]
    findings: list[Finding]
    texts: list[str] = []


def parse_policies(sources: Sequence[Source]) -> Answer:
    """The policies of these files in JSON form, and everything that is wrong with the files.

    Raises:
        Refused: ``policy_invalid`` if the parser did not survive them.
        Unavailable: ``engine_unavailable`` if the child could not work.
    """
    findings: list[Finding] = []
    passed: list[Source] = []
    for source in sources:
        try:
            gate_policies(source.text, source.where)
            passed.append(source)
        except Refused as refusal:
            findings.append(Finding(refusal.code, source.where, _without(source.where, refusal.detail)))
    answer = parse_in_child("convert", canonical.encode(passed)) if passed else Answer([], [])
    return Answer(answer.policies, findings + answer.findings)


def examine_bundles(bundles: Sequence[bytes]) -> list[Finding]:
    """Everything that is wrong with these bundles (canonical bytes), by one child for all.

    Raises:
        Refused: ``too_large``, ``malformed``, ``non_canonical`` if one is none; ``policy_invalid`` as above.
        Unavailable: ``engine_unavailable``.
    """
    read = [canonical.decode(Bundle, data, bytes_max=BUNDLE_BYTES_MAX) for data in bundles]
    findings = [finding for bundle in read for finding in _gated(bundle)]
    return findings or parse_in_child("examine", canonical.encode(read)).findings


def policy_texts(bundle: Bundle) -> list[str]:
    """The text of each policy of ``bundle``, as the engine writes it, in their order.

    Raises:
        Refused: ``policy_invalid`` and what else is wrong with it.
        Unavailable: ``engine_unavailable``.
    """
    for finding in _gated(bundle):
        raise Refused(finding.code, f"{finding.where}: {finding.what}"[:300])
    answer = parse_in_child("render", canonical.encode(bundle.policies))
    for finding in answer.findings:
        raise Refused(finding.code, f"{finding.where}: {finding.what}"[:300])
    return answer.texts


def _gated(bundle: Bundle) -> list[Finding]:
    findings: list[Finding] = []
    try:
        gate_schema(bundle.schema, "schema")
    except Refused as refusal:
        findings.append(Finding(refusal.code, "schema", _without("schema", refusal.detail)))
    for policy in bundle.policies:
        try:
            gate_json(policy.json, policy.id)
        except Refused as refusal:
            findings.append(Finding(refusal.code, policy.id, _without(policy.id, refusal.detail)))
    return findings


def parse_in_child(verb: str, data: bytes) -> Answer:
    """What a child that is given ``data`` finds.

    Raises:
        Refused: ``policy_invalid`` if it died or took longer than a candidate may.
        Unavailable: ``engine_unavailable`` if it could not work.
    """
    command = [sys.executable, "-I", "-c", _START, _ROOT, verb]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=POLICY_CHECK_MS_MAX / 1000, check=False)
    except subprocess.TimeoutExpired:
        raise Refused("policy_invalid", f"the parser took longer than {POLICY_CHECK_MS_MAX} ms") from None
    except OSError as error:
        raise Unavailable("engine_unavailable", f"no child could be started: {error}") from None
    if done.returncode < 0:
        raise Refused("policy_invalid", f"the parser did not survive it (signal {-done.returncode})")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unavailable("engine_unavailable", f"the checking child failed: {last[:200]}")
    return msgspec.json.decode(done.stdout, type=Answer)


def child(verb: str) -> None:
    """The child's half: reads stdin, answers on stdout."""
    from mesh.adapters import cedar
    from mesh.adapters.decision_thread import DecisionThread

    seconds = POLICY_CHECK_MS_MAX // 1000
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected here and worth no core file
    data = sys.stdin.buffer.read()

    def work() -> Answer:
        if verb == "convert":
            both = [cedar.convert(source.where, source.text) for source in msgspec.json.decode(data, type=list[Source])]
            return Answer([one for policies, _ in both for one in policies], [one for _, findings in both for one in findings])
        if verb == "render":
            try:
                return Answer([], [], cedar.render(msgspec.json.decode(data, type=list[PolicyJson])))
            except Refused as refusal:
                return Answer([], [Finding(refusal.code, "bundle", refusal.detail)])
        bundles = msgspec.json.decode(data, type=list[Bundle])
        return Answer([], [finding for bundle in bundles for finding in cedar.examine(bundle)])

    sys.stdout.buffer.write(msgspec.json.encode(DecisionThread().call(work)))


def _without(where: str, detail: str) -> str:
    return detail.removeprefix(f"{where}: ")
