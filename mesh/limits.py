"""Every maximum of the mesh, with its unit last and its reason beside it; nothing else in the code invents a bound.

Each is tested at the limit and one past it. They bound *cost*: what one hostile input can make a node do.
"""

from typing import Final

__all__ = [
    "ACTIVATIONS_MAX",
    "AFTER_MAX",
    "ANCESTORS_MAX",
    "APPROVALS_BYTES_MAX",
    "APPROVALS_MAX",
    "APPROVAL_BYTES_MAX",
    "APPROVAL_LIFE_MS_MAX",
    "APPROVAL_USES_MAX",
    "ARCHIVE_LINE_BYTES_MAX",
    "ARCHIVE_SHELF_BYTES_MAX",
    "ASIDE_MAX",
    "AUDITORS_MAX",
    "AUDIT_BOOTS_MAX",
    "AUDIT_HOLES_MAX",
    "AUDIT_KEEP_MS_MAX",
    "AUDIT_LAGS_MAX",
    "AUDIT_LIVES_MAX",
    "AUDIT_LOGS_MAX",
    "AUDIT_OUTCOMES_MAX",
    "AUDIT_PARTS_MAX",
    "BATCH_EVENTS_MAX",
    "BATCH_RECORDS_MAX",
    "BUNDLE_BYTES_MAX",
    "CLOCK_MS_MAX",
    "CONFLICT_BYTES_MAX",
    "COSIGNED_HEADS_MAX",
    "DETERMINING_MAX",
    "ENVELOPE_BYTES_MAX",
    "FLOORS_MAX",
    "FRAUD_BYTES_MAX",
    "FRAUD_NOTE_CHARS_MAX",
    "FRONTIER_STREAMS_MAX",
    "GRANT_ACTIONS_MAX",
    "GRANT_LIFE_MS_MAX",
    "HEADS_BYTES_MAX",
    "HEARD_ENFORCERS_MAX",
    "HTTP_ANSWERS_BYTES_MAX",
    "HTTP_CONNECTIONS_MAX",
    "HTTP_HEAD_BYTES_MAX",
    "HTTP_PIECES_MAX",
    "HTTP_REQUESTS_MAX",
    "HTTP_WAIT_MS_MAX",
    "INTENT_BYTES_MAX",
    "INTENT_LIFE_MS_MAX",
    "INT_MAX",
    "KEY_FILE_BYTES_MAX",
    "LIFTS_MAX",
    "LISTED_RECORDS_MAX",
    "LIST_ITEMS_MAX",
    "MEASUREMENTS_MAX",
    "MEMBERS_MAX",
    "MESSAGE_BYTES_MAX",
    "NOTE_BYTES_MAX",
    "NOTE_SIGNATURES_MAX",
    "OUTBOX_OUTCOMES_MAX",
    "PARAMS_MAX",
    "PARENTS_BYTES_MAX",
    "PARENT_AGE_MS_MAX",
    "PARENT_RECORDS_MAX",
    "POLICY_BYTES_MAX",
    "POLICY_CHECK_MS_MAX",
    "POLICY_DEPTH_MAX",
    "POLICY_JSON_BYTES_MAX",
    "POLICY_JSON_DEPTH_MAX",
    "POLICY_NAME_CHARS_MAX",
    "PROOF_BUNDLE_BYTES_MAX",
    "PROOF_HASHES_MAX",
    "PROOF_PAGE_BYTES_MAX",
    "PROOF_ROSTERS_MAX",
    "PRUNE_AGE_MS_MIN",
    "QUESTIONS_MAX",
    "QUEUE_BYTES_MAX",
    "QUEUE_LAW_MAX",
    "QUEUE_LINEAGE_MAX",
    "QUEUE_OUTCOMES_MAX",
    "QUEUE_REQUESTS_MAX",
    "QUEUE_SYNCS_MAX",
    "QUEUE_URGENT_MAX",
    "REASON_CHARS_MAX",
    "RECORD_BYTES_MAX",
    "REQUEST_BYTES_MAX",
    "SAMPLE_RECORDS_MAX",
    "SCHEMA_BYTES_MAX",
    "SEALED_BOXES_BYTES_MAX",
    "SEALED_BOXES_MAX",
    "SEALED_BOX_BYTES_MAX",
    "SEAL_AUDITORS_MAX",
    "SIGNATURES_MAX",
    "SPARED_MAX",
    "SQLITE_WAIT_MS_MAX",
    "STATEMENT_BYTES_MAX",
    "STREAM_STATEMENTS_MAX",
    "STRING_CHARS_MAX",
    "TLOG_POLICY_BYTES_MAX",
    "TLOG_PROOF_BYTES_MAX",
    "TREE_SIZE_MAX",
    "UNLAWFUL_BYTES_MAX",
    "WITNESSES_MAX",
    "WITNESS_ASK_MS_MAX",
    "WITNESS_EVIDENCE_MAX",
    "WITNESS_LOGS_MAX",
    "WITNESS_REQUEST_BYTES_MAX",
]

