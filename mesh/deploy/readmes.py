"""The pages of the shelf `nodes/`: what each role holds, does and cannot, and what it is today.

Not here: configurations (:mod:`mesh.deploy.shelves`).
"""

from typing import Final

__all__ = ["AUDITOR", "ENFORCER", "GOVERNOR", "NODES", "WITNESS"]

NODES: Final = """\
# nodes: what you deploy

One folder per role, rendered by `make schemas` from the code that reads these files; a test renders them again and compares.
Copy a folder, then put in your names, addresses and pin. There is no code here.

| role | runs as | holds | cannot |
|---|---|---|---|
| [governor](governor) | a process: `mesh node run` | node keys, its log, mirrors of others | finalize alone; change policy or roster |
| [enforcer](enforcer) | inside the governed program, or `mesh run` | its key, the spent set | run anything unverified |
| [auditor](auditor) | a process: `mesh audit run` | trust anchors only | change anything |
| [witness](witness) | inside every governor, or a process: `mesh witness run` | one key | vouch for content |

What a deployment needs besides, and how a mesh is operated, is in [docs/operations.md](../docs/operations.md).
"""

GOVERNOR: Final = """\
# Governor

Decides intents by policy, records every decision in its own append-only log, mirrors and witnesses the logs of the other members,
repeats their decisions and attests those it would have made itself.

| file | what it is |
|---|---|
| [node.toml](node.toml) | who it is, where its files are, whom it trusts |
| [nats.conf](nats.conf) | its login on the NATS servers: it may speak under its own name only |
| [govmesh-governor.service](govmesh-governor.service) | a systemd unit |
| [policy/payments](policy/payments) | a policy folder to begin with; `mesh policy check` and `mesh policy test` read it |

## What it holds

* `log.key`, `witness.key`, `attest.key`, `decision.key`: one use each, in files of its own user with mode 0600. Make them with
  `mesh key gen PATH --use log` and so on; their public halves stand in the roster.
* `bus.nk`: its login on the bus. It opens a connection and nothing else.
* one SQLite file in its data folder: its log, the mirrored logs, the statements they name. It is the truth; the streams of the bus
  only carry copies.

Governance never stands in `node.toml`: roster, quorum, bounds and policy are signed, and the roster is pinned by its id.

## Whom it trusts

| who | with what | and if they lie |
|---|---|---|
| root signers, 2 of 3 in the examples | the roster | below the threshold nothing happens |
| policy signers of a domain | its policy | below the threshold nothing happens; a forgotten expiry denies |
| an issuer | who holds which key | it can invent workloads, not permissions; its documents are recorded |
| other governors, any f of n | nothing one of them says alone | k must agree; another history of a log is proof against its owner |
| the NATS servers and their operator | to deliver, sometimes | only delay, and delay is denied |
| its own host and clock | keys, time | a clock that is off by more than ε denies; a stolen host is one of the f |

## What it cannot do

Finalize a record alone, change roster or policy, un-revoke, lower the assurance that policy demands, make a second history unseen.
At assurance `local`, the only one issued today, it *can* permit what policy forbids: the others do not attest it, so it never becomes
final, and every auditor sees it; but the execution may have happened.

## Today

It is a process of its own. Roster and policy come from files that node.toml names; a change takes effect after a restart.

With a table more in node.toml it serves its log to people without any login, as C2SP tlog-tiles over plain HTTP, below the log's
name (a TLS proxy or a CDN belongs in front), and asks external witnesses to cosign what it publishes. Their lines never count to k.
Without the table there is neither.

```
[outside]
listen = "127.0.0.1:8080"

[outside.witnesses.w1]
url = "https://witness.example"
vkey = "witness.example/w1+…"
```
"""

