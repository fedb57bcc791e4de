/** The post-quantum ratchet, epoch 0 only (section 7.3). */
import { ascii, concat, u32 } from './bytes.js';
import { refuse } from './errors.js';
import { hkdf, kdf } from './primitives.js';
import { lookUp, skip } from './skipped.js';

/**
 * @typedef {{key: Uint8Array, next: number}} Chain
 * @typedef {{root: Uint8Array, authentication: Uint8Array, sending: Chain, receiving: Chain}} PqRatchet
 *   both chains are those of epoch 0
 */

/** @returns {Uint8Array[]} RK', CK_ir, CK_ri, AK */
export const pqRoot = (root, ss, epoch, bind) =>
  hkdf(root, ss, concat(ascii('E2EE/1 PQ root'), u32(epoch), bind), 128);
/** @returns {[Uint8Array, Uint8Array]} */
export const pqChainStep = (key, n) => kdf(key, 'E2EE/1 PQ chain', u32(n));

/** @returns {PqRatchet} */
export function startPq(secret, isInitiator) {
  const [root, ir, ri, authentication] = pqRoot(new Uint8Array(32), secret, 0, new Uint8Array());
  const [sending, receiving] = (isInitiator ? [ir, ri] : [ri, ir]).map((key) => ({ key, next: 0 }));
  return { root, authentication, sending, receiving };
}

/** @param {PqRatchet} s */
export function sendPq(s) {
  const index = s.sending.next;
  const [key, message] = pqChainStep(s.sending.key, index);
  return { state: { ...s, sending: { key, next: index + 1 } }, header: { epoch: 0, index }, message };
}

const nameOf = (epoch, index) => `${epoch}:${index}`;

/** @param {PqRatchet} s @param {import('./skipped.js').Skipped} skipped */
export function receivePq(s, skipped, { epoch, index }) {
  if (epoch !== 0) refuse('epoch_unknown', `epoch ${epoch}`);
  const chain = s.receiving;
  if (index < chain.next) {
    const used = nameOf(epoch, index);
    return { state: s, message: lookUp(skipped, used), add: [], used };
  }
  const ahead = skip(chain.key, chain.next, index, pqChainStep, (n) => nameOf(epoch, n));
  const [key, message] = pqChainStep(ahead.key, index);
  return { state: { ...s, receiving: { key, next: index + 1 } }, message, add: ahead.passed, used: null };
}
