/**
 * A device: its keys, prekeys, contacts and sessions, as one value. Each operation gives the next value; a refused one
 * gives none (sections 4.2, 5.2, 6.1, 6.2, 12).
 */
import { decodeBody } from './body.js';
import { equal, hex } from './bytes.js';
import { decodeContent, disposition, encodeContent } from './content.js';
import {
  decodeList, encodeList, entryOf, isStale, judgeList, judgePosition, LIFETIME, newestList, positionOf, signList, verifyList,
} from './devicelist.js';
import { decodeEnvelope, encodeEnvelope, MAX_TTL } from './envelope.js';
import { malformed, refuse } from './errors.js';
import { findPrekeys, initiate, repeatKey, respond } from './handshake.js';
import { addressText, userId } from './identifiers.js';
import { encodeBundle, prekeyBytes, decodeBundle, verifyPrekeys } from './prekeys.js';
import { dhPair, kemPublic, random, sha256, sign, signingKey } from './primitives.js';
import { decrypt, decryptWithAny, encrypt, sendingSession, startSession, withSession } from './session.js';

/**
 * @typedef {import('./handshake.js').Held & {expires: bigint}} OwnPreKey
 * @typedef {{party: import('./handshake.js').Party, seeds: {account: Uint8Array, signing: Uint8Array, identity: Uint8Array},
 *   list: Uint8Array, prekeys: Object<number, OwnPreKey>, claimed: Object<number, true>,
 *   contacts: Object<string, import('./devicelist.js').Contact>,
 *   sessions: Object<string, import('./session.js').Session[]>, replay: Object<number, Object<string, true>>,
 *   bodies: Object<string, true>, messages: Object<string, true>}} Device
 */

const PREKEY_LIFETIME = 90n * 86_400_000n;
const REPLAY_LIMIT = 100_000;

/** @param {{account?: Uint8Array, signing?: Uint8Array, identity?: Uint8Array, device?: Uint8Array}} given @returns {Device} */
export function createDevice(user, now, given = {}) {
  const { account = random(32), signing = random(32), identity = random(32), device = random(16) } = given;
  const party = {
    address: { user: userId(user), device },
    account: signingKey(account), signing: signingKey(signing), identity: dhPair(identity).public,
  };
  const list = signList(account, {
    user, account: party.account, seq: 1n, previous: new Uint8Array(32), created: now, expires: now + LIFETIME,
    devices: [{ device, signing: party.signing, identity: party.identity }],
  });
  return {
    party, seeds: { account, signing, identity }, list: encodeList(list), prekeys: {}, claimed: {}, contacts: {},
    sessions: {}, replay: {}, bodies: {}, messages: {},
  };
}

/** @param {Device} d @param {import('./handshake.js').Held['kind']} kind @param {{id?: number, private?: Uint8Array}} given */
export function addPrekey(d, kind, now, given = {}) {
  const isKem = kind.startsWith('kem');
  const secret = given.private ?? random(isKem ? 64 : 32);
  const id = given.id ?? new DataView(random(4).buffer).getUint32(0);
  if (id in d.prekeys || id in d.claimed) malformed('prekey ids are never reused');
  const key = { kind, private: secret, public: isKem ? kemPublic(secret) : dhPair(secret).public, expires: now + PREKEY_LIFETIME };
  return { device: { ...d, prekeys: { ...d.prekeys, [id]: key } }, id };
}

/** A bundle as a key server hands it out: one-time prekeys at most once. @param {Device} d */
export function claimBundle(d, { oneTime = true, oneTimeKem = true } = {}) {
  const all = Object.entries(d.prekeys).map(([id, key]) => ({ ...key, id: Number(id) }));
  const of = (kind) => all.filter((key) => key.kind === kind && !d.claimed[key.id])
    .reduce((newest, key) => (newest && newest.expires >= key.expires ? newest : key), undefined);
  const signedKey = (key, kind) => {
    const fields = { id: key.id, expires: key.expires, public: key.public, ...(kind && { kind }) };
    return { ...fields, signature: sign(d.seeds.signing, prekeyBytes(d.party.address, fields)) };
  };
  const [signed, once, kemOnce, last] = [of('signed'), of('one-time'), of('kem one-time'), of('kem last-resort')];
  const kem = (oneTimeKem && kemOnce) || last;
  if (!signed || !kem) refuse('unknown_prekey', 'make a signed and a KEM prekey first');
  const chosen = oneTime ? once : undefined;
  const bundle = {
    address: d.party.address, signed: signedKey(signed),
    oneTime: chosen ? { id: chosen.id, public: chosen.public } : null,
    kem: signedKey(kem, kem === last ? 2 : 1),
  };
  const claimed = { ...d.claimed };
  for (const key of [chosen, kem === last ? undefined : kem]) if (key) claimed[key.id] = true;
  return { device: { ...d, claimed }, bundle: encodeBundle(bundle) };
}

