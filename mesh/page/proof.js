/* A proof bundle judged in a browser: the checks of mesh/verify.py that need no policy engine, in the same order, under the same names.

   Rules
   -----
   1. What cannot be checked here is never called VERIFIED; what goes wrong in an unforeseen way has FAILED.
   2. The bundle is read in one spelling only: it is parsed, written again and compared. Its parts are then what they were.
   3. What a statement may hold is not said here: the page carries the schemas of the types that the mesh itself reads by.
   4. Whatever is shown goes through textContent.

   Numbers such as (4) are the steps of mesh/verify.py. The rule for certificates stands in one place: CERTIFICATES below.
   Not here: evaluating Cedar policies (`mesh verify` repeats decisions), revocations that came later. */
"use strict";

const Proof = (() => {
  const GIVEN = JSON.parse(document.getElementById("schemas").textContent); // {kinds, bodies, defs, limits}
  const MAX = GIVEN.limits;

  class Refused extends Error {
    constructor(code, detail = "") { super(`${code}: ${detail}`); this.code = code; this.detail = detail; }
  }
  class Skipped extends Error {
    constructor(why, code = "") { super(why); this.code = code; }
  }
  const refuse = (code, detail) => { throw new Refused(code, detail); };
  const skip = (why, code) => { throw new Skipped(why, code); };
  const same = (one, other) => canonical(one) === canonical(other);
  const last = (list) => list[list.length - 1];
  const short = (id) => `${String(id).slice(0, 12)}…`;

  // ------------------------------------------------------------------------------------------------------------- bytes

  const UTF8 = new TextEncoder();
  const utf8 = (text) => UTF8.encode(text);
  const text = (bytes) => {
    try { return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes); }
    catch { return refuse("malformed", "not UTF-8"); }
  };
  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const unhex = (name) => Uint8Array.from(name.match(/../g) || [], (pair) => parseInt(pair, 16));
  const join = (...parts) => {
    const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    parts.reduce((at, part) => { whole.set(part, at); return at + part.length; }, 0);
    return whole;
  };
  const toBase64 = (bytes) => {
    let binary = "";
    for (let at = 0; at < bytes.length; at += 32768) binary += String.fromCharCode(...bytes.subarray(at, at + 32768));
    return btoa(binary);
  };
  const fromBase64 = (written) => {
    let bytes;
    try { bytes = Uint8Array.from(atob(written), (char) => char.charCodeAt(0)); } catch { return refuse("malformed", "base64"); }
    return toBase64(bytes) === written ? bytes : refuse("non_canonical", "base64");
  };
  const equal = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);
  const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha256Hex = async (bytes) => hex(await sha256(bytes));
  const bounded = (bytes, most) => bytes.length > most ? refuse("too_large", `${bytes.length} bytes, at most ${most}`) : bytes;

  /* Python sorts by code points, JavaScript by UTF-16 units. */
  const byCodePoint = (one, other) => {
    const [left, right] = [Array.from(one), Array.from(other)];
    for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
      if (left[at] !== right[at]) return left[at].codePointAt(0) - right[at].codePointAt(0);
    }
    return left.length - right.length;
  };
  const sorted = (names) => [...names].sort(byCodePoint);

  const HALF = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
  /* The one spelling of a value (RFC 8785, without floats and nulls). */
  const canonical = (value) => {
    if (typeof value === "boolean") return String(value);
    if (typeof value === "number") return Number.isSafeInteger(value) ? String(value) : refuse("malformed", "a number that is no safe integer");
    if (typeof value === "string") {
      return HALF.test(value) ? refuse("malformed", "half a character") : JSON.stringify(value);
    }
    if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
    if (value === null || typeof value !== "object") return refuse("malformed", "a value that stands in no statement");
    return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
  };

  /* Objects without a prototype: a domain may be called "constructor", and a parameter "__proto__". */
  const bare = (value) => {
    if (Array.isArray(value)) return value.map(bare);
    if (value === null || typeof value !== "object") return value;
    const copy = Object.create(null);
    for (const key of Object.keys(value)) copy[key] = bare(value[key]);
    return copy;
  };
  const record = (members) => Object.assign(Object.create(null), members);

  const parse = (bytes, most) => {
    const written = text(bounded(bytes, most));
    let value;
    try { value = bare(JSON.parse(written)); } catch (error) { return refuse("malformed", String(error.message).slice(0, 160)); }
    return canonical(value) === written ? value : refuse("non_canonical", "not in the one allowed spelling");
  };

  // ------------------------------------------------------------------------------------------------------------- schemas

  const PATTERNS = new Map();
  const matches = (pattern, value) => {
    if (!PATTERNS.has(pattern)) PATTERNS.set(pattern, new RegExp(pattern));
    return PATTERNS.get(pattern).test(value);
  };
  const KNOWN = new Set(["type", "title", "description", "properties", "required", "additionalProperties", "propertyNames", "maxProperties",
    "minProperties", "items", "minItems", "maxItems", "minLength", "maxLength", "pattern", "minimum", "maximum", "enum", "anyOf",
    "discriminator", "$ref", "contentEncoding"]);
  const TYPES = {
    object: (value) => typeof value === "object" && !Array.isArray(value),
    array: Array.isArray,
    string: (value) => typeof value === "string",
    integer: Number.isSafeInteger,
    boolean: (value) => typeof value === "boolean",
  };

  /* Whether a value is what a schema says; a word of the schema that is not known here is never passed over. */
  const fits = (schema, value) => {
    for (const word of Object.keys(schema)) if (!KNOWN.has(word)) throw new Error(`a schema says ${word}`);
    if (schema.$ref) return fits(GIVEN.defs[schema.$ref.slice("#/$defs/".length)], value);
    if (schema.anyOf) return schema.anyOf.some((one) => fits(one, value));
    if (schema.enum && !schema.enum.includes(value)) return false;
    if (schema.type && !TYPES[schema.type](value)) return false;
    if (typeof value === "string") {
      const length = Array.from(value).length;
      return length >= (schema.minLength ?? 0) && length <= (schema.maxLength ?? Infinity) && (!schema.pattern || matches(schema.pattern, value));
    }
    if (typeof value === "number") return value >= (schema.minimum ?? -Infinity) && value <= (schema.maximum ?? Infinity);
    if (Array.isArray(value)) {
      const many = value.length >= (schema.minItems ?? 0) && value.length <= (schema.maxItems ?? Infinity);
      return many && (!schema.items || value.every((item) => fits(schema.items, item)));
    }
    if (typeof value !== "object") return true;
    const [names, rest] = [Object.keys(value), schema.additionalProperties ?? true];
    if (names.length > (schema.maxProperties ?? Infinity) || (schema.required ?? []).some((name) => !(name in value))) return false;
    return names.every((name) => {
      if (schema.propertyNames && !fits(schema.propertyNames, name)) return false;
      if (schema.properties && Object.hasOwn(schema.properties, name)) return fits(schema.properties[name], value[name]);
      return typeof rest === "boolean" ? rest : fits(rest, value[name]);
    });
  };
  const checked = (schema, value, what) => fits(schema, value) ? value : refuse("malformed", `not a ${what}`);

  // ------------------------------------------------------------------------------------------------------------- keys

  /* Browsers take points that libsodium refuses, so those are refused here: small order, other spellings, and, of a roster's keys,
     whatever lies outside of the main group (RFC 8032, 5.1). */
  const P = 2n ** 255n - 19n;
  const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
  const mod = (value) => ((value % P) + P) % P;
  const power = (base, exponent) => {
    let [result, factor] = [1n, mod(base)];
    for (let left = exponent; left; left >>= 1n, factor = (factor * factor) % P) if (left & 1n) result = (result * factor) % P;
    return result;
  };
  const D = mod(-121665n * power(121666n, P - 2n));
  const ROOT = power(2n, (P - 1n) / 4n);
  const add = ([x1, y1, z1, t1], [x2, y2, z2, t2]) => {
    const [a, b, c, d] = [mod((y1 - x1) * (y2 - x2)), mod((y1 + x1) * (y2 + x2)), mod(2n * t1 * t2 * D), mod(2n * z1 * z2)];
    const [e, f, g, h] = [b - a, d - c, d + c, b + a];
    return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
  };
  const times = (scalar, point) => {
    let [sum, factor] = [[0n, 1n, 1n, 0n], point];
    for (let left = scalar; left; left >>= 1n, factor = add(factor, factor)) if (left & 1n) sum = add(sum, factor);
    return sum;
  };
  const neutral = ([x, y, z]) => x === 0n && y === z;
  const unpack = (bytes) => {
    const number = BigInt(`0x${hex(Uint8Array.from(bytes).reverse())}`);
    const [y, sign] = [number & (2n ** 255n - 1n), number >> 255n];
    if (y >= P) return null;
    const [u, v] = [mod(y * y - 1n), mod(D * y * y + 1n)];
    let x = mod(u * v ** 3n * power(u * v ** 7n, (P - 5n) / 8n));
    if (mod(v * x * x) !== u) x = mod(x * ROOT);
    if (mod(v * x * x) !== u || (x === 0n && sign)) return null;
    if ((x & 1n) !== sign) x = P - x;
    return [x, y, 1n, mod(x * y)];
  };
  const memo = (make) => { const kept = new Map(); return (key) => { if (!kept.has(key)) kept.set(key, make(key)); return kept.get(key); }; };
  const sound = memo((key) => { const point = unpack(unhex(key)); return point !== null && !neutral(times(8n, point)); });
  const admissible = memo((key) => sound(key) && neutral(times(ORDER, unpack(unhex(key)))));

  const imported = memo((key) => crypto.subtle.importKey("raw", unhex(key), { name: "Ed25519" }, false, ["verify"]));
  let canSign = null; // whether this browser knows Ed25519; asked once, with the first vector of RFC 8032
  const knowsEd25519 = async () => {
    if (canSign !== null) return canSign;
    try {
      const key = await imported("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
      const line = unhex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        + "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b");
      const ask = (message) => crypto.subtle.verify({ name: "Ed25519" }, key, line, message);
      canSign = await ask(new Uint8Array(0)) === true && await ask(new Uint8Array(1)) === false;
    } catch { canSign = false; }
    return canSign;
  };
  const verifies = async (key, message, signature) => {
    if (signature.length !== 64 || !sound(key) || !sound(hex(signature.subarray(0, 32)))) return false;
    if (!await knowsEd25519()) return true; // the check "signatures" says so, and nothing is VERIFIED then
    try { return await crypto.subtle.verify({ name: "Ed25519" }, await imported(key), signature, message); } catch { return false; }
  };

  // ------------------------------------------------------------------------------------------------------------- BLAKE3

  /* Policy bundles are named by BLAKE3, which no browser has (github.com/BLAKE3-team/BLAKE3-specs). */
  const IV = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
  const ORDERED = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
  const [CHUNK_START, CHUNK_END, PARENT, TOP] = [1, 2, 4, 8];
  const compress = (chaining, words, counter, length, flags) => {
    const v = new Uint32Array([...chaining, ...IV.slice(0, 4), counter >>> 0, Math.floor(counter / 2 ** 32), length, flags]);
    const turn = (value, by) => (value >>> by) | (value << (32 - by));
    const mix = (a, b, c, d, x, y) => {
      v[a] += v[b] + x; v[d] = turn(v[d] ^ v[a], 16); v[c] += v[d]; v[b] = turn(v[b] ^ v[c], 12);
      v[a] += v[b] + y; v[d] = turn(v[d] ^ v[a], 8); v[c] += v[d]; v[b] = turn(v[b] ^ v[c], 7);
    };
    let m = words;
    for (let round = 0; round < 7; round += 1) {
      mix(0, 4, 8, 12, m[0], m[1]); mix(1, 5, 9, 13, m[2], m[3]); mix(2, 6, 10, 14, m[4], m[5]); mix(3, 7, 11, 15, m[6], m[7]);
      mix(0, 5, 10, 15, m[8], m[9]); mix(1, 6, 11, 12, m[10], m[11]); mix(2, 7, 8, 13, m[12], m[13]); mix(3, 4, 9, 14, m[14], m[15]);
      m = ORDERED.map((at) => m[at]);
    }
    return v.slice(0, 8).map((word, at) => word ^ v[at + 8]);
  };
  const blockWords = (bytes) => {
    const block = new Uint8Array(64);
    block.set(bytes);
    return Array.from({ length: 16 }, (_, at) => block[4 * at] | (block[4 * at + 1] << 8) | (block[4 * at + 2] << 16) | (block[4 * at + 3] << 24));
  };
  const blake3 = (bytes) => {
    const node = (start, end, top) => { // the chaining value of a subtree of whole chunks, but for the last
      if (end - start <= 1024) {
        let [chaining, at] = [IV, start];
        do {
          const stop = Math.min(at + 64, end);
          const flags = (at === start ? CHUNK_START : 0) | (stop === end ? CHUNK_END | top : 0);
          chaining = compress(chaining, blockWords(bytes.subarray(at, stop)), start / 1024, stop - at, flags);
          at = stop;
        } while (at < end);
        return chaining;
      }
      let left = 1024;
      while (left * 2 < end - start) left *= 2;
      return compress(IV, [...node(start, start + left, 0), ...node(start + left, end, 0)], 0, 64, PARENT | top);
    };
    return hex(new Uint8Array(new Uint32Array(node(0, bytes.length, TOP)).buffer)); // every browser's machine is little-endian
  };

  // ------------------------------------------------------------------------------------------------------------- statements

  const KIND_OF = new Map(Object.entries(GIVEN.kinds).map(([name, kind]) => [kind.type, { name, ...kind }]));
  const pae = (type, payload) => join(utf8(`DSSEv1 ${utf8(type).length} ${type} ${payload.length} `), payload);

  /* A statement whose signatures are not yet believed: {kind, id, claims, signatures, message}. */
  const read = async (envelope, ...kinds) => {
    bounded(utf8(canonical(envelope)), MAX.envelope);
    checked({ $ref: "#/$defs/Envelope" }, envelope, "signed envelope");
    const kind = KIND_OF.get(envelope.payloadType);
    if (!kind || (kinds.length && !kinds.includes(kind.name))) {
      refuse("wrong_kind", `${envelope.payloadType.slice(0, 80)} is not ${kinds.join(" or ")}`);
    }
    const payload = fromBase64(envelope.payload);
    const signatures = new Map(envelope.signatures.map((line) => [line.keyid, fromBase64(line.sig)]));
    const keys = envelope.signatures.map((line) => line.keyid);
    if (!same(keys, [...new Set(keys)].sort())) refuse("non_canonical", "signatures out of order");
    if ([...signatures.values()].some((line) => line.length !== 64)) refuse("malformed", "a signature is 64 bytes");
    const claims = checked({ $ref: `#/$defs/${kind.def}` }, parse(payload, kind.max), kind.name);
    if (kind.name === "roster") checkRoster(claims);
    const message = pae(kind.type, payload);
    return { kind: kind.name, id: await sha256Hex(message), claims, signatures, message, envelope };
  };
  const statementId = async (kind, claims) => {
    const payload = bounded(utf8(canonical(claims)), GIVEN.kinds[kind].max);
    return sha256Hex(pae(GIVEN.kinds[kind].type, payload));
  };
  const signedBy = async (statement, key) => statement.signatures.has(key) && verifies(key, statement.message, statement.signatures.get(key));
  const allValid = async (statement) => {
    for (const key of statement.signatures.keys()) if (!await signedBy(statement, key)) return false;
    return true;
  };
  /* At least one of these keys, and nobody else: a line that nobody checks would be a byte that nobody checks. */
  const sealedBy = async (statement, keys) =>
    statement.signatures.size > 0 && [...statement.signatures.keys()].every((key) => keys.includes(key)) && allValid(statement);
  const sealed = async (statement, keys, threshold) => {
    if ([...statement.signatures.keys()].some((key) => !keys.includes(key)) || !await allValid(statement)) {
      refuse("bad_signature", `${statement.kind} ${short(statement.id)}`);
    }
    if (statement.signatures.size < threshold) refuse("threshold_not_met", `${statement.signatures.size} of ${threshold}`);
  };
  const signedEnough = async (statement, { keys, threshold }, code, who) => {
    let valid = 0;
    for (const key of new Set(keys)) if (await signedBy(statement, key)) valid += 1;
    if (threshold < 1 || valid < threshold) refuse(code, `roster has ${valid} of ${threshold} of the ${who}`);
  };

  // ------------------------------------------------------------------------------------------------------------- rosters

  const originOf = (roster, member) => `${roster.mesh}/${member.name}/e${member.log_epoch}`;
  const attestKeys = (roster) =>
    record(Object.fromEntries(roster.members.map((member) => [`${roster.mesh}/${member.name}/attest`, member.attest_key])));
  const memberKeys = (member) => [member.log_key, member.witness_key, member.attest_key, member.decision_key];
  const homeless = (member) => record({ ...member, region: "" }); // nobody signs anything under a region
  const sameMember = (one, other) => same(homeless(one), homeless(other));
  const rolesOf = (roster) => [roster.root, roster.issuers, roster.revoker, ...Object.values(roster.policy), ...Object.values(roster.approvers)];
  /* Every stream in which a roster lets somebody speak, to who that is (mesh/core/law/succession.py). */
  const voicesOf = (roster) => new Map([
    ["resolve", roster.root],
    ["erase", roster.root],
    ...roster.revoker.keys.map((key) => [`revoke/${key}`, [roster.revoker, roster.bounds.revocations_max]]),
    ...Object.entries(roster.policy).flatMap(([domain, role]) =>
      [[`halt/${domain}`, roster.revoker], [`policy/${domain}`, role], [`activate/${domain}`, role]]),
  ]);

  /* How many proofs against members a frontier names (frauds_max). */
  const fraudsMax = (roster) => 3 * Math.max(roster.f, 1);

  /* That its numbers make quorums which share an honest member, and no key stands in it twice (mesh/core/law/roster.py). */
  const checkRoster = (roster) => {
    const [n, f, k] = [roster.members.length, roster.f, roster.k];
    if (!(2 * k > n + f && k <= n - f)) refuse("roster_unsound", `n=${n} f=${f} k=${k}`);
    if (new Set(roster.members.map((member) => member.name)).size !== n) refuse("roster_unsound", "two members have one name");
    if (roster.members.some((member) => ["hb", "law", "sync", "ctl"].includes(member.region))) {
      refuse("roster_unsound", "no region may be called so");
    }
    const owners = new Set(roster.members.map((member) => member.operator));
    if (!same(sorted(owners), sorted(Object.keys(roster.operators)))) refuse("roster_unsound", "operators and owners of members differ");
    if (rolesOf(roster).some((role) => role.threshold < 1 || role.threshold > role.keys.length)) {
      refuse("roster_unsound", "a role's threshold");
    }
    if (voicesOf(roster).size + 1 + fraudsMax(roster) > MAX.streams) refuse("roster_unsound", "too many streams");
    const operators = Object.values(roster.operators).map((owner) => owner.key);
    const keys = [...rolesOf(roster).flatMap((role) => role.keys), ...operators, ...roster.members.flatMap(memberKeys)];
    if (new Set(keys).size !== keys.length || !keys.every(admissible)) refuse("bad_key", "a key that is none, or stands there twice");
    const { stale_ms, skew_ms, heartbeat_ms, certify_ms, revocations_max, backlog_max } = roster.bounds;
    if (revocations_max < 1 || revocations_max > MAX.said) refuse("roster_unsound", "how much a revoker may say");
    if (backlog_max < 1) refuse("roster_unsound", "how much need not be final");
    if (stale_ms <= 2 * skew_ms + heartbeat_ms || heartbeat_ms === 0 || certify_ms === 0) {
      refuse("roster_unsound", "its times leave nothing fresh");
    }
    const handovers = Object.values(roster.handovers);
    if (roster.epoch <= 1 && handovers.length) refuse("roster_unsound", "the first roster takes nothing over from anybody");
    if ("roster" in roster.handovers) refuse("roster_unsound", "nobody hands the stream of the rosters over");
    for (const [stream, { sequence }] of Object.entries(roster.handovers)) {
      if (sequence >= (stream.startsWith("activate/") ? MAX.activations : MAX.said)) refuse("roster_unsound", `no room behind number ${sequence}`);
    }
    if (handovers.some(({ sequence, head }) => (sequence === 0) !== (head === ""))) refuse("roster_unsound", "a stream goes on behind nothing");
  };

  /* Whose signatures it takes for `after` to follow `now`, or to be the first if there is none. */
  const checkAssents = async (statement, now) => {
    const after = statement.claims;
    if (now) await signedEnough(statement, now.root, "threshold_not_met", `root of epoch ${now.epoch}`);
    await signedEnough(statement, after.root, "threshold_not_met", `root of epoch ${after.epoch}`);
    if (!now && after.previous) return;
    for (const name of sorted(Object.keys(after.operators))) {
      const [owner, former] = [after.operators[name], now?.operators[name]];
      const before = (member) => now?.members.find((other) => other.name === member.name);
      const changed = after.members.some((member) => member.operator === name && !(before(member) && same(before(member), member)));
      const by = (key, who) => signedEnough(statement, { keys: [key], threshold: 1 }, "operator_unsigned", who);
      if (changed || !former || !same(former, owner)) await by(owner.key, `operator ${name}`);
      if (former && former.key !== owner.key) await by(former.key, `operator ${name} with its former key`);
    }
  };
  const checkSigners = async (statement, now) => {
    const signers = [now, statement.claims].flatMap((roster) => [...roster.root.keys, ...Object.values(roster.operators).map((owner) => owner.key)]);
    if (!await sealedBy(statement, signers)) refuse("bad_signature", "roster is signed also by a stranger, or not validly");
  };

  /* That no log which both name has another key. */
  const checkLogs = (before, after) => {
    for (const member of after.members) {
      const former = before.members.find((other) => originOf(before, other) === originOf(after, member));
      if (former && former.log_key !== member.log_key) refuse("roster_unsafe", `${originOf(after, member)} under another key`);
    }
  };

  /* The next epoch, signed by both roots, and any quorum of one shares an honest member with any of the other (succession.py). */
  const checkSuccessor = async (before, statement) => {
    const [now, after] = [before.claims, statement.claims];
    if (after.mesh !== now.mesh) refuse("wrong_mesh", after.mesh);
    if (after.epoch !== now.epoch + 1 || after.previous !== before.id) refuse("wrong_epoch", `epoch ${after.epoch} after ${now.epoch}`);
    await checkAssents(statement, now);
    const both = now.members.flatMap((member) => after.members.filter((other) => sameMember(member, other))).length;
    const shared = now.k + after.k - (now.members.length + after.members.length - both);
    if (shared <= Math.max(now.f, after.f)) {
      refuse("roster_unsafe", `quorums share ${shared} members, more than ${Math.max(now.f, after.f)} needed`);
    }
    if (after.not_before_ms < now.not_before_ms + 2 * Math.max(now.bounds.stale_ms, after.bounds.stale_ms)) {
      refuse("too_soon", `epoch ${after.epoch}`);
    }
    const [spoke, speak] = [voicesOf(now), voicesOf(after)];
    for (const stream of new Set([...spoke.keys(), ...speak.keys()])) { // the word of former signers would count for ever
      if (!same(spoke.get(stream) ?? false, speak.get(stream) ?? false) && !(stream in after.handovers)) refuse("handover_missing", stream);
    }
    checkLogs(now, after);
    const owners = new Map(now.members.flatMap((member) => memberKeys(member).map((key) => [key, member.operator])));
    for (const member of after.members) {
      if (memberKeys(member).some((key) => (owners.get(key) ?? member.operator) !== member.operator)) {
        refuse("roster_unsafe", `${member.name} goes to another operator with its keys`);
      }
    }
  };

  /* The rosters that a trusted one vouches for: all that are shown, or none is believed (vouched.py). */
  const vouch = async (trusted, shown) => {
    if (!shown.length) return [trusted];
    const epochs = shown.map((one) => one.claims.epoch);
    if (epochs.some((epoch, at) => at && epoch <= epochs[at - 1])) refuse("non_canonical", "the rosters are not in their order");
    const own = shown.find((one) => one.claims.epoch === trusted.claims.epoch);
    if (own && own.id !== trusted.id) refuse("roster_conflict", `another roster of epoch ${trusted.claims.epoch} is trusted`);
    const chain = (own ? shown : [...shown, trusted]).sort((one, other) => one.claims.epoch - other.claims.epoch);
    const gap = chain.findIndex((one, at) => one.claims.epoch !== at + 1);
    if (gap >= 0) refuse("wrong_epoch", `epoch ${gap + 1} is missing`);
    await checkAssents(chain[0], null);
    for (const [at, statement] of chain.entries()) {
      const before = chain[Math.max(0, at - 1)];
      if (at) await checkSuccessor(before, statement);
      if (shown.includes(statement)) await checkSigners(statement, before.claims);
    }
    return chain;
  };

  /* What was right under the newest roster that it passes for; `by` is what it depends on. */
  const judged = async (chain, check, by) => {
    const [tried, refusals] = [new Set(), []];
    for (const { claims } of [...chain].reverse()) {
      const key = canonical(by(claims) ?? false);
      if (tried.has(key)) continue;
      tried.add(key);
      try { return await check(claims); } catch (error) { if (!(error instanceof Refused)) throw error; refusals.push(error); }
    }
    throw refusals[0];
  };
  /* The roster that named whoever says number `at` of that stream, behind `previous`: only its signers are believed; null if it is
     not here. And whether that word still counts in a later epoch (succession.py, appointed and check_heeded). */
  const appointed = (chain, stream, { since, previous }, at) => {
    const roster = (since ? chain.find((one) => one.id === since) : chain.find((one) => one.claims.epoch === 1))?.claims;
    if (!roster || !since) return roster ?? null;
    const upto = roster.handovers[stream] ?? refuse("handed_over", `epoch ${roster.epoch} hands ${stream} over to nobody`);
    if (at <= upto.sequence || (at === upto.sequence + 1 && previous !== upto.head)) refuse("handed_over", `${stream}, number ${at}`);
    return roster;
  };
  const checkHeeded = (chain, stream, since, at, epoch) => {
    const start = since ? chain.slice(0, epoch).findIndex((one) => one.id === since) + 1 : 1;
    if (start < 1) refuse("policy_unknown", `${stream} since a roster that does not count under epoch ${epoch}`);
    for (const { claims } of chain.slice(start, epoch)) {
      if (stream in claims.handovers && at > claims.handovers[stream].sequence) refuse("handed_over", `${stream}, number ${at}`);
    }
  };
  const ownersOf = (chain, origin) => {
    const found = [];
    for (const { claims } of [...chain].reverse()) {
      for (const member of claims.members) {
        if (originOf(claims, member) === origin && found.every((other) => other.log_key !== member.log_key)) found.push(member);
      }
    }
    return found.length ? found : refuse("unknown_member", origin);
  };

  // ------------------------------------------------------------------------------------------------------------- logs

  const HEADER = "c2sp.org/tlog-proof@v1";
  const decimal = (written) =>
    /^(0|[1-9][0-9]{0,15})$/.test(written) && Number(written) <= MAX.tree ? Number(written) : refuse("malformed", "not a size or index");
  const cleanText = (written, most) => {
    bounded(utf8(written), most);
    return /[\x00-\x09\x0b-\x1f]/.test(written) ? refuse("malformed", "a control character") : written;
  };
  const hash32 = (written) => { const bytes = fromBase64(written); return bytes.length === 32 ? bytes : refuse("malformed", "a hash is 32 bytes"); };
  const leafHash = (leaf) => sha256(join(Uint8Array.of(0), leaf));
  const branchHash = (left, right) => sha256(join(Uint8Array.of(1), left, right));

  /* c2sp.org/tlog-proof@v1 without an extra line: {index, path, note}. */
  const readTlog = (written) => {
    const gap = cleanText(written, MAX.tlog).indexOf("\n\n");
    if (gap < 0) refuse("malformed", "no note in the proof");
    const [header, index, ...path] = written.slice(0, gap).split("\n");
    if (header !== HEADER || !index?.startsWith("index ")) {
      refuse(index?.startsWith("extra ") ? "bad_proof" : "malformed", "not a proof of this kind");
    }
    if (path.length > MAX.hashes) refuse("too_large", "hashes");
    return { index: decimal(index.slice("index ".length)), path: path.map(hash32), note: readNote(written.slice(gap + 2)) };
  };

  /* c2sp.org/signed-note over c2sp.org/tlog-checkpoint: {origin, size, root, text, lines}. */
  const readNote = (written) => {
    const gap = cleanText(written, MAX.note).lastIndexOf("\n\n");
    if (gap < 0 || !written.endsWith("\n")) refuse("malformed", "no empty line before the signatures");
    const lines = written.slice(gap + 2, -1).split("\n").map((line) => {
      const parts = /^— (\S+) (\S+)$/.exec(line) ?? refuse("malformed", "a signature line is: dash, name, base64");
      const bytes = fromBase64(parts[2]);
      if (bytes.length <= 4) refuse("malformed", "no signature");
      return { name: parts[1], keyId: hex(bytes.subarray(0, 4)), signature: bytes.subarray(4) };
    });
    if (lines.length > MAX.lines) refuse("too_large", "signatures");
    const [origin, size, root, end, ...more] = written.slice(0, gap + 1).split("\n");
    if (!origin || end !== "" || more.length) refuse("malformed", "a checkpoint is three lines: origin, size, root");
    return { origin, size: decimal(size), root: hash32(root), text: utf8(written.slice(0, gap + 1)), lines };
  };

  /* RFC 9162, 2.1.3.2. Numbers may be beyond 32 bits, so no bitwise operators. */
  const rootFrom = async (leaf, index, size, path) => {
    if (index >= size) refuse("bad_proof", `leaf ${index} in a tree of ${size}`);
    const half = (number) => Math.floor(number / 2);
    let [fn, sn, root] = [index, size - 1, leaf];
    for (const sibling of path) {
      if (sn === 0) refuse("bad_proof", "hashes too many");
      if (fn % 2 || fn === sn) {
        root = await branchHash(sibling, root);
        while (fn % 2 === 0 && fn) [fn, sn] = [half(fn), half(sn)];
      } else root = await branchHash(root, sibling);
      [fn, sn] = [half(fn), half(sn)];
    }
    return sn === 0 ? root : refuse("bad_proof", "hashes too few");
  };

  // ------------------------------------------------------------------------------------------------------------- CERTIFICATES
  // What makes a record final, and by whose say: (4). Whoever changes mesh/core/law/former.py, or _Judge._final of
  // mesh/verify.py, changes it here, and nowhere else.

  /* The rosters whose members may have made a record final. */
  const certifiers = (chain, said) => {
    // Who had left before it was decided has no say in it, whoever holds their keys by now.
    const since = said.record === "decision" ? rosterThen(chain, said).epoch : 0;
    return chain.map((one) => one.claims).filter((roster) => roster.epoch >= since);
  };

  /* Of the newest roster for which the note is one: k of its attest keys, the log's own line, and nobody else's; and enough of them are
     members still in the epoch `trusted`. */
  const certified = async (note, said, chain, trusted) => {
    const names = note.lines.map((line) => line.name);
    if (!same(names, [said.origin, ...sorted(names.slice(1))])) {
      refuse("non_canonical", "the lines of the certificate are not in their order");
    }
    const rosters = certifiers(chain, said);
    let refusal;
    for (const owner of ownersThen(chain, said)) {
      try { return await finalUnder(rosters, trusted, (attesters, k) => verifyCertificate(note, said.origin, owner.log_key, attesters, k)); }
      catch (error) { if (!(error instanceof Refused)) throw error; refusal = error; }
    }
    throw refusal;
  };
  const finalUnder = async (rosters, trusted, check) => {
    const [refusals, tried] = [[], new Set()];
    for (const [at, roster] of [...rosters.entries()].reverse()) {
      const by = [attestKeys(roster), roster.k];
      if (tried.has(canonical(by))) continue;
      tried.add(canonical(by));
      try {
        const names = await check(...by);
        checkRemaining(names, [roster, ...rosters.slice(at + 1).filter((later) => later.epoch <= trusted)]);
        return { names, roster };
      } catch (error) { if (!(error instanceof Refused)) throw error; refusals.push(error); }
    }
    const none = new Refused("wrong_epoch", "no roster is held by which it could be judged");
    const first = (code) => refusals.find((refusal) => refusal.code === code);
    throw first("former_certificate") ?? first("not_final") ?? refusals[0] ?? none;
  };
  /* That any quorum the certificate's epoch ever had shares an honest member with those who attested it and are the same ones still. */
  const checkRemaining = (names, rosters) => {
    const [then, now] = [rosters[0], last(rosters)];
    const there = then.members.filter((one) => rosters.every((roster) => roster.members.some((other) => sameMember(one, other))));
    const count = there.filter((one) => names.includes(`${then.mesh}/${one.name}/attest`)).length;
    if (count + then.k <= then.members.length + now.f) {
      refuse("former_certificate", `of epoch ${then.epoch}; ${count} who attested it are members in epoch ${now.epoch}`);
    }
  };
  const verifyCertificate = async (note, origin, logKey, attesters, k) => {
    const [known, seen, keys] = [new Map(), new Set(), new Map()];
    const keyId = async (name, type, key) => hex((await sha256(join(utf8(`${name}\n`), Uint8Array.of(type), unhex(key)))).subarray(0, 4));
    for (const [name, key] of Object.entries(attesters)) known.set(`${name} ${await keyId(name, 4, key)}`, { name, key, cosigner: true });
    known.set(`${origin} ${await keyId(origin, 1, logKey)}`, { name: origin, key: logKey, cosigner: false });
    let [log, strangers] = [false, 0];
    for (const line of note.lines) {
      const by = known.get(`${line.name} ${line.keyId}`);
      if (!by) { strangers += 1; continue; }
      if (seen.has(by)) refuse("malformed", "two lines of one key");
      seen.add(by);
      const [time, signature] = by.cosigner ? [line.signature.subarray(0, 8), line.signature.subarray(8)] : [null, line.signature];
      const seconds = time ? BigInt(`0x${hex(time) || "0"}`) : 0n;
      const message = by.cosigner ? join(utf8(`cosignature/v1\ntime ${seconds}\n`), note.text) : note.text;
      if (seconds > BigInt(MAX.time_s) || !await verifies(by.key, message, signature)) refuse("bad_signature", `line of ${by.name}`);
      if (by.cosigner) keys.set(by.key, by.name); else log = true;
    }
    if (!log) refuse("bad_signature", `not signed by the log ${origin}`);
    if (note.origin !== origin) refuse("bad_checkpoint", `origin ${note.origin}`);
    if (strangers) refuse("bad_signature", `${strangers} lines of unknown keys`);
    if (k < 1 || keys.size < k) refuse("not_final", `${keys.size} of ${k} attested ${note.origin} at ${note.size}`);
    return [...keys.values()];
  };
  /* The roster under which a decision says that it was made; whose its record may be. */
  const rosterThen = (chain, said) =>
    chain.find((one) => one.claims.epoch === said.roster_epoch)?.claims ?? skip(`the roster of epoch ${said.roster_epoch} is not here`);
  const ownersThen = (chain, said) => {
    const then = said.record === "decision" ? chain.find((one) => one.claims.epoch === said.roster_epoch)?.claims : undefined;
    if (!then) return ownersOf(chain, said.origin);
    return [then.members.find((member) => originOf(then, member) === said.origin) ?? refuse("unknown_member", said.origin)];
  };

  // ------------------------------------------------------------------------------------------------------------- people

  const LEVELS = ["observe", "local", "quorum", "final"];
  const strongest = (...levels) => levels.reduce((most, level) => LEVELS.indexOf(level) > LEVELS.indexOf(most) ? level : most);
  const paramsDigest = (intent) => sha256Hex(utf8(canonical(record({ params: intent.params, committed: intent.committed }))));

  const issuedBy = async (document, roster) => {
    if (document.claims.mesh !== roster.mesh) refuse("wrong_mesh", document.claims.mesh);
    if (!await sealedBy(document, roster.issuers.keys)) refuse("identity_unknown", document.claims.subject);
    return document;
  };
  const checkIdentity = (document, role, key, now, subject = document.subject) => {
    if (document.role !== role || document.key !== key || document.subject !== subject) refuse("identity_mismatch", document.subject);
    if (!(document.not_before_ms <= now && now < document.expires_ms)) refuse("identity_expired", document.subject);
  };
  const checkIntentTimes = (intent, now, skew) => {
    if (intent.expires_ms - intent.created_ms > MAX.intent_ms) refuse("intent_too_long");
    if (intent.created_ms - skew > now || now >= intent.expires_ms) refuse("intent_expired", `now ${now}`);
  };
  /* Who sent it: `admit` says under which roster its document counts. */
  const authenticate = async (intent, identity, mesh, admit) => {
    const claims = intent.claims;
    if (claims.mesh !== mesh) refuse("wrong_mesh", claims.mesh);
    await admit(identity);
    if (identity.id !== claims.identity || identity.claims.subject !== claims.subject || identity.claims.key !== claims.holder) {
      refuse("identity_mismatch", claims.subject);
    }
    if (!await sealedBy(intent, [claims.holder])) refuse("unauthenticated", claims.subject);
  };

  /* What people said for this intent, as far as it counts (approval.py). */
  const weigh = async (envelopes, intent, roster, at) => {
    const backing = { said: [], approvals: record({}), breakglass: false };
    if (!envelopes.length) return backing;
    const sizes = envelopes.map((envelope) => utf8(canonical(envelope)).length);
    if (envelopes.length > MAX.approvals || sizes.reduce((sum, size) => sum + size) > MAX.approvals_bytes) refuse("too_large", "approvals");
    const [said, signers] = [new Map(), record({})];
    for (const envelope of envelopes) {
      const item = await read(envelope, "approval", "grant");
      if (said.has(item.id)) refuse("approval_mismatch", `${short(item.id)} stands there twice`);
      await checkSaid(item, intent, roster, at);
      said.set(item.id, item);
      if (item.kind === "approval") signers[item.claims.group] = new Set([...(signers[item.claims.group] ?? []), ...item.signatures.keys()]);
    }
    for (const group of sorted(Object.keys(signers))) {
      if (signers[group].size >= roster.approvers[group].threshold) backing.approvals[group] = signers[group].size;
    }
    const counts = (item) => item.kind === "grant" || item.claims.group in backing.approvals;
    backing.said = [...said.keys()].sort().map((id) => said.get(id)).filter(counts);
    backing.breakglass = backing.said.some((item) => item.kind === "grant");
    return backing;
  };
  const checkSaid = async (item, intent, roster, at) => {
    const claims = item.claims;
    if (claims.mesh !== roster.mesh) refuse("wrong_mesh", claims.mesh);
    const role = roster.approvers[claims.group] ?? refuse("approver_unknown", claims.group);
    if (item.kind === "approval") {
      if (claims.effect !== await effectDigest(intent)) refuse("approval_mismatch", `${short(item.id)} approves another effect`);
      if (!await sealedBy(item, role.keys)) refuse("bad_signature", `approval ${short(item.id)}`);
    } else {
      if (claims.domain !== intent.domain || claims.subject !== intent.subject || !claims.actions.includes(intent.action)) {
        refuse("approval_mismatch", `grant ${short(item.id)}`);
      }
      if (!await sealedBy(item, role.keys)) refuse("bad_signature", "grant is not signed by its role");
      if (item.signatures.size < role.threshold) refuse("threshold_not_met", `grant has ${item.signatures.size} of ${role.threshold}`);
    }
    if (claims.expires_ms - claims.not_before_ms > (item.kind === "grant" ? MAX.grant_ms : MAX.approval_ms)) refuse("approval_too_long");
    if (!(claims.not_before_ms - roster.bounds.skew_ms <= at && at < claims.expires_ms)) refuse("approval_expired", short(item.id));
  };
  const effectDigest = async (intent) => {
    const { mesh, domain, subject, action, resource, measurements } = intent;
    return sha256Hex(utf8(canonical(record({ mesh, domain, subject, action, resource, params: await paramsDigest(intent), measurements }))));
  };

  // ------------------------------------------------------------------------------------------------------------- parents

  /* Within what it runs and what it comes after, by the papers in the record: {kin, ancestors} (mesh/core/run/kin.py). */
  const trace = async (papers, intent, chain, epoch, at) => {
    const asked = intent.claims;
    const names = [...asked.within, ...asked.after.map((item) => item.authorization)];
    if (!names.length && !papers.length) return { kin: [], ancestors: [] };
    const sizes = papers.flatMap((paper) => [paper.authorization, paper.outcome]).map((envelope) => utf8(canonical(envelope)).length);
    if (sizes.reduce((sum, size) => sum + size, 0) > MAX.parents_bytes) refuse("too_large", "papers of parents");
    const kin = [];
    for (const { authorization, outcome } of papers) {
      kin.push({ authorization: await read(authorization, "authorization"), outcome: await read(outcome, "outcome") });
    }
    if (!same(kin.map((item) => item.authorization.id), names)) refuse("parent_unknown", "the papers are not those of the executions named"); // (1)
    if (new Set(names).size !== names.length) refuse("parent_mismatch", "one execution is named twice");
    const skew = chain[epoch - 1].claims.bounds.skew_ms;
    for (const item of kin) {
      await checkIssued(item.authorization, asked, chain, epoch);
      await checkTold(item);
    }
    let ancestors = [];
    if (asked.within.length) {
      checkRunning(kin[0], at, skew);
      await checkEntitled(papers[0], kin[0].authorization.claims.holder, intent);
      const { id, claims } = kin[0].authorization;
      const { domain, subject, holder, identity, issuer } = claims;
      ancestors = [record({ authorization: id, intent: claims.intent, domain, subject, holder, identity, issuer }), ...claims.ancestors];
      if (ancestors.length > MAX.ancestors) refuse("too_deep", `within ${ancestors.length} executions`); // (6)
    }
    for (const [number, quoted] of asked.after.entries()) {
      const place = number + asked.within.length;
      if (kin[place].outcome.claims.event.type !== "finished" || kin[place].outcome.id !== quoted.outcome) {
        refuse("parent_unfinished", short(quoted.authorization));
      }
      if (papers[place].countersignature) refuse("parent_mismatch", "what is over needs no countersignature");
    }
    return { kin, ancestors };
  };
  const checkIssued = async (authorization, child, chain, epoch) => { // (2)
    const claims = authorization.claims;
    if (claims.mesh !== child.mesh) refuse("wrong_mesh", claims.mesh);
    if (claims.roster_epoch < 1 || claims.roster_epoch > epoch) refuse("wrong_epoch", `a parent of roster epoch ${claims.roster_epoch}`);
    const then = chain[claims.roster_epoch - 1].claims;
    const issuer = then.members.find((member) => member.name === claims.issuer);
    if (!await sealedBy(authorization, then.members.map((member) => member.decision_key))) refuse("bad_signature", `parent ${short(authorization.id)}`);
    if (!issuer) refuse("unknown_member", claims.issuer);
    if (!authorization.signatures.has(issuer.decision_key)) refuse("bad_signature", `parent ${short(authorization.id)} lacks its issuer`);
    const needed = LEVELS.indexOf(claims.assurance) >= LEVELS.indexOf("quorum") ? then.k : 1;
    if (authorization.signatures.size < needed) refuse("threshold_not_met", `${authorization.signatures.size} of ${needed}`);
  };
  const checkTold = async ({ authorization, outcome }) => { // (3)
    const [claims, said] = [authorization.claims, outcome.claims];
    if (!await sealedBy(outcome, [claims.audience.enforcer])) refuse("bad_signature", "of a parent its enforcer has said nothing");
    const about = [said.mesh, said.domain, said.intent, said.authorization, said.enforcer, said.boot];
    if (!same(about, [claims.mesh, claims.domain, claims.intent, authorization.id, claims.audience.enforcer, claims.audience.boot])) {
      refuse("parent_mismatch", "the outcome is of another execution");
    }
  };
  const checkRunning = ({ authorization, outcome }, at, skew) => { // (4)
    const [claims, said] = [authorization.claims, outcome.claims];
    if (said.event.type !== "started") refuse("parent_over", `${short(authorization.id)} is not running`);
    if (!(claims.not_before_ms - skew <= said.at_ms && said.at_ms < claims.expires_ms + skew) || said.at_ms > at + skew) {
      refuse("parent_over", `${short(authorization.id)} started when it must not have`);
    }
    if (at - said.at_ms > MAX.parent_ms) refuse("parent_over", `${short(authorization.id)} started too long ago`);
  };
  const checkEntitled = async (paper, holder, intent) => { // (5)
    const line = paper.countersignature;
    if (holder === intent.claims.holder) return line ? refuse("parent_mismatch", "who holds both needs no countersignature") : undefined;
    return line && await verifies(holder, intent.message, unhex(line)) ? undefined : refuse("parent_foreign", intent.claims.subject);
  };

  // ------------------------------------------------------------------------------------------------------------- decisions

  /* Python's strip() */
  const BLANK = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
  const strip = (written) => written.replace(new RegExp(`^${BLANK}|${BLANK}$`, "g"), "");
  const demands = (annotation) => {
    const found = annotation.split(",").map((part) => {
      const match = /^([1-9][0-9]?) of ([a-z0-9][a-z0-9-]{0,31})$/.exec(part.replace(/^ +| +$/g, "")) ?? refuse("engine_unavailable", "@approval");
      return { least: Number(match[1]), group: match[2] };
    });
    if (found.length > MAX.approvals) refuse("policy_invalid", "@approval names more groups than approvals come");
    if (new Set(found.map(({ group }) => group)).size !== found.length) refuse("policy_invalid", "@approval names a group twice");
    return found;
  };
  const isOf = (declared, value) => {
    const scalar = { bool: "boolean", int: "number", string: "string" };
    if (declared in scalar) return typeof value === scalar[declared];
    return Array.isArray(value) && value.every((one) => typeof one === scalar[declared.slice(0, -1)]);
  };
  const named = (list, name = "name") => new Map(list.map((item) => [item[name], item]));

  /* The parameters as policy sees them: exactly the declared ones, in their privacy classes, each opening fitting its commitment. */
  const openedParams = async (action, intent, openings, auditors) => {
    const declared = named(action.params);
    const committed = record(Object.fromEntries(Object.entries(intent.committed).filter(([name]) => !(name in intent.sealed))));
    for (const [given, privacy] of [[intent.params, "public"], [committed, "committed"], [intent.sealed, "sealed"]]) {
      for (const name of Object.keys(given)) if (declared.get(name)?.privacy !== privacy) refuse("params_mismatch", name);
      for (const spec of declared.values()) {
        if (spec.required && spec.privacy === privacy && !(spec.name in given)) refuse("params_mismatch", `${spec.name} is missing`);
      }
    }
    const keys = new Map(auditors.map(({ name, key }) => [name, key]));
    for (const [name, seals] of Object.entries(intent.sealed)) {
      if (!(name in intent.committed)) refuse("params_mismatch", `${name} is sealed and commits to nothing`);
      const wanted = declared.get(name).auditors.map((auditor) => [auditor, keys.get(auditor) ?? ""]);
      if (!same(seals.map(({ auditor, key }) => [auditor, key]), wanted)) refuse("seal_mismatch", name);
    }
    const [values, left] = [record(intent.params), new Map(Object.entries(committed))];
    for (const opening of openings) {
      if (left.get(opening.name) !== await sha256Hex(utf8(canonical(opening)))) refuse("opening_mismatch", opening.name);
      left.delete(opening.name);
      if (opening.name in values) refuse("params_mismatch", opening.name);
      values[opening.name] = opening.value;
    }
    if (left.size) refuse("opening_mismatch", `no opening for ${[...left.keys()][0]}`);
    for (const name of Object.keys(values)) if (!isOf(declared.get(name).type, values[name])) refuse("params_mismatch", name);
  };

  /* That these are exactly the boxes that the intent names, in their order (sealed.py). What they hold, only their auditors can see. */
  const checkBoxes = async (sealed, boxes) => {
    const wanted = sorted(Object.keys(sealed)).flatMap((name) => sealed[name].map((seal) => [name, seal]));
    if (!same(boxes.map(({ name, auditor }) => [name, auditor]), wanted.map(([name, { auditor }]) => [name, auditor]))) {
      refuse("box_mismatch", "not the boxes that the intent names");
    }
    if (boxes.reduce((sum, { box }) => sum + box.length / 2, 0) > MAX.boxes) refuse("too_large", "its boxes together");
    for (const [number, { name, box }] of boxes.entries()) {
      const inside = box.length / 2 - 48;
      if (inside <= 0 || inside % 256) refuse("box_malformed", name);
      if (await sha256Hex(unhex(box)) !== wanted[number][1].box) refuse("box_mismatch", name);
    }
  };
  const toldSeals = (sealed) => sorted(Object.keys(sealed)).map((name) => `${name} for ${sealed[name].map(({ auditor }) => auditor).join(", ")}`).join("; ");

  /* That nothing is named twice, of which readers might take either (policy.py, read_bundle). */
  const checkNames = (bundle) => {
    const lists = [bundle.principal, bundle.types, bundle.auditors, bundle.actions, ...bundle.actions.map((action) => action.params)];
    const names = [bundle.policies.map((one) => one.id), bundle.entities.map((one) => `${one.type}::${one.id}`), ...lists.map((list) => list.map((one) => one.name))];
    if (names.some((list) => new Set(list).size !== list.length)) refuse("policy_invalid", "something stands twice in the bundle");
  };

  /* Principal, resource and all their ancestors, sorted: what the engine is shown (decide.py). */
  const sliceOf = (bundle, identity, resource) => {
    const uid = (ref) => canonical([ref.type, ref.id]);
    const listed = new Map(bundle.entities.map((entity) => [uid(entity), entity]));
    const closure = (refs, found) => {
      for (const waiting = [...refs]; waiting.length;) {
        const ref = waiting.pop();
        if (found.has(uid(ref))) continue;
        const entity = listed.get(uid(ref)) ?? refuse("entity_missing", uid(ref));
        found.set(uid(ref), entity);
        waiting.push(...entity.parents);
      }
      return found;
    };
    const parents = sorted(new Set(identity.groups)).map((id) => record({ type: "Group", id }));
    const attributes = record({});
    for (const { name, type } of named(bundle.principal).values()) {
      if (!(name in identity.attributes)) continue;
      if (!isOf(type, identity.attributes[name])) refuse("attribute_mismatch", name);
      attributes[name] = identity.attributes[name];
    }
    const principal = record({ type: "Workload", id: identity.subject, attributes, parents });
    const found = new Map([[uid(principal), principal]]);
    for (const [name, entity] of closure(parents, new Map())) found.set(name, entity);
    if (listed.has(uid(resource))) for (const [name, entity] of closure([resource], new Map())) found.set(name, entity);
    else {
      const kind = named(bundle.types).get(resource.type);
      if (!kind || kind.closed || !resource.id.startsWith(kind.prefix)) refuse("entity_missing", uid(resource));
      found.set(uid(resource), record({ type: resource.type, id: resource.id, attributes: record({}), parents: [] }));
    }
    return [...found.values()].sort((one, other) => byCodePoint(one.type, other.type) || byCodePoint(one.id, other.id));
  };

  /* What follows from the recorded verdict; the verdict itself is the engine's, and not repeated here. */
  const concluded = (said, bundle, intent, terms, approvals) => {
    const permits = new Map(bundle.policies.filter((policy) => policy.effect === "permit").map((policy) => [policy.id, policy.annotations]));
    const ids = new Set(bundle.policies.map((policy) => policy.id));
    const allow = said.effect === "permit" || said.needs.length > 0; // a permit that lacks approvals is recorded as a deny
    const by = said.determining.filter((id) => permits.has(id)).map((id) => permits.get(id));
    if (!said.determining.every((id) => ids.has(id)) || (allow && by.length !== said.determining.length)) {
      refuse("engine_unavailable", "policies that cannot have determined it");
    }
    const obligations = new Set(by.flatMap((notes) => (notes.obligation ?? "").split(",").map(strip).filter(Boolean)));
    if (Math.max(said.determining.length, said.errors.length, obligations.size) > MAX.determining) {
      refuse("too_large", "policies or obligations");
    }
    const levels = by.map((notes) => notes.assurance ?? LEVELS[0]);
    if (!levels.every((level) => LEVELS.includes(level))) refuse("engine_unavailable", "an assurance of no name");
    const permitted = allow && by.length > 0 && said.errors.length === 0;
    const lacking = new Map();
    for (const { least, group } of permitted ? by.flatMap((notes) => "approval" in notes ? demands(notes.approval) : []) : []) {
      if ((approvals[group] ?? 0) < least) lacking.set(group, Math.max(least, lacking.get(group) ?? 0));
    }
    const needs = sorted(lacking.keys()).map((group) => `${lacking.get(group)} of ${group}`);
    return {
      effect: permitted && !needs.length ? "permit" : "deny", determining: sorted(said.determining), errors: sorted(said.errors),
      obligations: permitted && !needs.length ? sorted(obligations) : [],
      assurance: strongest(terms.assurance, intent.assurance_min, ...levels), needs,
    };
  };

  /* Which manifest was in force in that region then, by the chain of activations up to the one that is named (activation.py). */
  const activeManifest = (law, region, at, basis, chain, then) => {
    let best = null;
    for (const { claims } of [...law.activations].reverse()) {
      const ring = claims.rings.find((one) => one.regions.includes(region)) ?? claims.rings.find((one) => !one.regions.length);
      if (ring && ring.not_before_ms <= at && (!best || claims.epoch > best.epoch)) best = claims;
    }
    const { id, claims } = law.manifest;
    if (best ? best.manifest !== id : claims.epoch !== 1 || id !== basis.manifest) {
      refuse(best ? "policy_unknown" : "domain_unknown", claims.domain);
    }
    if (best && best.epoch !== claims.epoch) refuse("policy_conflict", `activated as epoch ${best.epoch}`);
    if (at < claims.not_before_ms) refuse("domain_unknown", claims.domain);
    checkHeeded(chain, `policy/${claims.domain}`, claims.since, claims.epoch, then.epoch);
    if (best) checkHeeded(chain, `activate/${claims.domain}`, best.since, best.sequence, then.epoch);
    if (at >= claims.expires_ms) refuse("policy_expired", `epoch ${claims.epoch}`);
  };

  /* Step 7: the question is put together again, and all but the verdict follows from it. */
  const repeatDecision = async (said, bodies, openings, law, chain) => {
    const then = rosterThen(chain, said);
    const [intent, identity, enforcer] = bodies;
    const owner = ownersThen(chain, said)[0];
    if (!then.members.some((member) => member.name === owner.name && member.log_epoch === owner.log_epoch && member.log_key === owner.log_key)) {
      refuse("unknown_member", owner.name);
    }
    if (said.at_ms < then.not_before_ms) refuse("roster_pending", `epoch ${then.epoch}`);
    await authenticate(intent, identity, then.mesh, (document) => issuedBy(document, then));
    const asked = intent.claims;
    if (law.manifest.claims.domain !== asked.domain) refuse("policy_unknown", `the manifest of ${asked.domain}`);
    const backing = await weigh(said.approvals, asked, then, said.at_ms);
    if (!same(backing.said.map((item) => item.envelope), said.approvals)) {
      refuse("record_invalid", "approvals that do not count, or not in their order");
    }
    let family;
    try { family = await trace(said.parents, intent, chain, then.epoch, said.at_ms); }
    catch (error) { refuse("record_invalid", `parents: ${error.code ?? ""} ${error.detail ?? ""}`); }
    checkIdentity(identity.claims, "workload", asked.holder, said.at_ms, asked.subject);
    await issuedBy(enforcer, then);
    checkIdentity(enforcer.claims, "enforcer", asked.audience.enforcer, said.at_ms);
    checkIntentTimes(asked, said.at_ms, then.bounds.skew_ms);
    const region = then.members.find((member) => member.name === owner.name).region;
    activeManifest(law, region, said.at_ms, said.attested, chain, then);
    const manifest = law.manifest.claims;
    if (!manifest.enforcers.includes(enforcer.claims.subject)) refuse("audience_unknown", enforcer.claims.subject);
    const terms = manifest.actions[asked.action] ?? refuse("action_unknown", asked.action);
    const wanted = strongest(terms.assurance, asked.assurance_min);
    if (LEVELS.indexOf(wanted) > LEVELS.indexOf("local")) refuse("assurance_unavailable", wanted);
    const attested = record({
      now_s: Math.floor(said.at_ms / 1000), region, policy_epoch: manifest.epoch, manifest: law.manifest.id, activation: said.attested.activation,
      frontier: said.attested.frontier, enforcer_class: enforcer.claims.enforcer_class, person: identity.claims.person,
      approvals: backing.approvals, breakglass: backing.breakglass, delegation_depth: family.ancestors.length,
      root: last(family.ancestors)?.subject ?? asked.subject,
    });
    const action = named(law.bundle.actions).get(asked.action) ?? refuse("action_unknown", asked.action);
    await openedParams(action, asked, openings, law.bundle.auditors);
    if (asked.resource.type !== action.resource) refuse("entity_missing", `${asked.action} acts on ${action.resource}`);
    const slice = sliceOf(law.bundle, identity.claims, asked.resource);
    if (!same(attested, said.attested)) refuse("replay_mismatch", "the attested facts are not those of this governor at that time");
    const { profile } = said.decision;
    const input = await sha256Hex(utf8(canonical(record({
      profile, bundle: manifest.digest, principal: record({ type: "Workload", id: identity.claims.subject }),
      action: record({ type: "Action", id: `${law.bundle.domain}/${asked.action}` }), resource: asked.resource, params: asked.params,
      committed: asked.committed, measurements: asked.measurements, purpose: asked.purpose, slice, attested,
    }))));
    const decision = record({ ...concluded(said.decision, law.bundle, asked, terms, attested.approvals), profile, bundle: manifest.digest, input });
    const permitted = () => authorizationId(said, intent, identity.claims, decision, attested, terms, owner, then, backing, family);
    const expected = decision.effect === "permit" ? await permitted() : "";
    if (!same(decision, said.decision) || expected !== said.authorization) {
      refuse("replay_mismatch", `${said.decision.effect} recorded, and another answer follows`);
    }
  };
  const authorizationId = async (said, intent, identity, decision, attested, terms, owner, then, backing, family) => {
    const asked = intent.claims;
    return statementId("authorization", record({
      mesh: asked.mesh, intent: intent.id, domain: asked.domain, action: asked.action, resource: asked.resource, params: await paramsDigest(asked),
      measurements: asked.measurements, subject: asked.subject, holder: asked.holder, identity: asked.identity, person: identity.person,
      audience: asked.audience, enforcer_class: attested.enforcer_class, region: attested.region, policy_epoch: attested.policy_epoch,
      bundle: decision.bundle, frontier: attested.frontier, roster_epoch: then.epoch, not_before_ms: said.at_ms,
      expires_ms: Math.min(said.at_ms + terms.authorization_ms, asked.expires_ms), lease_ms: terms.lease_ms, uses: 1,
      obligations: decision.obligations, assurance: decision.assurance, approvals: backing.said.map((item) => item.id),
      ancestors: family.ancestors,
      decision: await sha256Hex(utf8(canonical(decision))), issuer: owner.name, origin: said.origin, index: said.index,
    }));
  };

  // ------------------------------------------------------------------------------------------------------------- the ladder

  const CLAIMED = {
    file: "as this file itself says: whoever wrote the file may have made it up. Give the id of the roster that you trust",
    link: "as the link names it: whoever made the link may have made it up. If that is the id of the roster that you trust, confirm it below",
  };
  /* Judge a proof bundle (bytes) by a roster (bytes of its envelope). `by`: who named that roster: its "reader", the "link", the "file". */
  const judge = async (bytes, anchor, by) => {
    const checks = [];
    const report = { verdict: "FAILED", checks, mesh: "", as_of: 0, roster: "", record: null, bundle: null };
    const check = async (name, work) => {
      const came = (result, detail, code = "") => { checks.push({ name, result, detail, code }); return result === "passed"; };
      if (checks.some((done) => done.result === "failed")) return came("skipped", "not reached");
      try { return came("passed", await work()); }
      catch (error) {
        if (error instanceof Skipped) return came("skipped", error.message, error.code);
        return error instanceof Refused ? came("failed", error.detail, error.code) : came("failed", String(error.message).slice(0, 160), "malformed");
      }
    };
    let [bundle, chain] = [null, []];
    await check("trust", async () => {
      const trusted = await read(parse(anchor, MAX.envelope), "roster"); // (1)
      await checkAssents(trusted, null);
      chain = [trusted];
      Object.assign(report, { mesh: trusted.claims.mesh, as_of: trusted.claims.epoch, roster: trusted.id });
      const told = `roster of ${trusted.claims.mesh}, epoch ${trusted.claims.epoch}`;
      return by === "reader" ? told : skip(`${told}, ${CLAIMED[by]}`);
    });
    if (!await knowsEd25519()) await check("signatures", () => skip("this browser cannot check Ed25519: no signature was checked"));
    const readable = await check("file", () => {
      bundle = checked({ $ref: "#/$defs/ProofBundle" }, parse(bytes, MAX.bundle), "proof bundle");
      return `${bytes.length} bytes, in the one allowed spelling`;
    });
    if (!readable) return report;
    report.bundle = bundle;
    const trusted = chain[0];
    const whole = () => chain.length && chain[0].claims.epoch === 1 ? chain : skip(`the rosters before epoch ${trusted?.claims.epoch} are not here`);
    let believed = null;
    const governed = async () => { // what a node checks as it takes rosters in, beyond what vouching for them does
      if (believed === chain) return;
      for (const [at, statement] of whole().entries()) {
        if (!at) continue;
        await checkSigners(statement, chain[at - 1].claims);
        for (const before of chain.slice(0, at)) checkLogs(before.claims, statement.claims);
        const upto = chain.slice(0, at + 1).map((one) => one.claims);
        const streams = new Set(["roster", ...upto.flatMap((roster) => [...voicesOf(roster).keys()])]);
        const handed = Object.keys(statement.claims.handovers);
        if (!handed.every((stream) => streams.has(stream))) refuse("roster_unsound", "it hands a stream over that nobody has");
        if (streams.size + handed.length + Math.max(...upto.map(fraudsMax)) > MAX.streams) refuse("roster_unsound", "too many streams");
      }
      believed = chain;
    };
    const former = (document) => judged(chain, (roster) => issuedBy(document, roster), (roster) => roster.issuers);

    const place = async (proven, prefix) => { // (2) to (5)
      let [said, bodies] = [null, []];
      await check(`${prefix}record`, () => {
        bounded(utf8(canonical(proven.record)), MAX.record);
        const found = checked({ anyOf: GIVEN.records.map(($ref) => ({ $ref })) }, proven.record, "record");
        if (found.mesh !== trusted.claims.mesh) refuse("wrong_mesh", found.mesh);
        const owner = ownersThen(chain, found)[0];
        said = found;
        return `${found.record} ${found.index} of ${owner.name}`;
      });
      if (!said) return [null, []];
      await check(`${prefix}inclusion`, async () => { // (3)
        if (!proven.proof) skip("there is no proof");
        const tlog = readTlog(proven.proof);
        if (tlog.index !== said.index || tlog.note.origin !== said.origin) refuse("bad_proof", "the proof is about another record");
        const leaf = await leafHash(utf8(canonical(proven.record)));
        if (!equal(await rootFrom(leaf, tlog.index, tlog.note.size, tlog.path), tlog.note.root)) {
          refuse("bad_proof", `leaf ${tlog.index} is not under this root`);
        }
        return `leaf ${said.index} of ${tlog.note.size}`;
      });
      await check(`${prefix}final`, async () => { // (4)
        if (!proven.proof) skip("nobody has signed a tree with this record in it");
        const { note } = readTlog(proven.proof);
        try {
          const { names, roster } = await certified(note, said, chain, trusted.claims.epoch);
          if (!prefix) { report.as_of = roster.epoch; report.roster = chain.find((one) => one.claims === roster).id; }
          return `${names.length} attested size ${note.size}, ${roster.k} needed in epoch ${roster.epoch}: ${names.join(", ")}`;
        } catch (error) { return ["former_certificate", "not_final"].includes(error.code) ? skip(error.detail, error.code) : Promise.reject(error); }
      });
      await check(`${prefix}statements`, async () => { // (5)
        const wanted = (GIVEN.bodies[said.record] ?? []).map((name) => said[name]);
        bodies = await Promise.all(proven.bodies.map((envelope) => read(envelope, "intent", "identity", "heard", "outcome")));
        if (said.record === "denied" && !bodies.length) skip("the intent that was denied is not here");
        if (!same(bodies.map((body) => body.id), wanted)) {
          refuse(bodies.length < wanted.length ? "body_missing" : "record_invalid", "not exactly the statements that the record names");
        }
        for (const body of bodies) {
          const by = { intent: body.claims.holder, heard: body.claims.enforcer, outcome: body.claims.enforcer }[body.kind];
          if (body.kind === "identity") await judged(chain, (roster) => sealed(body, roster.issuers.keys, 1), (roster) => roster.issuers.keys);
          else await sealed(body, [by], 1);
        }
        if (said.record === "denied") await askedBy(said, ...bodies);
        if (said.record === "heard") heardBy(said, ...bodies);
        return `${bodies.length} named, ${bodies.length} here and signed`;
      });
      return [said, bodies];
    };
    const kinds = (bodies, ...wanted) => same(bodies.map((body) => body.kind), wanted) || refuse("wrong_kind", `not ${wanted.join(", ")}`);
    const askedBy = async (said, intent, identity) => {
      kinds([intent, identity], "intent", "identity");
      await governed();
      await authenticate(intent, identity, trusted.claims.mesh, former);
      if (intent.claims.subject !== said.subject) refuse("record_invalid", "the intent is another's");
    };
    const heardBy = (said, heard, identity) => {
      kinds([heard, identity], "heard", "identity");
      const claims = heard.claims;
      if (claims.mesh !== said.mesh) refuse("wrong_mesh", claims.mesh);
      if (claims.enforcer !== identity.claims.key || claims.identity !== identity.id) {
        refuse("identity_mismatch", "another enforcer's word");
      }
      const names = claims.frontier.map((head) => head.stream);
      const disorder = names.some((name, at) => at && byCodePoint(names[at - 1], name) >= 0) || claims.frontier.some((head) => head.sequence < 1);
      if (claims.sequence < 1 || disorder) refuse("malformed", "a number or a frontier that none has");
      checkIdentity(identity.claims, "enforcer", claims.enforcer, said.at_ms, said.subject);
    };

    const lawOf = async (said, keep) => { // (6)
      if (bundle.manifests.length !== 1 || bundle.bundles.length !== 1) {
        refuse("body_missing", "a decision's proof carries its manifest and its policy bundle");
      }
      const manifest = await read(bundle.manifests[0], "policy");
      const { domain } = manifest.claims;
      const lawful = async (roster) => {
        const role = roster.policy[domain] ?? refuse("domain_unknown", domain);
        await sealed(manifest, role.keys, role.threshold);
        return role.threshold;
      };
      const namedBy = appointed(chain, `policy/${domain}`, manifest.claims, manifest.claims.epoch);
      const needed = namedBy ? await lawful(namedBy) : await judged(chain, lawful, (roster) => roster.policy[domain]);
      await governed();
      if (!namedBy) refuse("wrong_epoch", "the roster that named its signers is not of this chain");
      if (manifest.claims.mesh !== trusted.claims.mesh) refuse("wrong_mesh", manifest.claims.mesh);
      if (manifest.claims.epoch < 1 || manifest.claims.epoch > MAX.said || (manifest.claims.epoch === 1) !== (manifest.claims.previous === "")) {
        refuse("malformed", "a manifest's number");
      }
      const content = utf8(canonical(bundle.bundles[0]));
      const named_ = [manifest.id, manifest.claims.digest, manifest.claims.epoch];
      if (`blake3:${blake3(content)}` !== manifest.claims.digest || !same(named_, [said.attested.manifest, said.decision.bundle, said.attested.policy_epoch])) {
        refuse("digest_mismatch", "manifest, bundle and record do not name one another");
      }
      checked({ $ref: "#/$defs/Bundle" }, parse(content, MAX.policy), "policy bundle");
      checkNames(bundle.bundles[0]);
      if (bundle.bundles[0].domain !== domain) refuse("policy_invalid", "bundle of another domain");
      const activations = [];
      for (const envelope of bundle.activations) activations.push(await activated(await read(envelope, "activate"), domain, last(activations)));
      if (said.attested.activation !== (last(activations)?.id ?? "")) {
        refuse("digest_mismatch", "the activations are not those up to the one that the record names");
      }
      keep.push({ manifest, bundle: bundle.bundles[0], activations });
      return `${domain} epoch ${manifest.claims.epoch}, signed by ${manifest.signatures.size}, ${needed} needed`;
    };
    const activated = async (statement, domain, before) => {
      const claims = statement.claims;
      if (claims.mesh !== trusted.claims.mesh) refuse("wrong_mesh", claims.mesh);
      const regions = claims.rings.flatMap((ring) => ring.regions.length ? ring.regions : [""]);
      if (new Set(regions).size !== regions.length || claims.rings.some((ring) => !same(ring.regions, sorted(ring.regions)))) {
        refuse("policy_invalid", "a region stands in two rings");
      }
      const roster = appointed(chain, `activate/${claims.domain}`, claims, claims.sequence)
        ?? refuse("wrong_epoch", "the roster that named its signers is not of this chain");
      const role = roster.policy[claims.domain] ?? refuse("domain_unknown", claims.domain);
      await sealed(statement, role.keys, Math.max(1, role.threshold));
      const follows = claims.domain === domain && claims.sequence === (before?.claims.sequence ?? 0) + 1 && claims.previous === (before?.id ?? "");
      return follows ? statement : refuse("digest_mismatch", "the activations do not follow one another");
    };

    const outcomeOf = async (decision, intent, said, bodies) => { // (9)
      if (decision?.record !== "decision" || said?.record !== "outcome") {
        refuse("record_invalid", "only permits have outcomes, and only outcomes may stand there");
      }
      if (said.intent !== decision.intent || said.authorization !== decision.authorization) {
        refuse("record_invalid", "the outcome of another authorization");
      }
      kinds(bodies, "outcome", "identity");
      await governed();
      const [{ id, claims }, document] = bodies;
      await former(document);
      checkIdentity(document.claims, "enforcer", claims.enforcer, claims.at_ms);
      const told = [id, document.id, claims.identity, claims.intent, claims.authorization, claims.event.type, claims.mesh];
      if (!same(told, [said.outcome, said.identity, document.id, said.intent, said.authorization, said.event, said.mesh])) {
        refuse("record_invalid", "the outcome says something else");
      }
      const boot = claims.event.type === "unknown" ? claims.event.boot : claims.boot;
      const { domain, audience } = intent.claims;
      if (!same([claims.intent, claims.enforcer, claims.domain, boot], [intent.id, audience.enforcer, domain, audience.boot])) {
        refuse("record_invalid", "the intent is meant for another enforcer, domain or boot");
      }
      return said.event;
    };

    if (bundle.rosters.length) {
      await check("rosters", async () => {
        const shown = [];
        for (const envelope of bundle.rosters) shown.push(await read(envelope, "roster"));
        chain = await vouch(trusted, shown);
        return `epochs 1 to ${chain.length} follow one another`;
      });
    }
    const [said, bodies] = await place(bundle, "");
    report.record = said;
    if (said?.record === "decision") {
      const laws = [];
      await check("policy", () => lawOf(said, laws));
      if (said.approvals.length) {
        await check("approvals", async () => {
          const backing = await weigh(said.approvals, bodies[0].claims, rosterThen(chain, said), said.at_ms);
          const counted = Object.entries(backing.approvals).map(([group, count]) => `${count} of ${group}`);
          return [...counted, ...(backing.breakglass ? ["break-glass"] : [])].join(", ");
        });
      }
      if (said.parents.length) {
        await check("parents", async () => {
          await governed();
          const { kin, ancestors } = await trace(said.parents, bodies[0], chain, rosterThen(chain, said).epoch, said.at_ms);
          const after = kin.length - (ancestors.length ? 1 : 0);
          const within = ancestors.length ? [`within ${ancestors.length}, begun by ${last(ancestors).subject}`] : [];
          return [...within, ...(after ? [`after ${after}`] : [])].join(", ");
        });
      }
      const sealed = bodies?.[0]?.claims.sealed ?? record({});
      if (bundle.boxes.length || Object.keys(sealed).length) {
        await check("sealed", async () => {
          kinds(bodies, "intent", "identity", "identity");
          if (Object.keys(sealed).length && !bundle.boxes.length) skip("the boxes of its sealed parameters are not here");
          await checkBoxes(sealed, bundle.boxes);
          return `sealed: ${toldSeals(sealed)}`;
        });
      }
      await check("decision", async () => { // (7)
        if (!laws.length) skip("without a law");
        rosterThen(chain, said);
        kinds(bodies, "intent", "identity", "identity");
        const open = Object.keys(bodies[0].claims.committed).filter((name) => !(name in sealed)).sort();
        if (open.length && !bundle.openings.length) skip(`the openings of its committed parameters are not here: ${open.join(", ")}`);
        if (Object.keys(sealed).length && !bundle.boxes.length) skip("the boxes of its sealed parameters are not here");
        const names = bundle.openings.map((opening) => opening.name);
        if (!same(names, sorted(names))) refuse("non_canonical", "the openings are not in their order");
        await repeatDecision(said, bodies, bundle.openings, laws[0], chain);
        return `${said.decision.effect} by ${said.decision.determining.join(", ") || "default"}`;
      });
      await check("replay", () => skip("not checked here: a browser evaluates no Cedar policies. `mesh verify` does")); // (8)
    } else {
      await check("policy", () => bundle.manifests.length || bundle.bundles.length || bundle.activations.length || bundle.openings.length || bundle.boxes.length
        ? refuse("record_invalid", "only decisions rest on policy") : "no policy was asked");
    }
    for (const [number, proven] of bundle.outcomes.entries()) {
      const [one, its] = await place(proven, `outcome ${number}: `);
      await check(`outcome ${number}: outcome`, () => outcomeOf(said, bodies[0], one, its));
    }
    if (bundle.outcomes.length) {
      await check("order", () => {
        const places = bundle.outcomes.map(({ record: one }) => [one.origin, one.index]);
        const after = ([one, at], [other, then]) => byCodePoint(one, other) || at - then;
        if (places.some((at, number) => number && after(places[number - 1], at) >= 0)) refuse("non_canonical", "the outcomes are not in their order");
        return "outcomes are in their order";
      });
    }
    const results = new Set(checks.filter((done) => done.name !== "replay" || done.result === "failed").map((done) => done.result));
    report.verdict = results.has("failed") ? "FAILED" : results.has("skipped") ? "PARTIAL" : "VERIFIED";
    return report;
  };

  /* The roster of that id among those that came with the page or stand in the bundle; the page's own if none is asked for. */
  const anchorOf = async (bytes, own, pin) => {
    if (!pin) return own;
    let others = [];
    try { others = JSON.parse(text(bytes)).rosters.map((envelope) => utf8(JSON.stringify(envelope))); } catch { /* judging says so */ }
    for (const candidate of [own, ...others]) {
      try { if ((await read(parse(candidate, MAX.envelope), "roster")).id === pin) return candidate; } catch { /* not this one */ }
    }
    return null;
  };

  return { judge, anchorOf, blake3, fromBase64, text, utf8, canonical, parse, sha256Hex, sound, admissible };
})();

