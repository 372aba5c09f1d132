"""Every reason this mesh can say no, once: the same word on the wire, in records, in errors and in ``mesh explain``.

A code is added with the line that raises it and the test that provokes it (``tests/house`` fails otherwise), and is never
renamed or reused: auditors keep records for years.
"""

from typing import Final, Literal, NamedTuple

__all__ = ["CODES", "Code", "Exit"]

Exit = Literal[1, 2, 3, 4, 5]
"""How a command that ends with this code exits: 1 operational, 2 denied, 3 invalid input, 4 unreachable or stale, 5 forged."""


class Code(NamedTuple):
    """One registered reason."""

    meaning: str
    """What happened, in one clause."""
    raised_by: str
    """Which part says so."""
    fix: str
    """What the reader can do next."""
    exit: Exit


def _code(meaning: str, raised_by: str, fix: str, exit_: Exit) -> Code:
    return Code(meaning, raised_by, fix, exit_)


_RESEND = "Sign and send a new one."
_SENDER = "Ask the sender to encode it as schemas/v1 says; `mesh schema KIND` prints the shape."

CODES: Final[dict[str, Code]] = {
    # --- bytes
    "too_large": _code("it is larger than its limit", "codec", "Make it smaller; limits stand in mesh/limits.py.", 3),
    "malformed": _code("the bytes are not of this kind", "codec", _SENDER, 3),
    "non_canonical": _code("the bytes are not in the one allowed spelling", "codec", _SENDER, 3),
    "wrong_kind": _code("a statement of another kind was expected here", "envelope", _SENDER, 3),
    "bad_key": _code("a public key is not a valid point, or is listed twice", "keys", "Generate a key with `mesh key gen`.", 3),
    "bad_signature": _code("no valid signature by the key that must have signed", "envelope", "Sign it with the right key.", 5),
    "threshold_not_met": _code("fewer distinct keys signed than the role demands", "envelope", "Collect the missing signatures.", 5),
    # --- rosters, policy, identity
    "roster_unsound": _code("n, f and k do not make a safe quorum", "roster", "Need 2k > n + f and k <= n - f.", 3),
    "roster_unsafe": _code(
        "a quorum of the old roster and one of the new may have no honest member in common, or a log would go on under another key",
        "succession",
        "Make the change in several steps: `mesh roster check` shows the arithmetic.",
        3,
    ),
    "operator_unsigned": _code(
        "a roster says something new of an operator or its members that the operator has not signed",
        "roster",
        "Have the operator sign it: `mesh roster sign FILE --key OPERATOR_KEY`.",
        5,
    ),
    "too_few_owners": _code(
        "fewer owners would have to collude than were asked for", "cli", "See who owns what: `mesh trust`; give members to other owners.", 2
    ),
    "roster_conflict": _code(
        "the root has signed two rosters that follow the same one",
        "governor, enforcer",
        "Nothing is allowed meanwhile. `mesh streams ls` shows it; the root keys say which counts: `mesh resolve roster`.",
        5,
    ),
    "roster_pending": _code(
        "nobody acts under this roster: it has not begun, or the next one has and it is not known yet that enough members hold it",
        "governor, enforcer",
        "Ask again in a moment; if it lasts, too few members hold the next roster: `mesh peer ls`.",
        4,
    ),
    "handed_over": _code(
        "its signers are not, or no more, those of that stream: a roster has handed it over to others",
        "any verifier",
        "Have those sign whom the newest roster names: `mesh roster show`. What counts of the former word ends where that roster says.",
        5,
    ),
    "handover_missing": _code(
        "the roster changes who signs in a stream, and does not say up to where the word of the former signers counts",
        "any verifier",
        "Plan it with `mesh roster set`, which asks members how far each stream has come.",
        5,
    ),
    "handover_stale": _code(
        "members hold more of a stream than the roster hands over to its new signers; the rest would count no more",
        "mesh roster push",
        "Plan the roster anew, so that it hands over all of it, and have that signed.",
        5,
    ),
    "policy_conflict": _code(
        "the domain's policy signers have signed two different things under one number",
        "governor, enforcer",
        "Keep the proof: `mesh fraud show`. `mesh streams ls` shows both histories; the root keys say which counts: `mesh resolve`.",
        5,
    ),
    "wrong_mesh": _code("it belongs to another mesh", "any verifier", "Use the roster of the mesh it was made for.", 5),
    "wrong_epoch": _code("it names another roster or policy epoch than the active one", "any verifier", _RESEND, 2),
    "unknown_member": _code("no such member in the roster", "any verifier", "Check the roster: `mesh roster show`.", 5),
    "identity_unknown": _code(
        "the identity document was not issued by an issuer of the roster", "governor, enforcer", "Have it issued by one.", 2
    ),
    "identity_expired": _code("the identity document is not valid now", "governor, enforcer", "Have a new one issued.", 2),
    "attribute_mismatch": _code(
        "an attribute of the identity document is not of the type that the domain declares", "governor", "Have the document issued anew.", 2
    ),
    "identity_mismatch": _code(
        "subject, key or role differ from the identity document", "governor, enforcer", "Use the key the document names.", 2
    ),
    "revoked": _code(
        "a revocation names something in the chain", "governor, enforcer", "Revocations are never undone; use another identity.", 2
    ),
    "halted": _code(
        "a halt of this domain is in force", "governor, enforcer", "Wait for the revokers to lift it: `mesh resume DOMAIN --key FILE`.", 2
    ),
    # --- intents
    "unauthenticated": _code("the intent is not signed by its holder key", "governor", "Sign the intent with the holder key.", 2),
    "intent_expired": _code("the intent's time is over, or not yet begun", "governor", _RESEND, 2),
    "intent_too_long": _code(
        "the intent asks for a longer life than an intent may have", "governor", "Shorten expires_ms - created_ms.", 2
    ),
    "domain_unknown": _code("no such enforcement domain here", "governor", "See the domains: `mesh status`.", 2),
    "action_unknown": _code("the domain declares no such action", "governor", "Declare it in the policy's domain.toml.", 2),
    "audience_unknown": _code("the domain does not list this enforcer", "governor", "Add the enforcer to the policy.", 2),
    "params_mismatch": _code("the parameters are not those the action declares", "governor", "Match names, types and privacy classes.", 2),
    "opening_mismatch": _code(
        "an opening is missing or does not match its commitment", "governor, verifier", "Send the openings you signed.", 2
    ),
    "entity_missing": _code(
        "principal or resource is unknown to the policy bundle", "governor", "Add the entity, or declare its type open.", 2
    ),
    "assurance_unavailable": _code("the assurance asked for cannot be given here", "governor", "Ask for a lower one, if policy allows.", 2),
    "intent_conflict": _code("this intent was already answered otherwise", "governor", "Use a new nonce for a new intent.", 2),
    # --- decision
    "policy_denied": _code("policy does not permit it", "governor", "See which policies decided: `mesh why ID`.", 2),
    "approval_needed": _code(
        "policy permits it only with approvals that did not come with it",
        "governor, enforcer",
        "Have it approved: each of those people runs `mesh approve INTENT --key FILE`; then ask again with --approval FILE.",
        2,
    ),
    "parent_unknown": _code(
        "the papers beside the intent are not those of the executions that it names as its parents",
        "governor",
        "Send for each, in order, its authorization and its `started` or `finished`: `mesh run --papers FILE` writes them.",
        2,
    ),
    "parent_mismatch": _code(
        "the papers of a parent do not fit one another", "governor", "Send them as the parent's own gate wrote them.", 5
    ),
    "parent_over": _code(
        "the execution within which this would run is not running, as far as can be known",
        "governor",
        "Begin it anew, or let this one stand alone: `env -u MESH_WITHIN mesh run ...`.",
        2,
    ),
    "parent_unfinished": _code(
        "an execution whose result this would use has not finished with that result",
        "governor",
        "Wait until it has finished, and quote the outcome that it has then.",
        2,
    ),
    "parent_foreign": _code(
        "whoever asks neither holds the parent's key nor brings its holder's countersignature",
        "governor",
        "Ask as the parent's identity, or have its program countersign: `within=execution` in the same process does.",
        2,
    ),
    "too_deep": _code(
        "it would run within more executions than may stand within one another",
        "governor",
        "Let the part stand alone, or nearer to the root.",
        2,
    ),
    "approval_mismatch": _code(
        "an approval or grant is for something else, or came twice",
        "governor, enforcer",
        "Have exactly this effect approved: `mesh approve INTENT --key FILE` shows it.",
        2,
    ),
    "approval_expired": _code("an approval or grant is not valid now", "governor, enforcer", "Have it approved again.", 2),
    "approval_too_long": _code(
        "an approval or grant asks for a longer life than it may have", "governor, enforcer", "Sign one with a shorter --for.", 3
    ),
    "approval_used": _code("an approval or grant was used as often as it says", "enforcer", "Have it approved again.", 2),
    "approver_unknown": _code(
        "the roster has no such group of approvers", "governor, enforcer", "See the groups: `mesh roster show FILE`.", 2
    ),
    "policy_error": _code(
        "a policy failed while it was evaluated, so nothing is allowed", "governor", "Mend the policy named in the record.", 2
    ),
    "policy_expired": _code("the policy manifest is not valid now", "governor, enforcer", "Sign and activate a new epoch.", 2),
    "policy_invalid": _code("the policy bundle fails its checks", "policy", "Run `mesh policy check DIR`.", 3),
    "policy_unknown": _code(
        "a statement that says which policy or roster epoch is in force is not held here yet",
        "governor, enforcer, auditor",
        "Wait: it is asked for. `mesh policy ls` shows who holds what.",
        4,
    ),
    "policy_too_deep": _code("policy text is nested deeper than the engine can take", "policy", "Flatten brackets and ifs.", 3),
    "policy_tests_failed": _code("an embedded policy test did not give what it must", "policy", "Run `mesh policy test DIR`.", 2),
    "policy_flips": _code(
        "more recorded decisions would go otherwise, or could not be asked any more, than is allowed",
        "cli",
        "See which: change the policy, or allow as many with --max-flips.",
        2,
    ),
    "engine_unavailable": _code("the policy engine gave no answer for complete inputs", "governor", "See the node's log.", 4),
    "stale": _code("fewer than k members vouch for this view", "governor, enforcer", "Wait for the mesh to heal; see `mesh status`.", 4),
    "clock_unsure": _code("the clock cannot be trusted now", "governor, enforcer, witness", "Mend time synchronisation on this host.", 4),
    # --- governance
    "stream_full": _code("this author has said as much as every node will hold", "governor", "Sign with another revoker key.", 2),
    "stream_forked": _code(
        "the author of this stream has said two things under one number",
        "cli",
        "Nobody waits for it any more: find out who else has the key. `mesh fraud ls` says whose; the root keys end it: `mesh resolve`.",
        5,
    ),
    "no_conflict": _code(
        "what it holds is genuine, and need not be anybody's lie",
        "verifier",
        "It proves nothing against anybody. Ask whoever made it for the two that contradict one another: `mesh fraud show`.",
        2,
    ),
    "not_acknowledged": _code(
        "fewer than k members hold it yet, or fewer enforcers say so than were asked for",
        "cli",
        "Run the same command again: nothing new is signed, and it watches on.",
        4,
    ),
    "already_signed": _code(
        "this key has signed another statement under that number",
        "cli",
        "Finish the one it signed: collect its signatures and offer it, then sign the next number; an epoch that never begins is passed"
        " over. Or let other signers finish theirs.",
        2,
    ),
    "not_admitted": _code(
        "fewer than k members have checked this policy epoch and could decide by it",
        "cli",
        "See who lacks it and why: `mesh policy ls`, `mesh status`; then `mesh policy push MANIFEST BUNDLE --watch`.",
        4,
    ),
    "too_soon": _code(
        "it begins earlier than every member is certain to have heard of it",
        "cli, succession",
        "Give a time that is at least twice stale_ms ahead: `--ring '*@+1m'` for a policy, `--begins +1m` for a roster.",
        3,
    ),
    # --- node
    "not_enrolled": _code(
        "the roster in force does not name this node, or names other keys for it",
        "governor",
        "Its data stays as it is. If it was removed, that is all; if its keys were rotated, start it with the new ones.",
        3,
    ),
    "backlog_full": _code(
        "too much of this governor's log is not final",
        "governor",
        "See in `mesh status` and `mesh lineage ls` who refuses to attest it, and why; ask another governor meanwhile.",
        4,
    ),
    "catching_up": _code(
        "it does not hold yet what was final when it started, so its word does not count",
        "governor",
        "Wait; `mesh peer ls` shows how far it is. If it stands still, start a member that holds these records.",
        4,
    ),
    "barrier_pending": _code(
        "the node has started, and signs nothing before enough members have told what it signed before",
        "governor",
        "Start the other members: it goes on by itself once k-1 of them answer.",
        4,
    ),
    "overloaded": _code("the node sheds load", "governor", "Try again later, or another governor.", 4),
    "unavailable": _code("the node could not do it durably", "governor", "Try again; see the node's log.", 4),
    "internal_error": _code("the node met an error that nobody foresaw", "governor", "See its log, and report what it says.", 1),
    "draining": _code("the node is stopping", "governor", "Ask another governor.", 4),
    "unreachable": _code("nobody answered in time", "client", "Check the bus and the nodes: `mesh status`.", 4),
    "reply_forbidden": _code("the reply subject is no inbox", "bus", "Ask through a client; answers go to inboxes only.", 2),
    "not_found": _code("no record or statement of that name is held here", "node", "Check the id; ids accept unique prefixes.", 3),
    "ambiguous": _code("more than one record begins with that prefix", "node", "Give more of the id.", 3),
    # --- enforcer
    "possession": _code(
        "the presenter did not prove that it holds the key now", "enforcer", "Sign the enforcer's challenge with the holder key.", 2
    ),
    "domain_mismatch": _code("the authorization is for another domain", "enforcer", "Ask for one in this domain.", 2),
    "audience": _code("the authorization is for another enforcer or an earlier boot of this one", "enforcer", _RESEND, 2),
    "assurance_too_low": _code(
        "fewer governors agreed than this action demands", "enforcer", "Ask again with the assurance it demands.", 2
    ),
    "digest_mismatch": _code("what would run is not what was authorized", "enforcer", "Run exactly what was authorized.", 2),
    "not_yet_valid": _code("the authorization begins later", "enforcer", "Wait, and check the clocks.", 2),
    "expired": _code("the authorization is over", "enforcer", _RESEND, 2),
    "frontier_behind": _code("this view is older than the one the authorization was made in", "enforcer", "Let the view catch up.", 4),
    "obligation_unknown": _code(
        "an obligation of the authorization is not understood here", "enforcer", "Teach the enforcer or change the policy.", 2
    ),
    "used": _code("this intent was already spent", "enforcer", _RESEND, 2),
    "unrecorded": _code("no receipt shows that the decision is in its governor's log", "enforcer", _RESEND, 5),
    "outcome_backlog": _code("too many outcomes wait to be recorded", "enforcer", "Let a governor take them; see `mesh status`.", 4),
    "superseded": _code("this enforcer has said something newer", "governor", "Nothing: the newest word counts.", 2),
    "cancelled": _code("whoever asked for it gave up before it began", "enforcer", "Ask again if it is still wanted.", 1),
    # --- logs
    "log_conflict": _code("two histories of one log", "mirror, witness", "Keep the evidence; see `mesh fraud ls`.", 5),
    "member_frozen": _code(
        "one of this member's keys has provably signed two histories of a log, or a decision that others find wrong",
        "governor, enforcer",
        "See `mesh fraud ls`, ask another governor. A roster without it, or with other keys, ends that: `mesh roster remove NODE`.",
        2,
    ),
    "bad_checkpoint": _code("the checkpoint is not a valid note of this log", "witness, verifier", "Fetch it again from another node.", 5),
    "wrong_size": _code(
        "the proof begins at another size than the one cosigned last", "witness", "Ask again from the size that the witness tells.", 2
    ),
    "not_cosigned": _code(
        "an external witness did not cosign the checkpoint",
        "governor",
        "See the node's log: nothing depends on it, and it is asked again.",
        4,
    ),
    "bad_proof": _code("a proof does not lead to the root", "verifier", "Fetch it again from another node.", 5),
    "record_invalid": _code("a record is not what its log's rules allow", "attester, auditor", "Keep the evidence.", 5),
    "replay_mismatch": _code(
        "repeating the decision gives another answer", "attester, auditor", "Keep the evidence; the decider lied or is broken.", 5
    ),
    "body_missing": _code("a statement that a record names is not held", "attester, auditor", "Pull it from another member.", 4),
    "not_final": _code("fewer than k members attested it", "verifier", "Wait, or collect the certificate again.", 2),
    "former_certificate": _code(
        "k members of a former roster attested it, and too few of them are still there",
        "verifier",
        "Make the proof again: members hold a certificate of the newest roster.",
        2,
    ),
    "storage_rolled_back": _code(
        "storage is older than what this node has signed",
        "governor, store",
        "Start every other member: the node refills its log from them, and signs nothing until all have answered. If one is gone for good:"
        " `mesh roster rotate` with new keys begins a new log.",
        1,
    ),
    "storage_failed": _code(
        "storage failed; the node reloads and signs nothing meanwhile", "store", "See the node's log: disk, space, rights.", 1
    ),
    "storage_corrupt": _code(
        "stored bytes are not what their hash says",
        "store",
        "Start the node again: it mends what the others hold. If that does not help, move its data folder away first.",
        5,
    ),
    "node_running": _code("a node runs on that storage", "backup", "Stop it first; a backup can be made meanwhile, a restore cannot.", 1),
    "data_exists": _code(
        "there is something already where this would be put",
        "backup",
        "Name another folder; for a restore, --replace moves aside what is there.",
        3,
    ),
    "backup_foreign": _code(
        "it is the storage of another node, another mesh or other keys",
        "backup",
        "Take the backup of this node: `mesh node verify FROM` says whose one is.",
        3,
    ),
    # --- what only all logs together show
    "outcome_conflict": _code(
        "an enforcer has signed two histories of one boot",
        "auditor",
        "Keep the evidence: somebody else has its key, or its file was rolled back. Revoke the key.",
        5,
    ),
    "outcome_foreign": _code(
        "an authorization was used by another enforcer, boot or domain than it was made for",
        "auditor",
        "Keep the evidence, and look at that enforcer's host: it ran what it had to refuse.",
        5,
    ),
    "started_twice": _code(
        "one intent was started twice", "auditor", "Keep the evidence, and look at both enforcers' hosts and spent files.", 5
    ),
    "start_invalid": _code(
        "an enforcer signed a start that the rules do not allow it", "auditor", "Keep the evidence, and look at that enforcer's host.", 5
    ),
    "order_impossible": _code(
        "what enforcers said of one authorization cannot have happened in that order",
        "auditor",
        "Keep the evidence: an enforcer lied, or its file was rolled back. `mesh why INTENT` shows it.",
        5,
    ),
    "outcome_missing": _code(
        "a number in an enforcer's outcomes stands in no log",
        "auditor",
        "A governor swallowed it, or the enforcer skipped it: look for it in the enforcer's file. The alarm ends when it comes.",
        5,
    ),
    "authorization_missing": _code(
        "an enforcer says that it acted by an authorization that is in no log",
        "auditor",
        "Ask the governor that issued it for its log. The alarm ends when it comes.",
        5,
    ),
    "start_missing": _code(
        "an execution has ended whose start is in no log",
        "auditor",
        "As for outcome_missing: somebody kept it back. The alarm ends when it comes.",
        5,
    ),
    "end_missing": _code(
        "an execution has started, and how it ended is in no log",
        "auditor",
        "If it may still run, give --longest. Otherwise look at its enforcer's host: the next start of the enforcer says `unknown`.",
        4,
    ),
    "log_behind": _code(
        "records that a log's own key has signed cannot be had or judged",
        "auditor",
        "Start members that hold them; see who does: `mesh peer ls`.",
        4,
    ),
    "log_silent": _code(
        "a member does not answer, so what it alone holds was not seen", "auditor", "Start it, or see the bus: `mesh status`.", 4
    ),
    "finality_stalled": _code(
        "records of a log are not final although time has gone by",
        "auditor",
        "See which members are down or refuse to attest: `mesh status`.",
        4,
    ),
    "attest_lag": _code("a member has not attested what is final", "auditor", "See that node's log: `mesh status` shows how far it is.", 4),
    "witness_lag": _code(
        "a member has not witnessed what is final", "auditor", "See that node's log: `mesh status` shows how far it is.", 4
    ),
    # --- operating
    "config_invalid": _code("the configuration is not usable", "config", "Mend what is named; if several things are wrong, all are.", 3),
    "key_exposed": _code("a key file can be read by others", "signer", "chmod 600 it.", 3),
    "key_exists": _code("a key file stands there already, and keys are never overwritten", "signer", "Choose another path.", 3),
    "not_installed": _code("a library that this command needs is not installed", "cli", "Install govmesh[all].", 1),
    "usage": _code("the command was not given what it needs", "cli", "See --help.", 3),
    "exec_failed": _code("the program could not be started", "exec", "Check path and rights.", 1),
    "server_unusable": _code("no usable nats-server", "nats-server child", "Install govmesh[embedded], or set MESH_NATS_SERVER.", 1),
}