/** A list from the key server. On `device_list_fork` the caller marks the contact. @param {Device} d */
export function learnList(d, user, bytes) {
  return { ...d, contacts: { ...d.contacts, [user]: judgeList(d.contacts[user], bytes, user) } };
}

/** What is stored although `device_list_fork` refused the object. @param {Device} d */
export function markForked(d, user) {
  return { ...d, contacts: { ...d.contacts, [user]: { ...d.contacts[user], forked: true } } };
}

function sendable(d, user) {
  const contact = d.contacts[user];
  if (!contact || isStale(contact)) refuse('device_list_stale', `the list of ${user} must be fetched`);
  if (contact.forked) refuse('device_list_fork', `${user} is forked`);
  return newestList(contact);
}

const partyOf = (address, list, entry) =>
  ({ address, account: list.account, signing: entry.signing, identity: entry.identity });

/**
 * Section 6.1. @param {Device} d @param {Uint8Array} bytes a bundle @param {bigint} now
 * @param {{ephemeral?: Uint8Array, kemRandom?: Uint8Array}} [fixed] for tests
 */
export function start(d, bytes, now, fixed = {}) {
  const bundle = decodeBundle(bytes);
  const list = sendable(d, bundle.address.user);
  const to = addressText(bundle.address);
  if (to === addressText(d.party.address)) refuse('unlisted_device', 'our own device');
  const entry = entryOf(list, bundle.address.device);
  if (!entry) refuse('unlisted_device', to);
  verifyPrekeys(bundle, entry.signing, now);
  const sessions = d.sessions[to] ?? [];
  const above = sessions.reduce((top, s) => (s.created > top ? s.created : top), -1n) + 1n;
  const last = (1n << 63n) - 1n;
  const created = above > last ? last : above > now ? above : now;
  const peer = partyOf(bundle.address, list, entry);
  const self = { ...d.party, secret: d.seeds.identity };
  const { agreed, handshake } = initiate(self, peer, bundle, { ...fixed, created });
  const session = startSession(agreed, peer, handshake, { startedAt: now, signedPrekey: bundle.signed.public });
  return { device: { ...d, sessions: { ...d.sessions, [to]: withSession(sessions, session) } }, session };
}

/**
 * Encrypts for one device on its sending session.
 * @param {Device} d @param {import('./identifiers.js').Address} to
 * @param {{kind: number, body: Uint8Array, messageId?: Uint8Array, conversation?: string, sentAt?: bigint,
 *   envelopeId?: Uint8Array, lane?: number, ttl?: number}} what
 */
export function sendTo(d, to, what, now, fixed = {}) {
  const list = sendable(d, to.user);
  if (!entryOf(list, to.device)) refuse('unlisted_device', addressText(to));
  const sessions = d.sessions[addressText(to)] ?? [];
  const session = sendingSession(sessions, now);
  if (!session) refuse('session_not_found', 'start a session from a bundle');
  const content = {
    kind: what.kind, body: what.body, messageId: what.messageId ?? random(16), conversation: what.conversation ?? '',
    sentAt: what.sentAt ?? now, senderList: positionOf(decodeList(d.list)), recipientList: positionOf(list),
    list: session.answered ? null : d.list,
  };
  const sealed = encrypt(session, encodeContent(content), fixed);
  const envelope = encodeEnvelope({
    id: what.envelopeId ?? random(16), sender: d.party.address, recipient: to, lane: what.lane ?? 1,
    ttl: what.ttl ?? MAX_TTL, body: sealed.body,
  });
  const all = { ...d.sessions, [addressText(to)]: withSession(sessions, sealed.session) };
  return { device: { ...d, sessions: all }, envelope, body: sealed.body, content, session: sealed.session };
}

