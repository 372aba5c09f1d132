"""A governor that decides alone says so: what demands more is refused, whoever demands it."""

import pytest

from mesh.core.bytes import canonical
from mesh.core.run.intent import Assurance
from mesh.errors import Refused
from mesh.protocol.documents import Documents
from mesh.protocol.examine import authenticate, question
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerbench import MEMO, Bench


@pytest.mark.parametrize(
    ("floor", "minimum", "refused"),
    [
        ("observe", "observe", False),
        ("local", "observe", False),
        ("observe", "local", False),
        ("local", "local", False),
        ("quorum", "local", True),
        ("local", "quorum", True),
        ("final", "observe", True),
        ("observe", "final", True),
    ],
)
def test_what_demands_more_than_one_governor_is_refused(floor: Assurance, minimum: Assurance, refused: bool) -> None:
    bench, documents = Bench(), Documents()
    bench.intent["assurance_min"] = minimum
    governance = kit.governance(kit.manifest(floor=floor), bundles=(canonical.encode(kit.BUNDLE),))
    identity, _, intent = bench.documents()
    sender = authenticate(intent, identity, governance, documents)
    place = bench.place().document.envelope

    def ask() -> str:
        asked = question(sender, place, (MEMO,), governance, documents, region="eu", at_ms=kit.NOW_MS, frontier=governance.digest)
        return asked.request.action.id

    if not refused:
        assert ask() == "ops/pay"
        return
    with pytest.raises(Refused) as caught:
        ask()
    assert caught.value.code == "assurance_unavailable"