ENFORCER: Final = """\
# Enforcer

Stands between an authorization and the effect: verifies it offline, spends it durably, lets the action run once, reports what
happened. Its key is the *audience* of authorizations.

**Today there is no enforcer process.** The same machine runs in two places:

* in a governed Python program: `mesh.connect()` (class `in-process`);
* around a program: `mesh run --as ID --action A --resource R -- CMD…`.

So this folder holds what both of them read, and no unit.

| file | what it is |
|---|---|
| [context.toml](context.toml) | the mesh, the bus, whom to trust, who one is here; found by `--context`, `MESH_CONTEXT` or its name |
| [nats.conf](nats.conf) | the account of a tenant: intents under its own name, outcomes, questions, and heartbeats |

## What it holds

Its key and identity document, the file of spent intents and unsent outcomes, a fresh view of the mesh. At each start it draws a boot
nonce and honours only authorizations that name it.

## Whom it trusts

| who | with what | and if they lie |
|---|---|---|
| one governor | a `local` decision | found by the others, not prevented |
| k governors | that its view is new enough | fewer than k: nothing starts |
| the policy signers | the least assurance, lifetimes, who may enforce | a governor cannot lower them |
| the workload in front of it | nothing | it proves that it holds its key, at each use |
| its own host | everything | where the enforcer is bypassed nothing holds |

## What it cannot do, and what it is not

It cannot run anything unverified, twice, changed, or late. An `in-process` enforcer guards against mistakes and stale code, **not against
a hostile workload**, which can call the function behind the gate. Classes `sidecar` and `gateway` would; policy sees the class
(`context.attested.enforcer_class`) and can demand it.
"""

AUDITOR: Final = """\
# Auditor

Follows every log, verifies every signature, hash, proof and certificate, repeats every decision, and raises the alarm. It needs
nobody's permission to disagree.

| file | what it is |
|---|---|
| [context.toml](context.toml) | the mesh, the bus, whom to trust; `[auditor]` is its login, `audit` where it keeps how far it has come |
| [nats.conf](nats.conf) | its login: it hears what is published, reads the streams, asks nodes, and publishes nothing |
| [govmesh-auditor.service](govmesh-auditor.service) | a systemd unit for `mesh audit run` |

## What it holds

The pinned roster and the policies; no key of the mesh. Its bus login opens a connection and nothing else.

## Whom it trusts

| who | with what | and if they lie |
|---|---|---|
| whoever gave it the roster's id | the anchor of everything | take it from two of them, by two ways |
| governors | nothing | that is what it is for |
| the NATS servers | to deliver, sometimes | what is missing is asked for; what stays missing is said |

## What it cannot do

Change anything; tell what never reached an enforcer's log; check parameters whose openings were erased (it says *unverifiable*). What is
sealed for auditors it opens only with a key of theirs, which it does not hold: people do, with `mesh lineage open`.

## Today

It is a process of its own. It reads the same kind of context file as programs do, so the tables for programs stand there too; it uses
`mesh`, `trust`, `auditor` and `audit`.
"""

WITNESS: Final = """\
# Witness

States that a log only ever grew: a C2SP cosignature (tlog-cosignature) on the largest consistent tree it has seen.

Every governor is a witness of all members' logs, with its witness key, over the bus. **This folder is for one of its own**: a process that
belongs to no mesh, needs no login, and answers C2SP's add-checkpoint over HTTP for logs of any mesh and any maker.

| file | what it is |
|---|---|
| [witness.toml](witness.toml) | its name and key, where it listens, whose logs it watches |
| [govmesh-witness.service](govmesh-witness.service) | a systemd unit for `mesh witness run` |

## What it holds

* `witness.key`: made with `mesh key gen witness.key --use witness`. `mesh witness show --config witness.toml` prints its public half as
  others write it into their configuration.
* one SQLite file: of each log the last checkpoint it cosigned, under the log's own signature. It is durable before it is signed, and the
  file refuses to go back. `mesh witness init --config witness.toml [--key FILE]` makes it, once for each key and before the first start; a
  witness whose file is missing does not start. **Never put back an older copy, and never run two**: if the file is lost, retire the key.

## Whom it trusts

| who | with what | and if they lie |
|---|---|---|
| whoever configures it | which key belongs to which log | it watches another log than you think |
| the logs | nothing | a second history is refused, and what was signed is kept: `mesh witness evidence` |
| whoever asks | nothing | requests are bounded in size, time and number |
| its clock | the time in a cosignature | readers see a wrong time; sizes and roots stay right |

| a witness | |
|---|---|
| refuses | a smaller tree, another root at one size, a tree without a proof from the last |
| cannot | vouch for what the records say: that is an attestation, under another key; make anything final |

It speaks plain HTTP: put a TLS proxy in front. Signatures of type Ed25519 only; extension lines in checkpoints are refused.
"""