/** Section 12.4. @param {Device} d @param {Uint8Array} bytes an envelope @param {bigint} now */
export function receiveEnvelope(d, bytes, now) {
  const envelope = decodeEnvelope(bytes);
  if (addressText(envelope.recipient) !== addressText(d.party.address)) refuse('wrong_recipient', 'another device');
  return receiveBody(d, envelope.sender, envelope.body, now);
}

/**
 * Decrypts, judges the sender, and gives what one transaction would store.
 * @param {Device} d @param {import('./identifiers.js').Address} sender
 */
export function receiveBody(d, sender, bytes, now) {
  const digest = hex(sha256(bytes));
  if (d.bodies[digest]) refuse('duplicate_message', 'this body was committed');
  const body = decodeBody(bytes);
  const from = addressText(sender);
  const sessions = d.sessions[from] ?? [];
  const first = body.inner && firstMessage(d, sender, sessions, body);
  const { session, content: plaintext } = first
    ? decrypt(first.session, body.inner, Number(now)) : decryptWithAny(sessions, body, Number(now));
  const content = decodeContent(plaintext);
  let fate = disposition(content);
  const contact = judgeSender(d, session, content, Boolean(first?.isNew));
  const message = `${sender.user} ${hex(content.messageId)}`;
  if (d.messages[message]) fate = 'known';
  const device = {
    ...d, ...first?.stores,
    sessions: { ...d.sessions, [from]: withSession(sessions, session) },
    contacts: contact ? { ...d.contacts, [sender.user]: contact } : d.contacts,
    bodies: { ...d.bodies, [digest]: true }, messages: { ...d.messages, [message]: true },
  };
  return { device, content, fate, session };
}

/** Steps 2 to 7 of section 6.2. @param {import('./body.js').PreKeyMessage} body */
function firstMessage(d, sender, sessions, body) {
  const repeat = repeatKey(body.headerBytes);
  const known = sessions.find((s) => s.repeat === repeat);
  if (known) return { session: known, isNew: false, stores: {} };
  if (Object.values(d.replay).some((memory) => memory[repeat])) refuse('replayed_handshake', 'accepted before');
  const held = findPrekeys(d.prekeys, body);
  const usesNone = !held.oneTime && held.kem.kind === 'kem last-resort';
  const memory = d.replay[body.kemId] ?? {};
  if (usesNone && Object.keys(memory).length >= REPLAY_LIMIT) refuse('unknown_prekey', 'replay memory is full');
  const { account, signing, identity } = body;
  const peer = { address: sender, account, signing, identity };
  const agreed = respond({ ...d.party, secret: d.seeds.identity }, peer, body, held);
  const prekeys = { ...d.prekeys };
  if (held.oneTime) delete prekeys[body.oneTimeId];
  if (held.kem.kind === 'kem one-time') delete prekeys[body.kemId];
  const replay = usesNone ? { ...d.replay, [body.kemId]: { ...memory, [repeat]: true } } : d.replay;
  return { session: startSession(agreed, peer, body, { pair: held.signed }), isNew: true, stores: { prekeys, replay } };
}

const hasKeys = (entry, party) => entry && equal(entry.signing, party.signing) && equal(entry.identity, party.identity);

/** Steps 10 to 14 of section 6.2. @returns {import('./devicelist.js').Contact | undefined} */
function judgeSender(d, { peer }, content, isNew) {
  const { user, device } = peer.address;
  if (user === d.party.address.user) refuse('unlisted_device', 'a device of our own user');
  let contact = d.contacts[user];
  if (content.list) {
    const list = decodeList(content.list);
    if (!equal(list.account, peer.account)) refuse('invalid_signature', 'list of another account key');
    verifyList(list, user);
    if (!hasKeys(entryOf(list, device), peer)) refuse('unlisted_device', 'not in its own list');
    contact = judgeList(contact, content.list, user);
  } else if (isNew) malformed('a first message carries a device list');
  const entry = contact && entryOf(newestList(contact), device);
  if (isNew && !hasKeys(entry, peer)) refuse('unlisted_device', 'not in the newest list known');
  return entry ? judgePosition(contact, content.senderList) : contact;
}
