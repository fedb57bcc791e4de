/** Whose turn it is in the post-quantum ratchet, and what a payload does (section 7.3). */
import { equal } from './bytes.js';
import { closeBelow, openChain } from './pqchains.js';
import {
  ANSWER, bindOf, checkAnswer, ciphertextOf, encapsulate, epochKeys, makeAnswer, makeOffer, NONE, OFFER, openOffer,
  refusePayload, REQUEST,
} from './pqkeys.js';
import { ratchetKem, sha256 } from './primitives.js';

/**
 * @typedef {import('./pqratchet.js').PqRatchet} PqRatchet
 * @typedef {{epoch: number, type: number, payload: Uint8Array}} Carried of a message: its epoch and its payload
 * @typedef {{now: number, received: number, kem?: import('./pqkeys.js').Encapsulation}} Context
 *   our clock; messages received on the session before this one; a recorded encapsulation, for tests
 */

const DUE_MESSAGES = 50;
const DUE_TIME = 24 * 3_600_000;
const ATTACH_AT = [1, 8, 16, 32, 64, 128];
const ATTACH_EVERY = 256;
const ATTACH_TIME = 3_600_000;
const NO_PAYLOAD = { type: NONE, payload: new Uint8Array() };

/** @param {PqRatchet} s @param {import('./pqratchet.js').Phase} phase @returns {PqRatchet} */
const enter = (s, phase, now) =>
  ({ ...s, phase, entered: now, sent: 0, received: 0, attached: 0, asked: false, again: false });

/** The epoch that was being agreed on is agreed on. @param {PqRatchet} s @returns {PqRatchet} */
const complete = (s) => ({ ...s, epoch: s.epoch + 1, healing: s.healing && !s.fresh, fresh: false });

/** @param {PqRatchet} s */
export const isDue = (s, now) => s.phase.name === 'propose-idle'
  && (s.sent + s.received >= DUE_MESSAGES || now - s.entered >= DUE_TIME || s.asked || s.healing);

/** @param {PqRatchet} s @param {Uint8Array} seed @returns {PqRatchet} */
export const propose = (s, seed, now) =>
  ({ ...enter(s, { name: 'offering', seed }, now), asked: s.asked, fresh: s.healing });

/** @param {PqRatchet} s with the message that is being sent already counted */
const isAttached = (s, now) => ATTACH_AT.includes(s.sent) || s.sent % ATTACH_EVERY === 0
  || now - s.attached >= ATTACH_TIME || s.asked || s.again || s.healing;

function payloadNow(s, now) {
  const { name, seed, payload } = s.phase;
  if (name === 'waiting' && s.healing) return { type: REQUEST, payload: new Uint8Array() };
  if (name === 'offering' && isAttached(s, now)) {
    return { type: OFFER, payload: makeOffer(s.authentication, s.epoch, seed) };
  }
  return name === 'answering' && isAttached(s, now) ? { type: ANSWER, payload } : NO_PAYLOAD;
}

/**
 * The payload of the message that is being sent. @param {PqRatchet} s
 * @returns {{state: PqRatchet, type: number, payload: Uint8Array}}
 */
export function attach(s, now) {
  const { type, payload } = payloadNow(s, now);
  const isAttachment = type === OFFER || type === ANSWER;
  return { state: isAttachment ? { ...s, attached: now, again: false } : s, type, payload };
}

/**
 * The steps after the AEAD has opened. @param {PqRatchet} s @param {Carried} m @param {Context} context
 * @returns {PqRatchet}
 */
export function accept(s, m, { now, received, kem }) {
  const receiving = closeBelow(s.receiving, m.epoch, { at: now, received });
  const counted = { ...s, received: s.received + 1, receiving };
  const next = s.phase.name === 'answering' && m.epoch === s.epoch ? followed(counted, now) : counted;
  if (m.type === NONE || m.epoch + 1 < next.epoch) return next;
  if (m.epoch + 1 > next.epoch) refusePayload('payload of an epoch to come');
  const judge = JUDGES[next.phase.name][m.type] ?? (() => refusePayload('payload out of turn'));
  return judge(next, m.payload, now, kem);
}

/** They send in the epoch that we answered: now we do, too. @param {PqRatchet} s */
const followed = (s, now) => enter(complete({ ...s, sending: s.phase.sending }), { name: 'propose-idle' }, now);

const ask = (s) => ({ ...s, asked: true });
/** By phase and type of payload; what is not here is refused. */
const JUDGES = {
  'propose-idle': { [REQUEST]: ask },
  offering: { [ANSWER]: takeAnswer, [REQUEST]: ask },
  waiting: { [OFFER]: takeOffer },
  answering: { [OFFER]: takeOfferAgain },
};

/** @param {PqRatchet} s @returns {PqRatchet} */
function takeOffer(s, payload, now, recorded) {
  const ek = openOffer(s.authentication, s.epoch, payload);
  const { ss, ct } = encapsulate(ek, recorded);
  const { root, authentication, ...keys } = epochKeys(s.root, ss, s.epoch, bindOf(ek, ct), s.isInitiator);
  const phase = {
    name: 'answering', payload: makeAnswer(authentication, s.epoch, ct), accepted: sha256(payload),
    sending: { key: keys.sending, next: 0 },
  };
  const receiving = [...s.receiving, openChain(s.epoch, keys.receiving)];
  return { ...enter({ ...s, root, authentication, receiving }, phase, now), fresh: s.healing };
}

function takeOfferAgain(s, payload) {
  return equal(sha256(payload), s.phase.accepted) ? { ...s, again: true } : refusePayload('another offer');
}

/** @param {PqRatchet} s @returns {PqRatchet} */
function takeAnswer(s, payload, now) {
  const { seed } = s.phase;
  const ct = ciphertextOf(payload);
  const bind = bindOf(ratchetKem.publicKey(seed), ct);
  const keys = epochKeys(s.root, ratchetKem.decaps(seed, ct), s.epoch, bind, s.isInitiator);
  const { root, authentication } = keys;
  checkAnswer(authentication, s.epoch, payload);
  const receiving = [...s.receiving, openChain(s.epoch, keys.receiving)];
  const agreed = { ...s, root, authentication, sending: { key: keys.sending, next: 0 }, receiving };
  return enter(complete(agreed), { name: 'waiting' }, now);
}
