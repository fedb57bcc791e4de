/**
 * A device: its keys, prekeys, contacts and sessions, as one value. Each operation gives the next value; a refused one
 * gives none (sections 4.2, 5.2, 6.1, 6.2, 12).
 */
import { decodeBody } from './body.js';
import { equal, hex } from './bytes.js';
import { decodeContent, disposition, EMPTY, encodeContent } from './content.js';
import {
  decodeList, encodeList, entryOf, isStale, judgeList, judgePosition, LIFETIME, newestList, positionOf, signList,
  verifyList,
} from './devicelist.js';
import { decodeEnvelope, encodeEnvelope, MAX_TTL } from './envelope.js';
import { malformed, refuse } from './errors.js';
import { findPrekeys, initiate, repeatKey, respond } from './handshake.js';
import { addressText, userId } from './identifiers.js';
import { encodeBundle, prekeyBytes, decodeBundle, verifyPrekeys } from './prekeys.js';
import { dhPair, kemPublic, random, sha256, sign, signingKey } from './primitives.js';
import {
  decrypt, decryptWithAny, encrypt, healSession, KEPT_FOR, pruneSessions, sendingSession, startSession, withSession,
} from './session.js';

/**
 * @typedef {import('./handshake.js').Held & {expires: bigint}} OwnPreKey
 * @typedef {{account: Uint8Array, signing: Uint8Array, identity: Uint8Array}} Seeds
 * @typedef {{party: import('./handshake.js').Party, seeds: Seeds, list: Uint8Array,
 *   prekeys: Object<number, OwnPreKey>, claimed: Object<number, true>,
 *   contacts: Object<string, import('./devicelist.js').Contact>,
 *   sessions: Object<string, import('./session.js').Session[]>, replay: Object<number, Object<string, true>>,
 *   bodies: Object<string, bigint>, messages: Object<string, bigint>}} Device what was committed, and when
 */

const PREKEY_LIFETIME = 90n * 86_400_000n;
const REPLAY_LIMIT = 100_000;
const EMPTY_LANE = 2;

/** @param {Partial<Seeds & {device: Uint8Array}>} given @returns {Device} */
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

/**
 * @param {Device} d @param {import('./handshake.js').Kind} kind
 * @param {{id?: number, private?: Uint8Array}} given
 */
export function addPrekey(d, kind, now, given = {}) {
  const isKem = kind.startsWith('kem');
  const secret = given.private ?? random(isKem ? 64 : 32);
  const id = given.id ?? new DataView(random(4).buffer).getUint32(0);
  if (id in d.prekeys || id in d.claimed) malformed('prekey ids are never reused');
  const publicKey = isKem ? kemPublic(secret) : dhPair(secret).public;
  const key = { kind, private: secret, public: publicKey, expires: now + PREKEY_LIFETIME };
  return { device: { ...d, prekeys: { ...d.prekeys, [id]: key } }, id };
}

/** A bundle as a key server hands it out: one-time prekeys at most once. @param {Device} d */
export function claimBundle(d, { oneTime = true, oneTimeKem = true } = {}) {
  const newest = (kind) => Object.keys(d.prekeys).filter((id) => d.prekeys[id].kind === kind && !d.claimed[id])
    .reduce((best, id) => (best && d.prekeys[best].expires >= d.prekeys[id].expires ? best : id), undefined);
  const kemOnce = oneTimeKem ? newest('kem one-time') : undefined;
  const ids = {
    signed: newest('signed'), oneTime: oneTime ? newest('one-time') : undefined,
    kem: kemOnce ?? newest('kem last-resort'),
  };
  if (!ids.signed || !ids.kem) refuse('unknown_prekey', 'make a signed and a KEM prekey first');
  const claimed = { ...d.claimed };
  for (const id of [ids.oneTime, kemOnce]) if (id !== undefined) claimed[id] = true;
  return { device: { ...d, claimed }, bundle: bundleOf(d, ids) };
}

const KEM_KINDS = { 'kem one-time': 1, 'kem last-resort': 2 };

/** The public half of a prekey, signed unless it is a one-time X25519 prekey. @param {Device} d */
export function publicPrekey(d, id) {
  const { kind, expires, public: key } = d.prekeys[id];
  if (kind === 'one-time') return { id: Number(id), public: key };
  const fields = { ...(KEM_KINDS[kind] && { kind: KEM_KINDS[kind] }), id: Number(id), expires, public: key };
  return { ...fields, signature: sign(d.seeds.signing, prekeyBytes(d.party.address, fields)) };
}

/** @param {Device} d @param {{signed: number, oneTime?: number, kem: number}} ids */
export const bundleOf = (d, { signed, oneTime, kem }) => encodeBundle({
  address: d.party.address, signed: publicPrekey(d, signed),
  oneTime: oneTime === undefined ? null : publicPrekey(d, oneTime), kem: publicPrekey(d, kem),
});

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
  return contact;
}

/** A device of a contact, with the keys under which it is listed. @param {import('./devicelist.js').Contact} contact */
export function listedParty(contact, address) {
  const list = newestList(contact);
  const entry = entryOf(list, address.device) ?? refuse('unlisted_device', addressText(address));
  return { address, account: list.account, signing: entry.signing, identity: entry.identity };
}

/**
 * Section 6.1. @param {Device} d @param {Uint8Array} bytes a bundle @param {bigint} now
 * @param {{ephemeral?: Uint8Array, kem?: {ss: Uint8Array, ct: Uint8Array}}} [fixed] for tests
 */
