"""Why a node or an enforcer does not act: its view, its clock, its disk, its peers.

Not here: what a code is (:mod:`mesh.codes.code`).
"""

from typing import Final

from mesh.codes.code import RESEND, Code

__all__ = ["RUNNING"]

RUNNING: Final[dict[str, Code]] = {
    # --- governance
    "stream_full": Code("this author has said as much as every node will hold", "governor", "Sign with another revoker key.", 2),
    "stream_forked": Code(
        "the author of this stream has said two things under one number",
        "cli",
        "Nobody waits for it any more: find out who else has the key. `mesh fraud ls` says whose; the root keys end it: `mesh resolve`.",
        5,
    ),
    "no_conflict": Code(
        "what it holds is genuine, and need not be anybody's lie",
        "verifier",
        "It proves nothing against anybody. Ask whoever made it for the two that contradict one another: `mesh fraud show`.",
        2,
    ),
    "not_acknowledged": Code(
        "fewer than k members hold it yet, or fewer enforcers say so than were asked for",
        "cli",
        "Run the same command again: nothing new is signed, and it watches on.",
        4,
    ),
    "already_signed": Code(
        "this key has signed another statement under that number",
        "cli",
        "Finish the one it signed: collect its signatures and offer it, then sign the next number; an epoch that never begins is passed"
        " over. Or let other signers finish theirs.",
        2,
    ),
    "not_admitted": Code(
        "fewer than k members have checked this policy epoch and could decide by it",
        "cli",
        "See who lacks it and why: `mesh policy ls`, `mesh status`; then `mesh policy push MANIFEST BUNDLE --watch`.",
        4,
    ),
    "too_soon": Code(
        "it begins earlier than every member is certain to have heard of it",
        "cli, succession",
        "Give a time that is at least twice stale_ms ahead: `--ring '*@+1m'` for a policy, `--begins +1m` for a roster.",
        3,
    ),
    # --- node
    "not_enrolled": Code(
        "the roster in force does not name this node, or names other keys for it",
        "governor",
        "Its data stays as it is. If it was removed, that is all; if its keys were rotated, start it with the new ones.",
        3,
    ),
    "backlog_full": Code(
        "too much of this governor's log is not final",
        "governor",
        "See in `mesh status` and `mesh lineage ls` who refuses to attest it, and why; ask another governor meanwhile.",
        4,
    ),
    "catching_up": Code(
        "it does not hold yet what was final when it started, so its word does not count",
        "governor",
        "Wait; `mesh peer ls` shows how far it is. If it stands still, start a member that holds these records.",
        4,
    ),
    "barrier_pending": Code(
        "the node has started, and signs nothing before enough members have told what it signed before",
        "governor",
        "Start the other members: it goes on by itself once k-1 of them answer.",
        4,
    ),
    "overloaded": Code("the node sheds load", "governor", "Try again later, or another governor.", 4),
    "unavailable": Code("the node could not do it durably", "governor", "Try again; see the node's log.", 4),
    "internal_error": Code(
        "an error that nobody foresaw", "governor, enforcer", "See the log of whoever says so, and report what it says.", 1
    ),
    "draining": Code("the node is stopping", "governor", "Ask another governor.", 4),
    "unreachable": Code("nobody answered in time", "client", "Check the bus and the nodes: `mesh status`.", 4),
    "reply_forbidden": Code("the reply subject is no inbox", "bus", "Ask through a client; answers go to inboxes only.", 2),
    "not_found": Code("no record or statement of that name is held here", "node", "Check the id; ids accept unique prefixes.", 3),
    "ambiguous": Code("more than one record begins with that prefix", "node", "Give more of the id.", 3),
    # --- enforcer
    "possession": Code(
        "the presenter did not prove that it holds the key now", "enforcer", "Sign the enforcer's challenge with the holder key.", 2
    ),
    "domain_mismatch": Code("the authorization is for another domain", "enforcer", "Ask for one in this domain.", 2),
    "audience": Code("the authorization is for another enforcer or an earlier boot of this one", "enforcer", RESEND, 2),
    "assurance_too_low": Code("fewer governors agreed than this action demands", "enforcer", "Ask again with the assurance it demands.", 2),
    "digest_mismatch": Code("what would run is not what was authorized", "enforcer", "Run exactly what was authorized.", 2),
    "not_yet_valid": Code("the authorization begins later", "enforcer", "Wait, and check the clocks.", 2),
    "expired": Code("the authorization is over", "enforcer", RESEND, 2),
    "frontier_behind": Code("this view is older than the one the authorization was made in", "enforcer", "Let the view catch up.", 4),
    "obligation_unknown": Code(
        "an obligation of the authorization is not understood here", "enforcer", "Teach the enforcer or change the policy.", 2
    ),
    "used": Code("this intent was already spent", "enforcer", RESEND, 2),
    "unrecorded": Code("no receipt shows that the decision is in its governor's log", "enforcer", RESEND, 5),
    "outcome_backlog": Code("too many outcomes wait to be recorded", "enforcer", "Let a governor take them; see `mesh status`.", 4),
    "superseded": Code("this enforcer has said something newer", "governor", "Nothing: the newest word counts.", 2),
    "cancelled": Code("whoever asked for it gave up before it began", "enforcer", "Ask again if it is still wanted.", 1),
}
