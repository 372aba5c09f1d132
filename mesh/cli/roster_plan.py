"""`mesh roster add`, `remove`, `rotate` and `set`: the next roster as an unsigned file, from the one before and one change.

Not here: whether it may follow, and writing it (:mod:`mesh.cli.roster_draft`), the first one (:mod:`mesh.cli.roster_init`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.cli import roster_draft as drafts
from mesh.cli import roster_handover as handover
from mesh.cli import roster_words as words
from mesh.cli import saying
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.roster_draft import Wanted
from mesh.cli.roster_init import member_keys
from mesh.core.law.planning import Change, sound_quorums
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.errors import Refused

__all__ = ["add", "remove", "rotate", "set_"]

_MANY_USES: Final = {"policy": "policy", "approvers": "approver"}
_ROLE_USES: Final = {"root": "root", "issuers": "issuer", "revoker": "revoker"}


def _key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The keys of a member."""
    for use in reversed(drafts.USES):
        command = click.option(f"--{use}-key", metavar="KEY", default="", help=f"Its {use} key, in hex or as a file.")(command)
    return click.option("--keys", "folder", metavar="DIR", default="", help="A folder with all four, each .key or .pub.")(command)


def _owner_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An operator, and what is said of one that is new."""
    options = (
        click.option("--operator", metavar="NAME", default="", help="Who owns it."),
        click.option("--operator-key", metavar="KEY", default="", help="For an operator that is new: its key, in hex or as a file."),
        click.option("--jurisdiction", metavar="WORD", default="", help="For an operator that is new: where it is at home."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@click.option("--region", required=True, help="Where it is.")
@_key_options
@_owner_options
@click.option("--log-epoch", type=click.IntRange(1), help="Of its log; by default a new one, also for a name that comes back.")
@drafts.planning_options
@format_option
@pass_cli
def add(cli: Cli, /, *, name: str, region: str, log_epoch: int | None, wanted: Wanted, **given: str) -> None:
    """Plan the next roster with NAME as one member more; its operator owns others already, or is described here."""
    base = drafts.current(cli, wanted.source)
    now = base.claims
    if any(member.name == name for member in now.members):
        raise Refused("usage", f"{name} is a member of epoch {now.epoch} already; `mesh roster rotate` gives it new keys")
    keys = _member_keys(given, name)
    operator = given["operator"] or _only(now)
    member = _member(name, region, operator, log_epoch or base.logs.get(name, 0) + 1, keys)
    owners = _owners(now.operators, operator, given)
    what = f"mesh roster add {name}"
    _finish(cli, base, wanted, "add", what, members=[*now.members, member], operators=owners)


@click.command()
@click.argument("name")
@drafts.planning_options
@format_option
@pass_cli
def remove(cli: Cli, *, name: str, wanted: Wanted) -> None:
    """Plan the next roster without the member NAME; nor its operator, if that owns no other."""
    base = drafts.current(cli, wanted.source)
    now = base.claims
    now.member(name)
    members = [member for member in now.members if member.name != name]
    if not members:
        raise Refused("roster_unsound", "nobody would be left")
    _finish(cli, base, wanted, "remove", f"mesh roster remove {name}", members=members, operators=now.operators)


@click.command()
@click.argument("name")
@_key_options
@_owner_options
@click.option("--region", default="", help="Where it is now, if it moves as well.")
@drafts.planning_options
@format_option
@pass_cli
def rotate(cli: Cli, /, *, name: str, region: str, wanted: Wanted, **given: str) -> None:
    """Plan the next roster with new keys for the member NAME: those that are given, the others stay.

    A new log key begins a new log. Another operator takes four new keys. Quorums count it as another member.
    """
    base = drafts.current(cli, wanted.source)
    now = base.claims
    former = now.member(name)
    old = {use: getattr(former, f"{use}_key") for use in drafts.USES}
    keys = _member_keys({**({} if given["folder"] else {f"{use}_key": key for use, key in old.items()}), **_said(given)}, name)
    operator = given["operator"] or former.operator
    if keys == old and operator == former.operator:
        raise Refused("usage", f"{name} has these keys already")
    log_epoch = base.logs[name] + 1 if keys["log"] != old["log"] else former.log_epoch
    member = _member(name, region or former.region, operator, log_epoch, keys)
    owners = _owners(now.operators, operator, given)
    members = [member if one.name == name else one for one in now.members]
    _finish(cli, base, wanted, "rotate", f"mesh roster rotate {name}", members=members, operators=owners)


@click.command("set")
@click.option(
    "--add-key",
    "come",
    multiple=True,
    metavar="ROLE=KEY",
    help="A key for a role, in hex or as a file.",
)
@click.option("--drop-key", "go", multiple=True, metavar="ROLE=KEY", help="Its public key, or how that begins.")
@click.option("--threshold", "thresholds", multiple=True, metavar="ROLE=N", help="How many of the role must sign.")
@click.option("--drop-domain", "dropped", multiple=True, metavar="DOMAIN", help="This domain ends.")
@click.option("--drop-group", "groups", multiple=True, metavar="GROUP", help="This group of approvers ends.")
@click.option("--operator-key", "owner_keys", multiple=True, metavar="NAME=KEY", help="An operator's new key; both must sign.")
@click.option("--jurisdiction", "homes", multiple=True, metavar="NAME=WORD", help="Where an operator is at home now.")
@click.option(
    "--handover",
    "handovers",
    multiple=True,
    metavar="STREAM=ID",
    help="Behind which statement a stream goes on, or nothing; by default all that members hold of those whose signers change.",
)
@click.option(
    "--bound",
    "bounds",
    multiple=True,
    metavar="NAME=N",
    help="heartbeat_ms, stale_ms, skew_ms, certify_ms, attest_stall_ms, revocations_max, backlog_max.",
)
@drafts.planning_options
@format_option
@pass_cli
def set_(  # noqa: PLR0913 -- one for each option
    cli: Cli,
    *,
    come: tuple[str, ...],
    go: tuple[str, ...],
    thresholds: tuple[str, ...],
    dropped: tuple[str, ...],
    groups: tuple[str, ...],
    owner_keys: tuple[str, ...],
    homes: tuple[str, ...],
    handovers: tuple[str, ...],
    bounds: tuple[str, ...],
    wanted: Wanted,
) -> None:
    """Plan the next roster with the same members: other keys in roles, other domains, operators, bounds, f or k.

    Roles are root, issuers, revoker, policy/DOMAIN and approvers/GROUP.

    A role policy/DOMAIN or approvers/GROUP that is not there yet begins with the keys that are added, all of which must sign unless
    --threshold says less.

    What former signers have said counts up to where members hold it now, and nothing that they sign later. A stream goes on behind
    another statement, or begins anew behind nothing, with --handover; `mesh streams ls` names them.
    """
    base = drafts.current(cli, wanted.source)
    now = base.claims
    roles = _roles(now, [_pair(text) for text in come], [_pair(text) for text in go], [_pair(text) for text in thresholds])
    for domain in dropped:
        if roles.pop(f"policy/{domain}", None) is None:
            raise Refused("domain_unknown", domain[:40])
    for group in groups:
        if roles.pop(f"approvers/{group}", None) is None:
            raise _no_role(f"approvers/{group}", roles)
    changed = {
        "root": roles.pop("root"),
        "issuers": roles.pop("issuers"),
        "revoker": roles.pop("revoker"),
        "policy": {name.removeprefix("policy/"): role for name, role in roles.items() if name.startswith("policy/")},
        "approvers": {name.removeprefix("approvers/"): role for name, role in roles.items() if name.startswith("approvers/")},
        "operators": _changed_owners(now, [_pair(text) for text in owner_keys], [_pair(text) for text in homes]),
        "bounds": _bounds(now, [_pair(text) for text in bounds]),
    }
    ends = handover.parse([_pair(text) for text in handovers])
    same = not ends and all(getattr(now, name) == value for name, value in changed.items())
    if same and wanted.f in {None, now.f} and wanted.k in {None, now.k}:
        raise Refused("usage", "nothing would be another than before")
    f = now.f if wanted.f is None else wanted.f
    if wanted.k is None and f == now.f:
        wanted = wanted._replace(k=now.k)
    _finish(cli, base, wanted, "numbers", "mesh roster set", ends=ends, members=now.members, **changed)


# ------------------------------------------------------------------------------------------------------------------- parts


def _finish(cli: Cli, base: drafts.Base, wanted: Wanted, change: Change, what: str, **changed: Any) -> None:  # noqa: ANN401 -- fields
    saying.check_reason(wanted.reason)
    now = base.claims
    members: list[Member] = changed.pop("members")
    ends: Mapping[str, str] = changed.pop("ends", {})
    owners: Mapping[str, Operator] = changed.pop("operators")
    f, k = drafts.numbers(now, len(members), wanted, change, what)
    claims = msgspec.structs.replace(
        now,
        epoch=now.epoch + 1,
        previous=base.id,
        reason=wanted.reason,
        issued_ms=wall_ms(),
        not_before_ms=drafts.begins_ms(now, wanted),
        members=members,
        operators={name: owners[name] for name in sorted({member.operator for member in members}) if name in owners},
        f=f,
        k=k,
        handovers={},
        **changed,
    )
    claims = handover.fill(now, base.id, claims, base.seen, ends)
    drafts.finish(cli, base, claims, wanted.out)
    if k > (lowest := sound_quorums(len(members), f)[0]) and wanted.k is None:
        cli.say(f"k={k} is the smallest that may follow in one step; `mesh roster set --k {lowest}` may lower it afterwards")


def _member(name: str, region: str, operator: str, log_epoch: int, keys: Mapping[str, str]) -> Member:
    return Member(
        name=name,
        region=region,
        operator=operator,
        log_epoch=log_epoch,
        log_key=keys["log"],
        witness_key=keys["witness"],
        attest_key=keys["attest"],
        decision_key=keys["decision"],
    )


def _member_keys(given: Mapping[str, str], name: str) -> dict[str, str]:
    return member_keys({use: given.get(f"{use}_key", "") for use in drafts.USES}, given.get("folder", ""), Path(), name)


def _said(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


def _only(now: Roster) -> str:
    """The one operator that owns everything."""
    if len(now.operators) != 1:
        raise Refused("usage", f"--operator NAME is missing: one of {', '.join(sorted(now.operators))}, or a new one")
    return next(iter(now.operators))


def _owners(known: Mapping[str, Operator], name: str, given: Mapping[str, str]) -> dict[str, Operator]:
    """All operators with this one, which is known, or described."""
    key, home = given["operator_key"], given["jurisdiction"]
    if name in known:
        if key or home:
            raise Refused("usage", f"operator {name} is known; `mesh roster set` changes what is said of it")
        return dict(known)
    if not (key and home):
        raise Refused("usage", f"operator {name} is new: --operator-key KEY and --jurisdiction WORD say who it is")
    return {**known, name: Operator(key=drafts.public_key(key, "operator", Path()), jurisdiction=home)}


def _changed_owners(now: Roster, keys: list[tuple[str, str]], homes: list[tuple[str, str]]) -> dict[str, Operator]:
    owners = dict(now.operators)
    for name, value in (*keys, *homes):
        if name not in owners:
            raise Refused("usage", f"no operator {name[:40]!r}: there are {', '.join(sorted(owners))}")
        field = {"key": drafts.public_key(value, "operator", Path())} if (name, value) in keys else {"jurisdiction": value}
        owners[name] = msgspec.structs.replace(owners[name], **field)
    return owners


def _roles(now: Roster, come: list[tuple[str, str]], go: list[tuple[str, str]], thresholds: list[tuple[str, str]]) -> dict[str, Role]:
    """Every role by name, as asked for."""
    roles = words.roles(now)
    for name, reference in come:
        use = _ROLE_USES.get(name, "") or (_MANY_USES.get(name.partition("/")[0], "") if "/" in name else "")
        if not use:
            raise _no_role(name, roles)
        key = drafts.public_key(reference, use, Path())
        former = roles.get(name)
        if former is None:  # all who begin a domain sign for it, unless something else is said
            roles[name] = Role(keys=[key], threshold=1)
        else:
            more = 1 if name not in words.roles(now) else 0
            roles[name] = Role(keys=[*former.keys, key], threshold=former.threshold + more)
    for name, start in go:
        if name not in roles:
            raise _no_role(name, roles)
        found = [key for key in roles[name].keys if key.startswith(start)]
        if len(found) != 1:
            raise Refused("not_found" if not found else "ambiguous", f"{len(found)} keys of {name} begin with {start[:16]!r}")
        roles[name] = msgspec.structs.replace(roles[name], keys=[key for key in roles[name].keys if key != found[0]])
    for name, count in thresholds:
        if name not in roles:
            raise _no_role(name, roles)
        roles[name] = msgspec.structs.replace(roles[name], threshold=_whole(name, count))
    return roles


def _no_role(name: str, roles: Mapping[str, Role]) -> Refused:
    return Refused(
        "usage", f"no role {name[:40]!r}: there are {', '.join(roles)}, policy/DOMAIN for a new domain, approvers/GROUP for a new group"
    )


def _bounds(now: Roster, given: list[tuple[str, str]]) -> Bounds:
    fields = now.bounds.__struct_fields__
    if any(name not in fields for name, _ in given):
        raise Refused("usage", f"--bound: there are {', '.join(fields)}")
    return msgspec.structs.replace(now.bounds, **{name: _whole(name, ms) for name, ms in given})


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Refused("usage", f"{text[:60]!r}: wanted is NAME=VALUE")
    return name, value


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise Refused("usage", f"{name[:40]}={text[:40]}: wanted is a number")
    return int(text)
