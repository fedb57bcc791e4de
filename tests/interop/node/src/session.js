/** One session: both ratchets, encryption with commitment (section 8.3), order and choice (sections 12.1, 12.2). */
import { compare, concat, equalSecret } from './bytes.js';
import { encodeHandshake, encodeHeader, encodePreKeyMessage } from './body.js';
import { Refusal, refuse } from './errors.js';
import { repeatKey } from './handshake.js';
import { pad, unpad } from './padding.js';
import { NONE } from './pqkeys.js';
import { healPq, prunePq, receivePq, sendPq, startPq } from './pqratchet.js';
import { accept } from './pqturns.js';
import { kdf, open, random, seal } from './primitives.js';
import { knows, receive, send, startInitiator, startResponder } from './ratchet.js';
import { evictAged, settle } from './skipped.js';

/**
 * @typedef {{id: Uint8Array, created: bigint, storedAt: bigint, answered: boolean, dead: boolean,
 *   header: Uint8Array, repeat: string, peer: import('./handshake.js').Party, received: number,
 *   ratchet: import('./ratchet.js').Ratchet, pq: import('./pqratchet.js').PqRatchet,
 *   skipped: import('./skipped.js').Skipped, skippedPq: import('./skipped.js').Skipped, owing: ?number}} Session
 *   `answered` also in a session that the peer started; `repeat` is H; `owing` since when a payload came in, or healing
 *   is ours to go on with, and nothing was sent
 */

const UNANSWERED = 30n * 86_400_000n;
const KEPT_SESSIONS = 20;
/** What a late envelope may need is kept for so long. */
export const KEPT_FOR = 45n * 86_400_000n;
const EMPTY_AFTER = 5000;

/**
 * @param {import('./handshake.js').Agreed} agreed @param {import('./handshake.js').Party} peer
 * @param {import('./handshake.js').Handshake} handshake
 * @param {{signedPrekey: Uint8Array} | {pair: import('./primitives.js').Pair}} role an initiator's or a responder's
 * @returns {Session}
 */
export function startSession(agreed, peer, handshake, role, now) {
  const isInitiator = 'signedPrekey' in role;
  const header = encodeHandshake(handshake);
  return {
    id: agreed.id, created: handshake.created, storedAt: now,
    answered: !isInitiator, dead: false, header, repeat: repeatKey(header), peer, received: 0,
    ratchet: isInitiator ? startInitiator(agreed.dr, role.signedPrekey) : startResponder(agreed.dr, role.pair),
    pq: startPq(agreed.pq, isInitiator, Number(now)), skipped: {}, skippedPq: {}, owing: null,
  };
}

/** AES key and commitment (section 7.4). */
const messageKey = (dr, pq) => kdf(pq, 'E2EE/1 message', dr);

/** @param {Uint8Array} id T @param {import('./body.js').MessageHeader} header @param {Uint8Array} padded */
export function sealMessage(id, dr, pq, header, nonce, padded) {
  const [key, commitment] = messageKey(dr, pq);
  const prefix = concat(encodeHeader(header), commitment, nonce);
  return { message: concat(prefix, seal(key, nonce, padded, concat(id, prefix))), key, commitment };
}

/** @param {Uint8Array} id T @param {import('./body.js').RatchetMessage} m */
export function openMessage(id, dr, pq, m) {
  const [key, commitment] = messageKey(dr, pq);
  if (!equalSecret(commitment, m.commitment)) refuse('authentication_failed', 'commitment');
  return { padded: open(key, m.nonce, m.ciphertext, concat(id, m.prefix)), key, commitment };
}

/**
 * @param {Session} s @param {Uint8Array} content encoded
 * @param {number} now
 * @param {{ratchetKey?: Uint8Array, nonce?: Uint8Array, seed?: Uint8Array}} [fixed] for tests
 * @returns {{session: Session, body: Uint8Array, trace: Object<string, Uint8Array>}} the trace is for tests
 */
export function encrypt(s, content, now, { ratchetKey, nonce = random(12), seed } = {}) {
  const dr = send(s.ratchet, ratchetKey);
  const pq = sendPq(s.pq, now, seed);
  const header = { ...dr.header, pq: pq.header, payloadType: pq.type, payload: pq.payload };
  const padded = pad(content);
  const { message, key, commitment } = sealMessage(s.id, dr.message, pq.message, header, nonce, padded);
  const session = { ...s, ratchet: dr.state, pq: pq.state, owing: null };
  const body = s.answered ? message : encodePreKeyMessage(s.header, message);
  return { session, body, trace: { message: dr.message, pqMessage: pq.message, key, commitment, padded } };
}

