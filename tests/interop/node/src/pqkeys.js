/** Keys and payloads of the post-quantum ratchet (sections 7.1 and 7.3). */
import { ascii, concat, equalSecret, u32 } from './bytes.js';
import { refuse } from './errors.js';
import { hkdf, kdf, mac, ratchetKem, sha256 } from './primitives.js';

/** The types of payloads. */
export const NONE = 0;
export const OFFER = 1;
export const ANSWER = 2;
export const REQUEST = 3;

/**
 * @typedef {{root: Uint8Array, authentication: Uint8Array, sending: Uint8Array, receiving: Uint8Array}} EpochKeys
 * @typedef {{ss: Uint8Array, ct: Uint8Array}} Encapsulation
 */

const EK = 1184;
const CT = 1088;

/** @returns {Uint8Array[]} RK', CK_ir, CK_ri, AK */
export const pqRoot = (root, ss, epoch, bind) =>
  hkdf(root, ss, concat(ascii('E2EE/1 PQ root'), u32(epoch), bind), 128);
/** @returns {[Uint8Array, Uint8Array]} */
export const pqChainStep = (key, n) => kdf(key, 'E2EE/1 PQ chain', u32(n));

/** @returns {EpochKeys} the chains by our direction */
export function epochKeys(root, ss, epoch, bind, isInitiator) {
  const [next, ir, ri, authentication] = pqRoot(root, ss, epoch, bind);
  const [sending, receiving] = isInitiator ? [ir, ri] : [ri, ir];
  return { root: next, authentication, sending, receiving };
}

/** bind_e. */
export const bindOf = (ek, ct) => concat(sha256(ek), sha256(ct));

const tagged = (label, key, epoch, object) => concat(object, mac(key, label, concat(u32(epoch), object)));
const tagOffer = (key, epoch, ek) => tagged('E2EE/1 PQ ek', key, epoch, ek);
const tagAnswer = (key, epoch, ct) => tagged('E2EE/1 PQ ct', key, epoch, ct);

/** @returns {never} */
export const refusePayload = (detail) => refuse('authentication_failed', detail);

/** Payload of type 1. @param {Uint8Array} key AK of the epoch before @param {Uint8Array} seed of ek */
export const makeOffer = (key, epoch, seed) => tagOffer(key, epoch, ratchetKem.publicKey(seed));

/** The encapsulation key of a payload of type 1. */
export function openOffer(key, epoch, payload) {
  const ek = payload.slice(0, EK);
  return equalSecret(tagOffer(key, epoch, ek), payload) ? ek : refusePayload('mac of an encapsulation key');
}

/** Payload of type 2. @param {Uint8Array} key AK of the same epoch */
export const makeAnswer = tagAnswer;

/** Its ciphertext, from which follows the key that its mac is to be checked with. */
export const ciphertextOf = (payload) => payload.slice(0, CT);

export function checkAnswer(key, epoch, payload) {
  if (!equalSecret(tagAnswer(key, epoch, ciphertextOf(payload)), payload)) refusePayload('mac of a ciphertext');
}

/**
 * Checks `ek` in any case. @param {Uint8Array} ek @param {Encapsulation} [recorded] for tests
 * @returns {Encapsulation}
 */
export function encapsulate(ek, recorded) {
  try {
    const fresh = ratchetKem.encaps(ek);
    return recorded ?? fresh;
  } catch {
    return refusePayload('no encapsulation key');
  }
}