INT_MAX: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 8785, section 3.2.2.3)."""
CLOCK_MS_MAX: Final = 253_402_300_799_999
"""End of the year 9999, in ms since the epoch: later times are garbage, not plans."""

INTENT_BYTES_MAX: Final = 16_384
"""An intent's payload: parameters are facts for policy, not cargo; large inputs go in as digests."""
STATEMENT_BYTES_MAX: Final = 65_536
"""Any other statement's payload, unless its kind says less (rosters of 100 members fit)."""
ENVELOPE_BYTES_MAX: Final = 131_072
"""A statement in base64 with all its signatures."""
RECORD_BYTES_MAX: Final = 65_535
"""A record's leaf data: C2SP tlog-tiles writes entry lengths in 16 bits."""
REQUEST_BYTES_MAX: Final = 163_840
"""An intent with identity document, openings, sealed boxes, approvals, papers, as it comes from the bus: checked before any decoding."""
MESSAGE_BYTES_MAX: Final = 1_000_000
"""Any message on the bus: just below nats-server's default max_payload of 1 MiB."""
NOTE_BYTES_MAX: Final = 65_536
"""A signed note: a checkpoint with a hundred signatures is 14 kB."""
NOTE_SIGNATURES_MAX: Final = 100
"""Signature lines of one note, as Go's x/mod/sumdb/note has it."""
WITNESS_REQUEST_BYTES_MAX: Final = 69_632
"""An add-checkpoint body: a note behind 63 hashes of 45 bytes a line."""
TLOG_PROOF_BYTES_MAX: Final = 163_840
"""A tlog-proof: a note, 63 hashes, and one record in base64 as its extra line."""
WITNESS_LOGS_MAX: Final = 1_024
"""Logs of one witness: what it knows of each stands in memory, and rosters of ten meshes are a hundred."""
WITNESS_EVIDENCE_MAX: Final = 16
"""Checkpoints kept that contradict one that was cosigned, of one log: one is proof enough, more may show how far it went."""
WITNESSES_MAX: Final = 16
"""External witnesses of one log: each is asked about every published checkpoint, and its line must fit the note."""
WITNESS_ASK_MS_MAX: Final = 2_000
"""One external witness's answer, connecting included; whoever is slower is published without."""
TLOG_POLICY_BYTES_MAX: Final = 262_144
"""A C2SP tlog-policy: the format recommends 32 logs and 32 witnesses; a thousand lines fit."""
HTTP_HEAD_BYTES_MAX: Final = 8_192
"""Request line and headers: no path or header that is read here is longer than 300 bytes."""
HTTP_WAIT_MS_MAX: Final = 10_000
"""From a connection's first moment to a whole request, and from an answer to its last byte: slow clients are ended then."""
HTTP_CONNECTIONS_MAX: Final = 256
"""Connections of one HTTP door; beyond, the one that has been without a request for longest makes room."""
HTTP_REQUESTS_MAX: Final = 1_000
"""Requests on one connection; the next one comes on a new one, so that nobody keeps a place for ever."""
HTTP_PIECES_MAX: Final = 2_048
"""Pieces in which a body may come: chunks of one byte cost a hundred times what they carry."""
HTTP_ANSWERS_BYTES_MAX: Final = 67_108_864
"""Answers that wait to be read by slow clients, of all connections of a door together: four of the largest."""
PROOF_BUNDLE_BYTES_MAX: Final = 8_000_000
"""A proof bundle: a policy bundle, and records, statements and proofs of a decision and its outcomes."""
PROOF_PAGE_BYTES_MAX: Final = 11_500_000
"""A proof as a page: the bundle and a roster in base64, and the page around them."""
ARCHIVE_LINE_BYTES_MAX: Final = 8_000_100
"""One line of an archive of proofs, and all new parts of one proof: a proof bundle and what stands around it."""
ARCHIVE_SHELF_BYTES_MAX: Final = 16_777_216
"""Parts that whoever writes or reads an archive holds for the proofs to come: those of two of the largest proofs."""
FRAUD_NOTE_CHARS_MAX: Final = 1_024
"""A checkpoint with the one line that a proof against a member is about: at their longest names some 500."""
FRAUD_BYTES_MAX: Final = 8_192
"""A proof against a member: two such notes, and the hashes of one Merkle proof."""
UNLAWFUL_BYTES_MAX: Final = 40_960
"""Of the other kind: one such note, a Merkle proof, and refusals by more than a third of as many members as there can be, 1 kB each."""
CONFLICT_BYTES_MAX: Final = 262_400
"""A proof of a conflict: two statements with all their signatures, and what stands around them."""
BUNDLE_BYTES_MAX: Final = 999_000
"""A policy bundle: parsing is superlinear in hostile text, and it must fit one message."""
POLICY_BYTES_MAX: Final = 16_384
"""One Cedar policy: longer ones are generated, and nobody reviews those."""
POLICY_NAME_CHARS_MAX: Final = 100
"""The id of a policy, or an obligation."""
DETERMINING_MAX: Final = 64
"""Policies that determine one decision, or fail in it: their names must fit into a denial of 8 kB."""
POLICY_DEPTH_MAX: Final = 32
"""Nested brackets or ifs in policy text: about 90 kill a 1 MB stack inside the parser, with no exception."""
POLICY_JSON_BYTES_MAX: Final = 131_072
"""One Cedar policy in its JSON form, which is some six times as long as its text."""
POLICY_JSON_DEPTH_MAX: Final = 120
"""Nested brackets in it: the engine's reader ends at 128, and at two a level this keeps expressions below 60 levels."""
POLICY_CHECK_MS_MAX: Final = 30_000
"""How long a candidate bundle may keep the child that parses it: what takes longer is not policy."""
SCHEMA_BYTES_MAX: Final = 65_536
"""The entity types of one domain."""

