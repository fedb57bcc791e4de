/** The post-quantum ratchet (section 7.3). A state is a value; each operation gives the next one. */
import { dropAged, openChain, stepChain } from './pqchains.js';
import { epochKeys, pqChainStep } from './pqkeys.js';
import { attach, isDue, propose } from './pqturns.js';
import { random } from './primitives.js';

/**
 * @typedef {{key: Uint8Array, next: number}} Chain
 * @typedef {{name: 'propose-idle'} | {name: 'offering', seed: Uint8Array} | {name: 'waiting'}
 *   | {name: 'answering', payload: Uint8Array, accepted: Uint8Array, sending: Chain}} Phase
 *   `accepted` is the hash of the offer; `sending` the chain to come
 * @typedef {{isInitiator: boolean, root: Uint8Array, authentication: Uint8Array, epoch: number, sending: Chain,
 *   receiving: import('./pqchains.js').ReceivingChain[], phase: Phase, entered: number, sent: number,
 *   received: number, attached: number, asked: boolean, again: boolean, healing: boolean, fresh: boolean}} PqRatchet
 *   `epoch` is the one that is being agreed on; messages are sent in the one before
 */

const STALLED_SENT = 32;
const STALLED_RECEIVED = 500;

/** @param {number} now our clock @returns {PqRatchet} */
export function startPq(secret, isInitiator, now) {
  const { root, authentication, sending, receiving } =
    epochKeys(new Uint8Array(32), secret, 0, new Uint8Array(), isInitiator);
  return {
    isInitiator, root, authentication, epoch: 1, sending: { key: sending, next: 0 },
    receiving: [openChain(0, receiving)], phase: { name: isInitiator ? 'propose-idle' : 'waiting' }, entered: now,
    sent: 0, received: 0, attached: 0, asked: false, again: false, healing: false, fresh: false,
  };
}

/**
 * @param {PqRatchet} s @param {number} now @param {Uint8Array} [seed] of an encapsulation key, for tests
 * @returns {{state: PqRatchet, header: {epoch: number, index: number}, type: number, payload: Uint8Array,
 *   message: Uint8Array}}
 */
export function sendPq(s, now, seed) {
  const turned = isDue(s, now) ? propose(s, seed ?? random(64), now) : s;
  const { state, type, payload } = attach({ ...turned, sent: turned.sent + 1 }, now);
  const index = state.sending.next;
  const [key, message] = pqChainStep(state.sending.key, index);
  const header = { epoch: state.epoch - 1, index };
  return { state: { ...state, sending: { key, next: index + 1 } }, header, type, payload, message };
}

/** Before authentication. @param {PqRatchet} s @param {import('./skipped.js').Skipped} skipped */
export function receivePq(s, skipped, header) {
  const { chains, ...step } = stepChain(s.receiving, skipped, header);
  return { state: { ...s, receiving: chains }, ...step };
}

/** Healing on demand. @param {PqRatchet} s @returns {PqRatchet} */
export const healPq = (s) => ({ ...s, healing: true, fresh: false });

/** What goes for age. @param {PqRatchet} s @returns {PqRatchet} */
export const prunePq = (s, now) => ({ ...s, receiving: dropAged(s.receiving, now) });

/** Does the epoch make no progress? The application is told when this becomes true. @param {PqRatchet} s */
export const isStalled = (s) =>
  s.phase.name !== 'propose-idle' && s.sent >= STALLED_SENT && s.received >= STALLED_RECEIVED;
