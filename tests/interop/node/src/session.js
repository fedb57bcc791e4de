/** One session: both ratchets, encryption with commitment (section 8.3), order and choice (sections 12.1, 12.2). */
import { compare, concat, equalSecret } from './bytes.js';
import { encodeHandshake, encodeHeader, encodePreKeyMessage } from './body.js';
import { Refusal, refuse } from './errors.js';
import { repeatKey } from './handshake.js';
import { pad, unpad } from './padding.js';
import { receivePq, sendPq, startPq } from './pqratchet.js';
import { kdf, open, random, seal } from './primitives.js';
import { knows, receive, send, startInitiator, startResponder } from './ratchet.js';
import { settle } from './skipped.js';

/**
 * @typedef {{id: Uint8Array, created: bigint, startedAt: ?bigint, answered: boolean, dead: boolean,
 *   header: Uint8Array, repeat: string, peer: import('./handshake.js').Party, received: number,
 *   ratchet: import('./ratchet.js').Ratchet, pq: import('./pqratchet.js').PqRatchet,
 *   skipped: import('./skipped.js').Skipped, skippedPq: import('./skipped.js').Skipped}} Session
 *   `startedAt` is null in a session that the peer started; `repeat` is H
 */

const UNANSWERED = 30n * 86_400_000n;
const KEPT_SESSIONS = 20;

/**
 * @param {import('./handshake.js').Agreed} agreed @param {import('./handshake.js').Party} peer
 * @param {import('./handshake.js').Handshake} handshake
 * @param {{startedAt: bigint, signedPrekey: Uint8Array} | {pair: import('./primitives.js').Pair}} role
 * @returns {Session}
 */
export function startSession(agreed, peer, handshake, role) {
  const isInitiator = 'startedAt' in role;
  const header = encodeHandshake(handshake);
  return {
    id: agreed.id, created: handshake.created, startedAt: isInitiator ? role.startedAt : null,
    answered: !isInitiator, dead: false, header, repeat: repeatKey(header), peer, received: 0,
    ratchet: isInitiator ? startInitiator(agreed.dr, role.signedPrekey) : startResponder(agreed.dr, role.pair),
    pq: startPq(agreed.pq, isInitiator), skipped: {}, skippedPq: {},
  };
}

/** AES key and commitment (section 7.4). */
export const messageKey = (dr, pq) => kdf(pq, 'E2EE/1 message', dr);

/**
 * @param {Session} s @param {Uint8Array} content encoded
 * @param {{ratchetKey?: Uint8Array, nonce?: Uint8Array}} [fixed] for tests
 * @returns {{session: Session, body: Uint8Array}}
 */
export function encrypt(s, content, { ratchetKey, nonce = random(12) } = {}) {
  const dr = send(s.ratchet, ratchetKey);
  const pq = sendPq(s.pq);
  const [key, commitment] = messageKey(dr.message, pq.message);
  const header = { ...dr.header, pq: pq.header, payloadType: 0, payload: new Uint8Array() };
  const prefix = concat(encodeHeader(header), commitment, nonce);
  const ciphertext = seal(key, nonce, pad(content), concat(s.id, prefix));
  const message = concat(prefix, ciphertext);
  const session = { ...s, ratchet: dr.state, pq: pq.state };
  return { session, body: s.answered ? message : encodePreKeyMessage(s.header, message) };
}

/**
 * @param {Session} s @param {import('./body.js').RatchetMessage} m @param {number} now
 * @returns {{session: Session, content: Uint8Array}}
 */
export function decrypt(s, m, now) {
  const dr = receive(s.ratchet, s.skipped, m);
  const pq = receivePq(s.pq, s.skippedPq, m.pq);
  const [key, commitment] = messageKey(dr.message, pq.message);
  if (!equalSecret(commitment, m.commitment)) refuse('authentication_failed', 'commitment');
  const padded = open(key, m.nonce, m.ciphertext, concat(s.id, m.prefix));
  if (m.payloadType !== 0) refuse('unsupported_version', 'payload of a later release');
  const content = unpad(padded);
  const received = s.received + 1;
  const session = {
    ...s, received, answered: true, ratchet: dr.state, pq: pq.state,
    skipped: settle(s.skipped, dr.add, dr.used, now, received),
    skippedPq: settle(s.skippedPq, pq.add, pq.used, now, received),
  };
  return { session, content };
}

/** Highest first. @param {Session[]} sessions */
export const inOrder = (sessions) => [...sessions].sort((a, b) =>
  (a.created === b.created ? compare(b.id, a.id) : a.created < b.created ? 1 : -1));

/** @param {Session[]} sessions @returns {Session | undefined} */
export const sendingSession = (sessions, now) => inOrder(sessions).find((s) =>
  !s.dead && (s.answered || s.startedAt === null || now - s.startedAt <= UNANSWERED));

/** The sessions with one in the place of its former self, or added. @param {Session[]} sessions @param {Session} s */
export const withSession = (sessions, s) =>
  inOrder([...sessions.filter((other) => compare(other.id, s.id)), s]).slice(0, KEPT_SESSIONS);

const NEXT = ['authentication_failed', 'epoch_unknown', 'key_evicted', 'too_many_skipped'];

/**
 * Section 12.2, for a RatchetMessage.
 * @param {Session[]} sessions @param {import('./body.js').RatchetMessage} m
 * @returns {{session: Session, content: Uint8Array}}
 */
export function decryptWithAny(sessions, m, now) {
  if (!sessions.length) refuse('session_not_found', 'no session with this device');
  const ordered = inOrder(sessions);
  const own = ordered.find((s) => knows(s.ratchet, s.skipped, m));
  if (own) return decrypt(own, m, now);
  let first = new Refusal('authentication_failed', 'no session could turn');
  for (const [i, session] of ordered.filter((s) => s.ratchet.pair).entries()) {
    try {
      return decrypt(session, m, now);
    } catch (error) {
      if (!NEXT.includes(error.code)) throw error;
      if (i === 0) first = error;
    }
  }
  throw first;
}