export function start(d, bytes, now, fixed = {}) {
  const bundle = decodeBundle(bytes);
  const contact = sendable(d, bundle.address.user);
  const to = addressText(bundle.address);
  if (to === addressText(d.party.address)) refuse('unlisted_device', 'our own device');
  const peer = listedParty(contact, bundle.address);
  verifyPrekeys(bundle, peer.signing, now);
  const sessions = d.sessions[to] ?? [];
  const above = sessions.reduce((top, s) => (s.created > top ? s.created : top), -1n) + 1n;
  const last = (1n << 63n) - 1n;
  const created = above > last ? last : above > now ? above : now;
  const self = { ...d.party, secret: d.seeds.identity };
  const { agreed, handshake } = initiate(self, peer, bundle, { ...fixed, created });
  const session = startSession(agreed, peer, handshake, { signedPrekey: bundle.signed.public }, now);
  return { device: { ...d, sessions: { ...d.sessions, [to]: withSession(sessions, session) } }, session };
}

const sending = (sessions, now) =>
  sendingSession(sessions, now) ?? refuse('session_not_found', 'start a session from a bundle');

/**
 * Encrypts for one device on its sending session.
 * @param {Device} d @param {import('./identifiers.js').Address} to
 * @param {{kind: number, body: Uint8Array, messageId?: Uint8Array, conversation?: string, sentAt?: bigint,
 *   envelopeId?: Uint8Array, lane?: number, ttl?: number}} what
 */
export function sendTo(d, to, what, now, fixed = {}) {
  const contact = sendable(d, to.user);
  listedParty(contact, to);
  const sessions = d.sessions[addressText(to)] ?? [];
  const session = sending(sessions, now);
  const content = {
    kind: what.kind, body: what.body, messageId: what.messageId ?? random(16), conversation: what.conversation ?? '',
    sentAt: what.sentAt ?? now,
    senderList: positionOf(decodeList(d.list)), recipientList: positionOf(newestList(contact)),
    list: session.answered ? null : d.list,
  };
  const sealed = encrypt(session, encodeContent(content), Number(now), fixed);
  const envelope = encodeEnvelope({
    id: what.envelopeId ?? random(16), sender: d.party.address, recipient: to, lane: what.lane ?? 1,
    ttl: what.ttl ?? MAX_TTL, body: sealed.body,
  });
  const all = { ...d.sessions, [addressText(to)]: withSession(sessions, sealed.session) };
  return { ...sealed, device: { ...d, sessions: all }, envelope, content };
}

/**
 * Healing on demand, with an empty message to carry it.
 * @param {Device} d @param {import('./identifiers.js').Address} to
 */
export function heal(d, to, now, fixed = {}) {
  const sessions = d.sessions[addressText(to)] ?? [];
  const all = withSession(sessions, healSession(sending(sessions, now)));
  const healing = { ...d, sessions: { ...d.sessions, [addressText(to)]: all } };
  return sendTo(healing, to, { kind: EMPTY, body: new Uint8Array(), lane: EMPTY_LANE }, now, fixed);
}

/** What goes for age. @param {Device} d @param {import('./identifiers.js').Address} peer */
export function prune(d, peer, now) {
  const to = addressText(peer);
  const young = (times) => Object.fromEntries(Object.entries(times).filter(([, at]) => now - at <= KEPT_FOR));
  return {
    ...d, sessions: { ...d.sessions, [to]: pruneSessions(d.sessions[to] ?? [], now) },
    bodies: young(d.bodies), messages: young(d.messages),
  };
}

/** Section 12.4. @param {Device} d @param {Uint8Array} bytes an envelope @param {bigint} now */
export function receiveEnvelope(d, bytes, now, fixed) {
  const envelope = decodeEnvelope(bytes);
  if (addressText(envelope.recipient) !== addressText(d.party.address)) refuse('wrong_recipient', 'another device');
  return { envelope, ...receiveBody(d, envelope.sender, envelope.body, now, fixed) };
}

/**
 * Decrypts, judges the sender, and gives what one transaction would store.
 * @param {Device} d @param {import('./identifiers.js').Address} sender
 * @param {{kem?: import('./pqkeys.js').Encapsulation}} [fixed] for tests
 */
export function receiveBody(d, sender, bytes, now, fixed) {
  const digest = hex(sha256(bytes));
  if (digest in d.bodies) refuse('duplicate_message', 'this body was committed');
  const body = decodeBody(bytes);
  const from = addressText(sender);
  const sessions = d.sessions[from] ?? [];
  const first = body.inner && firstMessage(d, sender, sessions, body, now);
  const { session, content: plaintext } = first
    ? decrypt(first.session, body.inner, Number(now), fixed)
    : decryptWithAny(sessions, body, Number(now), fixed);
  const content = decodeContent(plaintext);
  let fate = disposition(content);
  const contact = judgeSender(d, session, content, Boolean(first?.isNew));
  const message = `${sender.user} ${hex(content.messageId)}`;
  if (message in d.messages) fate = 'known';
  const device = {
    ...d, ...first?.stores,
    sessions: { ...d.sessions, [from]: withSession(sessions, session) },
    contacts: contact ? { ...d.contacts, [sender.user]: contact } : d.contacts,
    bodies: { ...d.bodies, [digest]: now }, messages: { ...d.messages, [message]: d.messages[message] ?? now },
  };
  return { device, content, fate, session };
}

/** Steps 2 to 7 of section 6.2. @param {import('./body.js').PreKeyMessage} body */
function firstMessage(d, sender, sessions, body, now) {
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
  const session = startSession(agreed, peer, body, { pair: held.signed }, now);
  return { session, isNew: true, stores: { prekeys, replay } };
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
