"""What a certificate of a former roster is still worth to whoever trusts a newer one: what members who are still there have attested.

Rules
-----
Let a certificate be attested by members of epoch e, and E the epoch that whoever judges it trusts, or e if that is newer. Of its lines
only those count whose members are the same ones in every epoch from e to E; there are c of them. A key that came back after its removal
counts for nothing before that.

1. It is *believed* iff k members of e attested it and ``c + k_e > n_e + f_E``. Any quorum that epoch e ever had shares more than f_E
   members with those c (``c + k_e - n_e`` is the fewest), so one who is honest still, whatever becomes of removed keys; nobody honest
   attests two histories. As ``k_e <= n_e``, c itself is more than f_E. For E = e it says ``2k > n + f``.
2. It is *held* iff k members of e attested it and ``c + k_E > n_E + f_E``: any k of today's members have an honest one among them who
   attested it, so its records can be had wherever k members are up that have lost no disk. The overlap rule gives that to every
   certificate of the epoch before if at most one member has gone since; later, only rule 1 may be left.

Why so, and not at least k of one epoch, whoever they are now: keys of removed members are found in drawers, and k of them together
could certify what never was. Rosters newer than the trusted one that somebody shows make nothing stricter: who forges shows none.

Not here: who makes the newer certificate (:mod:`mesh.protocol.together`).
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from mesh.core.law.roster import Member, Roster
from mesh.core.law.succession import same_member
from mesh.core.log.certificate import Attested
from mesh.core.log.checkpoint import attest_name
from mesh.errors import Refused

__all__ = ["Remaining", "final_under", "still_there"]


class Remaining(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the rules; all are counts of members."""

    count: int
    """c: who attested and is still the same member."""
    then: tuple[int, int]
    """n and k of its epoch."""
    now: tuple[int, int, int]
    """n, k and f of the trusted one."""

    @property
    def believed(self) -> bool:
        """Rule 1."""
        return self.count + self.then[1] > self.then[0] + self.now[2]

    @property
    def held(self) -> bool:
        """Rule 2."""
        return self.count + self.now[1] > self.now[0] + self.now[2]


def still_there(rosters: Sequence[Roster]) -> tuple[Member, ...]:
    """The members of the first of these rosters, which follow one another, that are the same ones in all others."""
    first, *later = rosters
    return tuple(one for one in first.members if all(any(same_member(one, other) for other in roster.members) for roster in later))


def final_under(
    rosters: Sequence[Roster],
    check: Callable[[Mapping[str, str], int], Attested],
    *,
    trusted: int,
    enough: Callable[[Remaining], bool] = lambda numbers: numbers.believed,
) -> tuple[Attested, Roster]:
    """What ``check`` answers for the attest keys (name to hex) and k of the newest of ``rosters`` that it passes for, and that one.

    Not of several together: lines of k members who never were in one roster need not have an honest one among them.

    Args:
        rosters: epoch after epoch, without a gap.
        check: believes a certificate by these keys, all of whose lines it verifies, and refuses it below k.
        trusted: epoch of the roster that whoever asks trusts.
        enough: rule 1, or rule 2.

    Raises:
        Refused: ``former_certificate`` if k members of one of them attested it, and too few of those are still there; ``not_final`` if
            one of them knows all who signed, and there are too few; otherwise why it does not pass for the newest.
    """
    refusals, tried = list[Refused](), list[tuple[Mapping[str, str], int]]()
    for at in range(len(rosters) - 1, -1, -1):
        by = rosters[at].attest_keys(), rosters[at].k
        if by in tried:
            continue
        tried.append(by)
        try:
            attested = check(*by)
            _check_remaining(attested, [rosters[at], *(roster for roster in rosters[at + 1 :] if roster.epoch <= trusted)], enough)
        except Refused as refusal:
            refusals.append(refusal)
        else:
            return attested, rosters[at]
    refusals.append(Refused("wrong_epoch", "no roster is held by which it could be judged"))
    for code in ("former_certificate", "not_final"):
        said = next((refused for refused in refusals if refused.code == code), None)
        if said is not None:
            raise said
    raise refusals[0]


def _check_remaining(attested: Attested, rosters: Sequence[Roster], enough: Callable[[Remaining], bool]) -> None:
    then, now = rosters[0], rosters[-1]
    signed = {line.verifier.name for line in attested.attestations}
    count = sum(attest_name(then.mesh, member.name) in signed for member in still_there(rosters))
    numbers = Remaining(count=count, then=(len(then.members), then.k), now=(len(now.members), now.k, now.f))
    if not enough(numbers):
        size = attested.checkpoint.size
        raise Refused(
            "former_certificate", f"size {size} is of epoch {then.epoch}; {count} who attested it are members in epoch {now.epoch}"
        )