KEY_FILE_BYTES_MAX: Final = 512
"""A key file is one line of 180 bytes; whatever else stands in its place is not read on."""

STRING_CHARS_MAX: Final = 1_024
"""One string parameter or attribute."""
LIST_ITEMS_MAX: Final = 64
"""Items of one list parameter or attribute."""
PARAMS_MAX: Final = 64
"""Parameters of one intent; attributes of one entity."""
MEASUREMENTS_MAX: Final = 32
"""Measured things (executable, script, model, …) of one intent."""
SIGNATURES_MAX: Final = 128
"""Signatures on one statement: more than members plus signers of any sound roster."""
ACTIVATIONS_MAX: Final = 4_096
"""Of one domain: every proof of a decision carries them all."""
MEMBERS_MAX: Final = 100
"""Members of one roster; larger meshes use groups."""
AUDIT_LOGS_MAX: Final = 400
"""Logs of which an auditor remembers how far it has come; of those beyond, whose owners have left, it begins anew."""
COSIGNED_HEADS_MAX: Final = 128
"""Trees of other logs that one record names; the others stand in the next one."""
AUDIT_BOOTS_MAX: Final = 4_096
"""Boots of enforcers of which an auditor knows how far their outcomes go: a program that is run once a minute makes 1,440 a day."""
AUDIT_HOLES_MAX: Final = 32
"""Runs of numbers that lack in one boot; beyond, they are only counted: whoever swallows so much is found anyway."""
AUDIT_OUTCOMES_MAX: Final = 16_384
"""Ids of outcomes that an auditor keeps of all boots together, to see a second one of a number: half a megabyte of its file."""
AUDIT_LIVES_MAX: Final = 8_192
"""Executions of which an auditor keeps what it has seen until all has come; in the order in which logs are read few wait for long."""
AUDIT_PARTS_MAX: Final = 8
"""Authorizations, and outcomes, of one intent that an auditor keeps: an execution has one, and two."""
AUDIT_KEEP_MS_MAX: Final = 120_000
"""How long an execution that is over is kept, so that a second one of its intent is seen; later it is an outcome without authorization."""
AUDIT_LAGS_MAX: Final = 1_024
"""Pairs of member and log that lag, of which is remembered since when: with more, the mesh is down."""
FRONTIER_STREAMS_MAX: Final = 180
"""Governance streams in one frontier: a heartbeat that names so many, at their longest, still fits one statement."""
HEADS_BYTES_MAX: Final = 8_000_000
"""Certificates of all logs in one file, of which a sample is drawn: of four hundred logs with a hundred signatures each they are 6 MB."""
SAMPLE_RECORDS_MAX: Final = 10_000
"""Records of one sample: whoever wants more exports them all."""
LISTED_RECORDS_MAX: Final = 10_000
"""Records of one listing, which stand in memory until they are printed: what is older is asked for with ``--until``."""
HEARD_ENFORCERS_MAX: Final = 1_024
"""Enforcers of which one node knows from one log what they said last that they have heard; beyond, the oldest word is forgotten."""
LIFTS_MAX: Final = 256
"""Halts that one resume lifts: far more than anybody signs in a day; beyond, it takes another resume."""
ASIDE_MAX: Final = 512
"""Other histories that one resolve names: more than anybody makes by mistake; a thief's are still honoured unnamed."""
ERASED_MAX: Final = 256
"""Intents that one erasure names; beyond, it takes another: every node and every program keeps it for ever."""
FLOORS_MAX: Final = 256
"""Logs of which one retention says from where on they are kept; beyond, it takes another."""
PRUNE_AGE_MS_MIN: Final = 691_200_000
"""A record that is pruned: eight days old, one more than an approval or the papers of a parent can be good for, and the longest of all."""
SPARED_MAX: Final = 256
"""Documents of a revoked issuer that one revocation spares; beyond, they are issued anew by another one."""
REASON_CHARS_MAX: Final = 200
"""Why somebody revoked or halted: every node and every program keeps it for ever."""
STREAM_STATEMENTS_MAX: Final = 100_000
"""Statements of one governance stream: what a stolen revoker key can make every node hold, of some kilobyte each."""
PROOF_HASHES_MAX: Final = 63
"""Hashes of one Merkle proof: C2SP tlog-witness caps consistency proofs there, and trees end at 2^63."""
PROOF_ROSTERS_MAX: Final = 256
"""Rosters in one proof bundle: a change every week for five years; of ten members each they are 3 MB of the 8."""
TREE_SIZE_MAX: Final = 2**53 - 1
"""Records of one log: sizes travel as JSON integers too."""