// ------------------------------------------------------------------------------------------------------------------- the page

const Page = (() => {
  const at = (id) => document.getElementById(id);
  const carried = (id) => Proof.fromBase64(at(id).textContent.trim());
  const when = (ms) => new Date(ms).toISOString().replace("T", " ").replace("Z", " UTC");
  const LINE_ENDS = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g; // and what cannot be seen
  const plain = (value) => String(value).replace(LINE_ENDS, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const make = (name, given = {}, ...inside) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(given)) element.setAttribute(key, value);
    element.append(...inside.map((one) => typeof one === "object" ? one : document.createTextNode(plain(one))));
    return element;
  };
  const WORDS = {
    VERIFIED: "Every check passed, under the roster that you named.",
    PARTIAL: "Nothing is wrong, but something could not be checked here.",
    FAILED: "This is not a proof. Do not rely on anything it says.",
    BLIND: "This browser can check no signature, so nothing here is proved. Use another browser, or mesh verify.",
    LINK: "Nothing is wrong, but the link chose the roster, not you. Confirm its id below if you know it from somebody you trust.",
  };
  const WHOSE = {
    reader: "the id that you gave",
    link: "the link names it, and nobody else says so: compare it, then confirm",
    file: "nobody but this file itself says so",
  };
  const SIGNS = { passed: "✓", failed: "✗", skipped: "–" };
  let given = null; // {bytes, anchor, name}: what is judged now, or next
  let shown = null; // the same of what stands on the page
  let [turn, reading, confirmed] = [0, 0, ""]; // only the newest may write onto the page; the pin that the reader, not a link, gave

  const payload = (envelope) => {
    try { return JSON.parse(Proof.text(Proof.fromBase64(envelope.payload))); } catch { return {}; }
  };
  const pair = (list, name, ...values) => list.append(make("dt", {}, name), make("dd", {}, ...values));
  const code = (value) => make("code", {}, value);

  /* What the record says, for people; believed only as far as the verdict goes. */
  const told = (report) => {
    const list = make("dl");
    const [said, bundle] = [report.record, report.bundle];
    if (!said) return list;
    const intent = bundle.bodies.map(payload).find((claims) => claims && claims.audience);
    if (intent) {
      pair(list, "Who asked", code(intent.subject));
      pair(list, "For what", make("strong", {}, `${intent.domain}/${intent.action}`), " on ", code(`${intent.resource.type}::"${intent.resource.id}"`));
      const [open, hidden] = [Object.entries(intent.params), Object.keys(intent.committed)];
      const assigned = (name, value) => code(`${name} = ${JSON.stringify(value)}`);
      if (open.length) pair(list, "With", ...open.flatMap(([name, value], number) => [number ? ", " : "", assigned(name, value)]));
      const opened = new Map(bundle.openings.map((opening) => [opening.name, opening.value]));
      const seals = (name) => Object.hasOwn(intent.sealed ?? {}, name) ? intent.sealed[name] : [];
      const unopened = (name) => code(seals(name).length
        ? `${name}: sealed for ${seals(name).map(({ auditor }) => auditor).join(", ")}` : `${name}: only its commitment is here`);
      for (const name of hidden) pair(list, "Kept apart", opened.has(name) ? assigned(name, opened.get(name)) : unopened(name));
      for (const item of intent.measurements) pair(list, "What was measured", code(`${item.name} ${item.digest}`));
      if (intent.purpose) pair(list, "Purpose, as they say", intent.purpose);
      for (const id of intent.within) pair(list, "Within", code(id));
      for (const item of intent.after) pair(list, "After", code(item.authorization));
    }
    if (said.record === "decision") {
      const answer = make("strong", { class: said.decision.effect }, said.decision.effect);
      const lacking = said.decision.needs.length ? `; lacking: ${said.decision.needs.join(", ")}` : "";
      pair(list, "Decision", answer, ` by ${said.decision.determining.join(", ") || "default"}${lacking}`);
      pair(list, "Under policy", `${intent?.domain ?? ""} epoch ${said.attested.policy_epoch} `, code(said.decision.bundle));
      if (said.authorization) pair(list, "Authorization", code(said.authorization));
    } else if (said.record === "denied") pair(list, "Denied", make("strong", { class: "deny" }, said.code), ` ${said.detail}`);
    else pair(list, "Record", said.record, " ", said.event ?? said.change ?? said.code ?? "");
    pair(list, "Recorded", `${when(said.at_ms)}, as record ${said.index} of `, code(said.origin));
    for (const proven of bundle.outcomes) {
      const outcome = proven.bodies.map(payload).find((claims) => claims && claims.event);
      const status = outcome && "status" in outcome.event ? `, status ${outcome.event.status}` : "";
      pair(list, "Outcome", make("strong", {}, proven.record.event), `${status}, ${when(outcome?.at_ms ?? proven.record.at_ms)}`);
    }
    return list;
  };

  const rows = (report) => report.checks.map((check) => make("tr", { class: check.result },
    make("td", { class: "sign", title: check.result }, SIGNS[check.result]), make("th", { scope: "row" }, check.name),
    make("td", {}, check.code ? make("code", {}, check.code) : "", check.code ? " " : "", check.detail)));

  const sentence = (report, by) => {
    if (report.verdict === "FAILED") return WORDS.FAILED;
    if (report.checks.some((check) => check.name === "signatures")) return WORDS.BLIND;
    const others = report.checks.filter((check) => check.result === "skipped" && !["replay", "trust"].includes(check.name));
    return by === "link" && !others.length ? WORDS.LINK : WORDS[report.verdict];
  };
  const wait = () => {
    document.body.dataset.verdict = "";
    at("verdict").replaceChildren("…");
    at("sentence").replaceChildren("It is being checked.");
    for (const id of ["reasons", "story", "checks", "raw", "whose", "source"]) at(id).replaceChildren();
  };
  const show = (report, by) => {
    document.body.dataset.verdict = report.verdict;
    at("verdict").replaceChildren(report.verdict);
    at("sentence").replaceChildren(plain(sentence(report, by)));
    at("source").replaceChildren(plain(shown.name));
    const lacking = report.checks.filter((check) => check.result === "skipped" && check.name !== "replay" && check.detail !== "not reached");
    const failed = report.checks.filter((check) => check.result === "failed");
    const reason = (check) => make("li", {}, make("b", {}, check.name), `: ${check.code} ${check.detail}`);
    at("reasons").replaceChildren(...[...failed, ...lacking].map(reason));
    at("says").replaceChildren(report.verdict === "FAILED" ? "What it claims, and does not prove" : "What it says");
    at("story").replaceChildren(told(report));
    at("checks").replaceChildren(...rows(report));
    at("mesh").replaceChildren(plain(report.mesh || "?"));
    at("as-of").replaceChildren(plain(report.as_of || "?"));
    at("roster").replaceChildren(plain(report.roster || "?"));
    at("whose").replaceChildren(WHOSE[by]);
    at("raw").replaceChildren(report.bundle ? plainJson(report.bundle) : "");
  };
  /* Pretty, with what could paint over other text shown as escapes. */
  const plainJson = (value) => JSON.stringify(value, null, 2).split("\n").map(plain).join("\n");

  const pinned = () => /^#pin=([0-9a-f]{64})$/.exec(location.hash)?.[1] ?? "";
  let latest = null; // the newest judgement, as a promise
  const judge = () => latest = judged();
  const judged = async () => {
    const [mine, pin, one] = [turn += 1, pinned(), given];
    const by = !pin ? "file" : pin === confirmed ? "reader" : "link";
    at("pin").value = pin;
    at("confirm").replaceChildren(by === "link" ? "I trust this id" : "Check again");
    wait();
    let report;
    try {
      if (!globalThis.crypto?.subtle) throw new Error("this browser offers no cryptography to this page: open it as a file or by https");
      if (location.hash.startsWith("#pin=") && !pin) throw new Error("the pin is not 64 lowercase hex digits");
      const anchor = await Proof.anchorOf(one.bytes, one.anchor, pin);
      if (anchor === null) throw new Error("wrong_epoch: no roster of the pinned id is in this file");
      report = await Proof.judge(one.bytes, anchor, by);
    } catch (error) {
      const checks = [{ name: "trust", result: "failed", code: "", detail: String(error.message) }];
      report = { verdict: "FAILED", checks, mesh: "", as_of: 0, roster: "", record: null, bundle: null };
    }
    if (mine === turn) { // else something else was asked for meanwhile: its pin and its file stand there
      shown = one;
      show(report, by);
    }
    return report;
  };

  /* The exact bytes of the bundle, for `mesh verify`. */
  const save = () => {
    const link = make("a", { download: "proof.json", href: URL.createObjectURL(new Blob([shown.bytes], { type: "application/json" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  /* Another proof, a bundle or a page like this, judged by this page's program and its reader's pin. */
  const load = async (file) => {
    const mine = reading += 1;
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (mine !== reading) return undefined;
    const written = new TextDecoder().decode(bytes);
    const held = (id) => new RegExp(`<script type="application/octet-stream" id="${id}">([A-Za-z0-9+/=\\s]*)<\\/script>`);
    const inside = (id) => held(id).exec(written)?.[1].trim();
    const [bundle, anchor] = [inside("bundle"), inside("anchor")];
    given = { name: file.name, bytes: bundle ? Proof.fromBase64(bundle) : bytes, anchor: anchor ? Proof.fromBase64(anchor) : given.anchor };
    return judge();
  };

  const begin = () => {
    given = shown = { name: "the proof in this page", bytes: carried("bundle"), anchor: carried("anchor") };
    at("trust-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const pin = at("pin").value.trim();
      confirmed = pin;
      if (location.hash === `#pin=${pin}` || (!pin && !location.hash)) judge();
      else location.hash = pin ? `pin=${pin}` : "";
    });
    window.addEventListener("hashchange", judge);
    at("save").addEventListener("click", save);
    at("other").addEventListener("change", (event) => event.target.files[0] && load(event.target.files[0]));
    return judge();
  };
  return { ready: begin(), judge, load, latest: () => latest };
})();