/** The Double Ratchet had a key: so a position without one is no duplicate, but does not belong there. */
function receivePqOf(s, m) {
  try {
    return receivePq(s.pq, s.skippedPq, m.pq);
  } catch (error) {
    throw error.code === 'duplicate_message' ? new Refusal('authentication_failed', 'post-quantum index') : error;
  }
}

/**
 * @param {Session} s @param {import('./body.js').RatchetMessage} m @param {number} now
 * @param {{kem?: import('./pqkeys.js').Encapsulation}} [fixed] for tests
 * @returns {{session: Session, content: Uint8Array}}
 */
export function decrypt(s, m, now, { kem } = {}) {
  const dr = receive(s.ratchet, s.skipped, m);
  const pq = receivePqOf(s, m);
  const { padded } = openMessage(s.id, dr.message, pq.message, m);
  const received = s.received + 1;
  const carried = { epoch: m.pq.epoch, type: m.payloadType, payload: m.payload };
  const turned = accept(pq.state, carried, { now, received: s.received, kem });
  const content = unpad(padded);
  const owes = carried.type !== NONE || (turned.healing && turned.phase.name === 'propose-idle');
  const session = {
    ...s, received, answered: true, ratchet: dr.state, pq: turned,
    owing: owes ? s.owing ?? now : s.owing,
    skipped: settle(s.skipped, dr.add, dr.used, now, received),
    skippedPq: settle(s.skippedPq, pq.add, pq.used, now, received),
  };
  return { session, content };
}

/** Healing on demand (section 7.3). @param {Session} s @returns {Session} */
export const healSession = (s) => ({ ...s, pq: healPq(s.pq) });

/** Shall an empty message answer a payload now, if this is the sending session? @param {Session} s */
export const owesEmpty = (s, now) => s.owing !== null && now - s.owing >= EMPTY_AFTER;

/** Highest first. @param {Session[]} sessions */
export const inOrder = (sessions) => [...sessions].sort((a, b) =>
  (a.created === b.created ? compare(b.id, a.id) : a.created < b.created ? 1 : -1));

/** @param {Session[]} sessions @returns {Session | undefined} */
export const sendingSession = (sessions, now) => inOrder(sessions).find((s) =>
  !s.dead && (s.answered || now - s.storedAt <= UNANSWERED));

/** The sessions with one in the place of its former self, or added. @param {Session[]} sessions @param {Session} s */
export const withSession = (sessions, s) =>
  inOrder([...sessions.filter((other) => compare(other.id, s.id)), s]).slice(0, KEPT_SESSIONS);

/** What goes for age: lower sessions, chains, and skipped keys. @param {Session[]} sessions @param {bigint} now */
export function pruneSessions(sessions, now) {
  const sending = sendingSession(sessions, now);
  const gone = sending && now - sending.storedAt > KEPT_FOR;
  const kept = gone ? inOrder(sessions).slice(0, inOrder(sessions).indexOf(sending) + 1) : sessions;
  const at = Number(now);
  return kept.map((s) => ({
    ...s, skipped: evictAged(s.skipped, at), skippedPq: evictAged(s.skippedPq, at), pq: prunePq(s.pq, at),
  }));
}

const NEXT = ['authentication_failed', 'epoch_unknown', 'key_evicted', 'too_many_skipped'];

/**
 * Section 12.2, for a RatchetMessage.
 * @param {Session[]} sessions @param {import('./body.js').RatchetMessage} m
 * @returns {{session: Session, content: Uint8Array}}
 */
export function decryptWithAny(sessions, m, now, fixed) {
  if (!sessions.length) refuse('session_not_found', 'no session with this device');
  const ordered = inOrder(sessions);
  const own = ordered.find((s) => knows(s.ratchet, s.skipped, m));
  if (own) return decrypt(own, m, now, fixed);
  let first = new Refusal('authentication_failed', 'no session could turn');
  for (const [i, session] of ordered.filter((s) => s.ratchet.pair).entries()) {
    try {
      return decrypt(session, m, now, fixed);
    } catch (error) {
      if (!NEXT.includes(error.code)) throw error;
      if (i === 0) first = error;
    }
  }
  throw first;
}
