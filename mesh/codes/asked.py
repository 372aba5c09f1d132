"""What is wrong with a request, or why it may not run.

Not here: what a code is (:mod:`mesh.codes.code`).
"""

from typing import Final

from mesh.codes.code import RESEND, Code

__all__ = ["REQUESTS"]

REQUESTS: Final[dict[str, Code]] = {
    # --- intents
    "unauthenticated": Code("the intent is not signed by its holder key", "governor", "Sign the intent with the holder key.", 2),
    "intent_expired": Code("the intent's time is over, or not yet begun", "governor", RESEND, 2),
    "intent_too_long": Code("the intent asks for a longer life than an intent may have", "governor", "Shorten expires_ms - created_ms.", 2),
    "domain_unknown": Code("no such enforcement domain here", "governor", "See the domains: `mesh status`.", 2),
    "action_unknown": Code("the domain declares no such action", "governor", "Declare it in the policy's domain.toml.", 2),
    "audience_unknown": Code("the domain does not list this enforcer", "governor", "Add the enforcer to the policy.", 2),
    "params_mismatch": Code("the parameters are not those the action declares", "governor", "Match names, types and privacy classes.", 2),
    "erased": Code(
        "what its committed parameters hid was erased by the root's word",
        "governor, verifier",
        "Nothing is wrong: it cannot be repeated any more. To do it again, sign a new intent.",
        2,
    ),
    "seal_mismatch": Code(
        "a parameter is not sealed for exactly those auditors, under those keys, that the policy names",
        "governor",
        "Ask again: the policy has perhaps just changed. Who they are: `mesh policy show DOMAIN`.",
        2,
    ),
    "box_mismatch": Code(
        "a sealed box is missing, one too many, or not the one whose hash the signed intent names",
        "governor, verifier",
        "Send the boxes you named. Of a record: ask another member for it, for on its way anybody can spoil a box.",
        2,
    ),
    "box_malformed": Code(
        "a sealed box does not have the length of one: it was cut, or never was one",
        "governor, verifier",
        "Send whole boxes. Of a record: ask another member for it.",
        3,
    ),
    "not_sealed_for": Code(
        "nothing there is sealed for this key", "mesh lineage open", "See for whom: `mesh lineage show ID`; use the key of one of them.", 3
    ),
    "sealed_rubbish": Code(
        "a box that its signed intent names does not open with the key that it is for, or holds no value: who asked has not sealed what "
        "they said",
        "mesh lineage open",
        "Keep the proof, `mesh prove ID`, and ask the signer of the intent: with the proof and your key anybody can see it.",
        5,
    ),
    "sealed_falsely": Code(
        "a box that its signed intent names holds another value than it commits to, or is another holder's: who asked has lied",
        "mesh lineage open",
        "Keep the proof, `mesh prove ID`: the intent is signed, and with the proof and your key anybody can see it.",
        5,
    ),
    "opening_mismatch": Code(
        "an opening is missing or does not match its commitment", "governor, verifier", "Send the openings you signed.", 2
    ),
    "entity_missing": Code(
        "principal or resource is unknown to the policy bundle", "governor", "Add the entity, or declare its type open.", 2
    ),
    "assurance_unavailable": Code("the assurance asked for cannot be given here", "governor", "Ask for a lower one, if policy allows.", 2),
    "intent_conflict": Code("this intent was already answered otherwise", "governor", "Use a new nonce for a new intent.", 2),
    # --- decision
    "policy_denied": Code("policy does not permit it", "governor", "See which policies decided: `mesh why ID`.", 2),
    "approval_needed": Code(
        "policy permits it only with approvals that did not come with it",
        "governor, enforcer",
        "Have it approved: each of those people runs `mesh approve INTENT --key FILE`; then ask again with --approval FILE.",
        2,
    ),
    "parent_unknown": Code(
        "the papers beside the intent are not those of the executions that it names as its parents",
        "governor",
        "Send for each, in order, its authorization and its `started` or `finished`: `mesh run --papers FILE` writes them.",
        2,
    ),
    "parent_mismatch": Code(
        "the papers of a parent do not fit one another", "governor", "Send them as the parent's own gate wrote them.", 5
    ),
    "parent_over": Code(
        "the execution within which this would run is not running, as far as can be known",
        "governor",
        "Begin it anew, or let this one stand alone: `env -u MESH_WITHIN mesh run ...`.",
        2,
    ),
    "parent_unfinished": Code(
        "an execution whose result this would use has not finished with that result",
        "governor",
        "Wait until it has finished, and quote the outcome that it has then.",
        2,
    ),
    "parent_foreign": Code(
        "whoever asks neither holds the parent's key nor brings its holder's countersignature",
        "governor",
        "Ask as the parent's identity, or have its program countersign: `within=execution` in the same process does.",
        2,
    ),
    "too_deep": Code(
        "it would run within more executions than may stand within one another",
        "governor",
        "Let the part stand alone, or nearer to the root.",
        2,
    ),
    "approval_mismatch": Code(
        "an approval or grant is for something else, or came twice",
        "governor, enforcer",
        "Have exactly this effect approved: `mesh approve INTENT --key FILE` shows it.",
        2,
    ),
    "approval_expired": Code("an approval or grant is not valid now", "governor, enforcer", "Have it approved again.", 2),
    "approval_too_long": Code(
        "an approval or grant asks for a longer life than it may have", "governor, enforcer", "Sign one with a shorter --for.", 3
    ),
    "approval_used": Code("an approval or grant was used as often as it says", "enforcer", "Have it approved again.", 2),
    "approver_unknown": Code(
        "the roster has no such group of approvers", "governor, enforcer", "See the groups: `mesh roster show FILE`.", 2
    ),
    "policy_error": Code(
        "a policy failed while it was evaluated, so nothing is allowed", "governor", "Mend the policy named in the record.", 2
    ),
    "policy_expired": Code("the policy manifest is not valid now", "governor, enforcer", "Sign and activate a new epoch.", 2),
    "policy_reads_sealed": Code(
        "a policy reads a parameter that is sealed for auditors, which no governor ever sees",
        "policy",
        "Decide by something else, or declare the parameter committed: governors see what is committed.",
        3,
    ),
    "policy_invalid": Code("the policy bundle fails its checks", "policy", "Run `mesh policy check DIR`.", 3),
    "policy_unknown": Code(
        "a statement that says which policy or roster epoch is in force is not held here yet",
        "governor, enforcer, auditor",
        "Wait: it is asked for. `mesh policy ls` shows who holds what.",
        4,
    ),
    "policy_too_deep": Code("policy text is nested deeper than the engine can take", "policy", "Flatten brackets and ifs.", 3),
    "policy_tests_failed": Code("an embedded policy test did not give what it must", "policy", "Run `mesh policy test DIR`.", 2),
    "policy_flips": Code(
        "more recorded decisions would go otherwise, or could not be asked any more, than is allowed",
        "cli",
        "See which: change the policy, or allow as many with --max-flips.",
        2,
    ),
    "engine_unavailable": Code("the policy engine gave no answer for complete inputs", "governor", "See the node's log.", 4),
    "stale": Code("fewer than k members vouch for this view", "governor, enforcer", "Wait for the mesh to heal; see `mesh status`.", 4),
    "clock_unsure": Code("the clock cannot be trusted now", "governor, enforcer, witness", "Mend time synchronisation on this host.", 4),
}
