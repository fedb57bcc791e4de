/** The receiving chains of the post-quantum ratchet: one per epoch, without gaps, oldest first (section 7.3). */
import { refuse } from './errors.js';
import { pqChainStep } from './pqkeys.js';
import { LIFE, LIFE_RECEIVED, lookUp, skip } from './skipped.js';

/**
 * @typedef {{at: number, received: number}} Moment our clock, and the messages received on the session before the one
 *   that closes a chain
 * @typedef {{epoch: number, key: Uint8Array, next: number, closed: ?Moment}} ReceivingChain
 */

export const CLOSED = 64;

/** @returns {ReceivingChain} */
export const openChain = (epoch, key) => ({ epoch, key, next: 0, closed: null });

const nameOf = (epoch, index) => `${epoch}:${index}`;

/**
 * What comes before authentication.
 * @param {ReceivingChain[]} chains @param {import('./skipped.js').Skipped} skipped
 * @returns {{chains: ReceivingChain[], message: Uint8Array, add: [string, Uint8Array][], used: ?string}}
 */
export function stepChain(chains, skipped, { epoch, index }) {
  if (epoch > chains.at(-1).epoch) refuse('epoch_unknown', `epoch ${epoch}`);
  const chain = chains.find((c) => c.epoch === epoch);
  if (!chain || index < chain.next) {
    const used = nameOf(epoch, index);
    const message = lookUp(skipped, used, chain ? 'duplicate_message' : 'key_evicted');
    return { chains, message, add: [], used };
  }
  const ahead = skip(chain.key, chain.next, index, pqChainStep, (n) => nameOf(epoch, n));
  const [key, message] = pqChainStep(ahead.key, index);
  const next = chains.map((c) => (c === chain ? { ...c, key, next: index + 1 } : c));
  return { chains: next, message, add: ahead.passed, used: null };
}

/** Only from the oldest on, so that no gap comes about whatever the clock did; an open chain stays. */
const dropUntil = (chains, isKept) => chains.slice(chains.findIndex((c, i) => !c.closed || isKept(c, i)));

/** The peer has left every chain below `epoch`. What goes for number goes now. @param {ReceivingChain[]} chains */
export function closeBelow(chains, epoch, /** @type {Moment} */ now) {
  const isLeft = (c) => !c.closed && c.epoch < epoch;
  if (!chains.some(isLeft)) return chains;
  const next = chains.map((c) => (isLeft(c) ? { ...c, closed: now } : c));
  const excess = next.filter((c) => c.closed).length - CLOSED;
  return dropUntil(next, (c, i) => i >= excess && now.received - c.closed.received <= LIFE_RECEIVED);
}

/** What goes for age, at the upkeep of section 12.4. @param {ReceivingChain[]} chains @param {number} now */
export const dropAged = (chains, now) => dropUntil(chains, (c) => now - c.closed.at <= LIFE);
