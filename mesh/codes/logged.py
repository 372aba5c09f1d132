"""What is wrong with logs, and what only all of them together show.

Not here: what a code is (:mod:`mesh.codes.code`).
"""

from typing import Final

from mesh.codes.code import Code

__all__ = ["LOGS"]

LOGS: Final[dict[str, Code]] = {
    # --- logs
    "log_conflict": Code("two histories of one log", "mirror, witness", "Keep the evidence; see `mesh fraud ls`.", 5),
    "member_frozen": Code(
        "one of this member's keys has provably signed two histories of a log, or a decision that others find wrong",
        "governor, enforcer",
        "See `mesh fraud ls`, ask another governor. A roster without it, or with other keys, ends that: `mesh roster remove NODE`.",
        2,
    ),
    "bad_checkpoint": Code("the checkpoint is not a valid note of this log", "witness, verifier", "Fetch it again from another node.", 5),
    "wrong_size": Code(
        "the proof begins at another size than the one cosigned last", "witness", "Ask again from the size that the witness tells.", 2
    ),
    "not_cosigned": Code(
        "an external witness did not cosign the checkpoint",
        "governor",
        "See the node's log: nothing depends on it, and it is asked again.",
        4,
    ),
    "bad_proof": Code("a proof does not lead to the root", "verifier", "Fetch it again from another node.", 5),
    "record_invalid": Code("a record is not what its log's rules allow", "attester, auditor", "Keep the evidence.", 5),
    "replay_mismatch": Code(
        "repeating the decision gives another answer", "attester, auditor", "Keep the evidence; the decider lied or is broken.", 5
    ),
    "body_missing": Code("a statement that a record names is not held", "attester, auditor", "Pull it from another member.", 4),
    "record_pruned": Code(
        "only the hash of this record is kept: it is below the floor that the root signed, final, and was pruned",
        "governor, store",
        "Read it in an archive, and judge that with `mesh verify DIR`: the answer says where archives are meant to be.",
        2,
    ),
    "record_young": Code(
        "a floor would let records go that may still be asked for",
        "mesh lineage prune",
        "Wait until they are eight days old, or name a smaller index.",
        2,
    ),
    "floor_falls": Code(
        "a larger floor of this log was signed before, and nodes keep to that",
        "mesh lineage prune",
        "Name an index that is not smaller.",
        2,
    ),
    "file_foreign": Code("a file that nothing in its folder names", "verifier", "See what it is; nothing vouches for it.", 2),
    "not_final": Code("fewer than k members attested it", "verifier", "Wait, or collect the certificate again.", 2),
    "former_certificate": Code(
        "k members of a former roster attested it, and too few of them are still there",
        "verifier",
        "Make the proof again: members hold a certificate of the newest roster.",
        2,
    ),
    "storage_rolled_back": Code(
        "storage is older than what this node has signed",
        "governor, store",
        "Start every other member: the node refills its log from them, and signs nothing until all have answered. If one is gone for good:"
        " `mesh roster rotate` with new keys begins a new log.",
        1,
    ),
    "storage_failed": Code(
        "storage failed; the node reloads and signs nothing meanwhile", "store", "See the node's log: disk, space, rights.", 1
    ),
    "storage_corrupt": Code(
        "stored bytes are not what their hash says",
        "store",
        "Start the node again: it mends what the others hold. If that does not help, move its data folder away first.",
        5,
    ),
    "node_running": Code("a node runs on that storage", "backup", "Stop it first; a backup can be made meanwhile, a restore cannot.", 1),
    "data_exists": Code(
        "there is something already where this would be put",
        "backup",
        "Name another folder; for a restore, --replace moves aside what is there.",
        3,
    ),
    "backup_foreign": Code(
        "it is the storage of another node, another mesh or other keys",
        "backup",
        "Take the backup of this node: `mesh node verify FROM` says whose one is.",
        3,
    ),
    # --- what only all logs together show
    "outcome_conflict": Code(
        "an enforcer has signed two histories of one boot",
        "auditor",
        "Keep the evidence: somebody else has its key, or its file was rolled back. Revoke the key.",
        5,
    ),
    "outcome_foreign": Code(
        "an authorization was used by another enforcer, boot or domain than it was made for",
        "auditor",
        "Keep the evidence, and look at that enforcer's host: it ran what it had to refuse.",
        5,
    ),
    "started_twice": Code(
        "one intent was started twice", "auditor", "Keep the evidence, and look at both enforcers' hosts and spent files.", 5
    ),
    "start_invalid": Code(
        "an enforcer signed a start that the rules do not allow it", "auditor", "Keep the evidence, and look at that enforcer's host.", 5
    ),
    "order_impossible": Code(
        "what enforcers said of one authorization cannot have happened in that order",
        "auditor",
        "Keep the evidence: an enforcer lied, or its file was rolled back. `mesh why INTENT` shows it.",
        5,
    ),
    "outcome_missing": Code(
        "a number in an enforcer's outcomes stands in no log",
        "auditor",
        "A governor swallowed it, or the enforcer skipped it: look for it in the enforcer's file. The alarm ends when it comes.",
        5,
    ),
    "authorization_missing": Code(
        "an enforcer says that it acted by an authorization that is in no log",
        "auditor",
        "Ask the governor that issued it for its log. The alarm ends when it comes.",
        5,
    ),
    "start_missing": Code(
        "an execution has ended whose start is in no log",
        "auditor",
        "As for outcome_missing: somebody kept it back. The alarm ends when it comes.",
        5,
    ),
    "end_missing": Code(
        "an execution has started, and how it ended is in no log",
        "auditor",
        "If it may still run, give --longest. Otherwise look at its enforcer's host: the next start of the enforcer says `unknown`.",
        4,
    ),
    "log_behind": Code(
        "records that a log's own key has signed cannot be had or judged",
        "auditor",
        "Start members that hold them; see who does: `mesh peer ls`.",
        4,
    ),
    "log_silent": Code(
        "a member does not answer, so what it alone holds was not seen", "auditor", "Start it, or see the bus: `mesh status`.", 4
    ),
    "finality_stalled": Code(
        "records of a log are not final although time has gone by",
        "auditor",
        "See which members are down or refuse to attest: `mesh status`.",
        4,
    ),
    "attest_lag": Code("a member has not attested what is final", "auditor", "See that node's log: `mesh status` shows how far it is.", 4),
    "witness_lag": Code(
        "a member has not witnessed what is final", "auditor", "See that node's log: `mesh status` shows how far it is.", 4
    ),
}
