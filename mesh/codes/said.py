"""What is wrong with bytes, signatures, rosters, policy files and identities.

Not here: what a code is (:mod:`mesh.codes.code`).
"""

from typing import Final

from mesh.codes.code import RESEND, SENDER, Code

__all__ = ["BYTES_AND_ROLES"]

BYTES_AND_ROLES: Final[dict[str, Code]] = {
    # --- bytes
    "too_large": Code("it is larger than its limit", "codec", "Make it smaller; limits stand in mesh/limits.py.", 3),
    "malformed": Code("the bytes are not of this kind", "codec", SENDER, 3),
    "non_canonical": Code("the bytes are not in the one allowed spelling", "codec", SENDER, 3),
    "wrong_kind": Code("a statement of another kind was expected here", "envelope", SENDER, 3),
    "bad_key": Code("a public key is not a valid point, or is listed twice", "keys", "Generate a key with `mesh key gen`.", 3),
    "bad_signature": Code("no valid signature by the key that must have signed", "envelope", "Sign it with the right key.", 5),
    "threshold_not_met": Code("fewer distinct keys signed than the role demands", "envelope", "Collect the missing signatures.", 5),
    # --- rosters, policy, identity
    "roster_unsound": Code("n, f and k do not make a safe quorum", "roster", "Need 2k > n + f and k <= n - f.", 3),
    "roster_unsafe": Code(
        "a quorum of the old roster and one of the new may have no honest member in common, or a log would go on under another key",
        "succession",
        "Make the change in several steps: `mesh roster check` shows the arithmetic.",
        3,
    ),
    "operator_unsigned": Code(
        "a roster says something new of an operator or its members that the operator has not signed",
        "roster",
        "Have the operator sign it: `mesh roster sign FILE --key OPERATOR_KEY`.",
        5,
    ),
    "too_few_owners": Code(
        "fewer owners would have to collude than were asked for", "cli", "See who owns what: `mesh trust`; give members to other owners.", 2
    ),
    "roster_conflict": Code(
        "the root has signed two rosters that follow the same one",
        "governor, enforcer",
        "Nothing is allowed meanwhile. `mesh streams ls` shows it; the root keys say which counts: `mesh resolve roster`.",
        5,
    ),
    "roster_pending": Code(
        "nobody acts under this roster: it has not begun, or the next one has and it is not known yet that enough members hold it",
        "governor, enforcer",
        "Ask again in a moment; if it lasts, too few members hold the next roster: `mesh peer ls`.",
        4,
    ),
    "handed_over": Code(
        "its signers are not, or no more, those of that stream: a roster has handed it over to others",
        "any verifier",
        "Have those sign whom the newest roster names: `mesh roster show`. What counts of the former word ends where that roster says.",
        5,
    ),
    "handover_missing": Code(
        "the roster changes who signs in a stream, and does not say up to where the word of the former signers counts",
        "any verifier",
        "Plan it with `mesh roster set`, which asks members how far each stream has come.",
        5,
    ),
    "handover_stale": Code(
        "members hold more of a stream than the roster hands over to its new signers; the rest would count no more",
        "mesh roster push",
        "Plan the roster anew, so that it hands over all of it, and have that signed.",
        5,
    ),
    "policy_conflict": Code(
        "the domain's policy signers have signed two different things under one number",
        "governor, enforcer",
        "Keep the proof: `mesh fraud show`. `mesh streams ls` shows both histories; the root keys say which counts: `mesh resolve`.",
        5,
    ),
    "wrong_mesh": Code("it belongs to another mesh", "any verifier", "Use the roster of the mesh it was made for.", 5),
    "wrong_epoch": Code("it names another roster or policy epoch than the active one", "any verifier", RESEND, 2),
    "unknown_member": Code("no such member in the roster", "any verifier", "Check the roster: `mesh roster show`.", 5),
    "identity_unknown": Code(
        "the identity document was not issued by an issuer of the roster", "governor, enforcer", "Have it issued by one.", 2
    ),
    "identity_expired": Code("the identity document is not valid now", "governor, enforcer", "Have a new one issued.", 2),
    "attribute_mismatch": Code(
        "an attribute of the identity document is not of the type that the domain declares", "governor", "Have the document issued anew.", 2
    ),
    "identity_mismatch": Code(
        "subject, key or role differ from the identity document", "governor, enforcer", "Use the key the document names.", 2
    ),
    "revoked": Code(
        "a revocation names something in the chain", "governor, enforcer", "Revocations are never undone; use another identity.", 2
    ),
    "halted": Code(
        "a halt of this domain is in force", "governor, enforcer", "Wait for the revokers to lift it: `mesh resume DOMAIN --key FILE`.", 2
    ),
}
