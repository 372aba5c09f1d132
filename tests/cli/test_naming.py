"""Every record of every log that a node has ever kept has one name, which commands print and take."""

import msgspec
import pytest

from mesh.cli.naming import Naming
from mesh.core.bytes import envelope
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Roster
from mesh.core.law.succession import Rosters
from tests.core.kit import refuses
from tests.support.factory import Lab, secret


def _rotated() -> Governance:
    """`eu-1` goes on in another log with the second roster, `sa-1` leaves with it."""
    lab = Lab(members=5, k=4)
    first, *others = lab.roster.members
    again = msgspec.structs.replace(first, log_epoch=2, log_key=secret("eu log 2").public)
    second: Roster = msgspec.structs.replace(lab.roster, epoch=2, previous=lab.pin, k=3, members=[again, *others[:2], others[3]])
    identity = envelope.draft(second).id
    rosters = Rosters({lab.pin: lab.roster, identity: second}, (lab.pin, identity))
    return msgspec.structs.replace(lab.governance, roster=second, roster_id=identity, rosters=rosters)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("eu-1/7", ("lab/eu-1/e2", 7)),
        ("eu-1@e1/7", ("lab/eu-1/e1", 7)),
        ("us-1/0", ("lab/us-1/e1", 0)),
        ("sa-1/3", ("lab/sa-1/e1", 3)),
    ],
)
def test_a_name_leads_to_the_log_that_it_was_printed_of(name: str, place: tuple[str, int]) -> None:
    naming = Naming(_rotated())
    assert naming.find(name) == place
    assert naming.place(*place) == name


def test_the_log_of_now_may_be_named_with_its_epoch() -> None:
    assert Naming(_rotated()).find("eu-1@e2/7") == ("lab/eu-1/e2", 7)


@pytest.mark.parametrize("name", ["eu-1@e3/7", "us-1@e2/0", "zz-1/0", "zz-1@e1/0"])
def test_a_log_that_nobody_ever_kept_is_refused(name: str) -> None:
    with refuses("unknown_member"):
        Naming(_rotated()).find(name)


@pytest.mark.parametrize("name", ["eu-1", "eu-1@/7", "eu-1@2/7", "eu-1@e1", "eu-1/-7", "ab" * 32])
def test_other_words_are_no_names_of_records(name: str) -> None:
    assert Naming(_rotated()).find(name) is None


def test_a_log_that_no_roster_here_names_is_told_by_what_it_is_called() -> None:
    naming = Naming(_rotated())
    assert naming.place("lab/af-1/e1", 4) == "af-1/4"
    assert naming.place("lab/af-1/e3", 4) == "af-1@e3/4"