INTENT_LIFE_MS_MAX: Final = 60_000
"""expires_ms - created_ms of an intent: a stored intent executed late is a hazard."""
AUDITORS_MAX: Final = 64
"""Auditors that a policy bundle names: those of a company, not of a country."""
SEAL_AUDITORS_MAX: Final = 8
"""Auditors for whom one parameter is sealed: each costs a box in every request, in every mirror."""
SEALED_BOXES_MAX: Final = 32
"""Boxes beside one intent, which names each with 200 bytes of its own 16 kB."""
SEALED_BOX_BYTES_MAX: Final = 4_400
"""One box: the longest string in four-byte characters with name and salt, padded to 256 bytes, and libsodium's 48."""
SEALED_BOXES_BYTES_MAX: Final = 16_384
"""All boxes of one intent; twice as much in hex, beside an intent of its largest size."""
APPROVAL_BYTES_MAX: Final = 4_096
"""The payload of an approval or a break-glass grant: its longest reason and names fit."""
APPROVALS_MAX: Final = 4
"""Approvals and grants that come with one intent: each is verified before anything is decided."""
APPROVALS_BYTES_MAX: Final = 20_480
"""All their envelopes together: they stand in the record of the decision, which has 64 kB."""
APPROVAL_USES_MAX: Final = 64
"""How often one approval or grant may be used: more is not an exception, but a policy."""
APPROVAL_LIFE_MS_MAX: Final = 604_800_000
"""An approval: one week. Enforcers that lose their spent store forget what was used, so nothing approved lives for ever."""
GRANT_LIFE_MS_MAX: Final = 14_400_000
"""A break-glass grant: four hours. An emergency that lasts longer is granted again, by people who look again."""
GRANT_ACTIONS_MAX: Final = 16
"""Actions that one grant names: it must be readable at night."""
AFTER_MAX: Final = 4
"""Finished executions whose results one intent says that it uses: the papers of each are verified before anything is decided."""
ANCESTORS_MAX: Final = 8
"""How deep executions stand within one another: beyond, nobody can say any more who does what for whom."""
PARENTS_BYTES_MAX: Final = 24_576
"""The papers of all parents together: they stand in the record of the decision, which has 64 kB, beside the approvals."""
PARENT_AGE_MS_MAX: Final = 604_800_000
"""Since a parent has started: one week. Of one whose end nobody ever said, papers would be good for ever."""
PARENT_RECORDS_MAX: Final = 64
"""Records about a parent in which its end is looked for: an execution has three in each log at most, and with more nobody may begin."""
QUESTIONS_MAX: Final = 64
"""Questions one node looks up at the same time; the next is told `overloaded`: each may read a megabyte."""
QUEUE_REQUESTS_MAX: Final = 4_096
"""Requests waiting for one governor; the next is told `overloaded` at once."""
QUEUE_OUTCOMES_MAX: Final = 1_024
"""Requests to record outcomes waiting for one governor; their enforcers keep them and ask the next one."""
QUEUE_SYNCS_MAX: Final = 512
"""Starting members and enforcers waiting for a heartbeat that names their boot: half a second's worth of heartbeats."""
QUEUE_LAW_MAX: Final = 256
"""Messages with governance statements that wait, and offers of some: beyond, whoever offers is told, and the rest is pulled later."""
QUEUE_LINEAGE_MAX: Final = 4_096
"""Records, checkpoints and certificates of other members that wait; beyond, new ones are dropped and pulled later."""
QUEUE_URGENT_MAX: Final = 4_096
"""Heartbeats and cosignatures that wait; beyond, new ones are dropped and the next ones say more."""
QUEUE_BYTES_MAX: Final = 33_554_432
"""Waiting in any one queue of a governor: a thousand messages of a megabyte would be memory, not waiting."""
BATCH_EVENTS_MAX: Final = 64
"""Events folded into one step and one commit: beyond, latency grows and the fsync is paid off already."""
BATCH_RECORDS_MAX: Final = 128
"""Records in one lineage message: the sweet spot measured between 32 and 128."""
OUTBOX_OUTCOMES_MAX: Final = 1_024
"""Outcomes of one enforcer that no governor has made final yet; past it nothing starts: what is done must become known."""
SQLITE_WAIT_MS_MAX: Final = 5_000
"""Waiting for another process's lock on a shared file; whoever asked is denied then."""
