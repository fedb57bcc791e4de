/** Functions of section 1.5, on @noble's audited primitives. */
import { gcm } from '@noble/ciphers/aes.js';
import { ed25519, x25519 } from '@noble/curves/ed25519.js';
import { blake2b } from '@noble/hashes/blake2.js';
import { expand as hkdfExpand, extract as hkdfExtract, hkdf as rfc5869 } from '@noble/hashes/hkdf.js';
import { sha256, sha512 } from '@noble/hashes/sha2.js';
import { ml_kem1024, ml_kem768 } from '@noble/post-quantum/ml-kem.js';
import { randomBytes } from 'node:crypto';
import { ascii, bytes8, concat } from './bytes.js';
import { refuse } from './errors.js';

export { sha256, sha512 };
export const random = (size) => Uint8Array.from(randomBytes(size));

export const hkdfBytes = (salt, ikm, info, length) => rfc5869(sha512, ikm, salt, info, length);

export const extract = (ikm, salt) => hkdfExtract(sha512, ikm, salt);
export const expand = (key, info, length) => hkdfExpand(sha512, key, info, length);

/** HKDF, cut into 32-byte keys. */
export function hkdf(salt, ikm, info, length) {
  const out = hkdfBytes(salt, ikm, info, length);
  return Array.from({ length: length / 32 }, (_, i) => out.slice(32 * i, 32 * i + 32));
}

const keyed = (dkLen) => (key, label, data) => blake2b(concat(bytes8(ascii(label)), data), { dkLen, key });
export const mac = keyed(32);

/** 64 bytes, as two 32-byte keys. @returns {[Uint8Array, Uint8Array]} */
export function kdf(key, label, data) {
  const out = keyed(64)(key, label, data);
  return [out.slice(0, 32), out.slice(32)];
}

/** @typedef {{private: Uint8Array, public: Uint8Array}} Pair */

/** @param {Uint8Array} [secret] @returns {Pair} */
export const dhPair = (secret = random(32)) => ({ private: secret, public: x25519.getPublicKey(secret) });

export function dh(secret, publicKey) {
  try {
    return x25519.getSharedSecret(secret, publicKey); // refuses the points whose result is 32 zero bytes
  } catch {
    return refuse('invalid_public_key', 'X25519 of low order');
  }
}

const P_LE = Uint8Array.from([0xed, ...Array(30).fill(0xff), 0x7f]);

/** Below 2^255 - 19, as a little-endian integer? */
export function isCanonical(bytes) {
  for (let i = 31; i >= 0; i--) if (bytes[i] !== P_LE[i]) return bytes[i] < P_LE[i];
  return false;
}

/** An X25519 public key in any decoded object. */
export function readDhKey(reader) {
  const key = reader.raw(32);
  return isCanonical(key) ? key : refuse('invalid_public_key', 'X25519 key is not canonical', 'decode');
}

export const signingKey = (seed) => ed25519.getPublicKey(seed);
export const sign = (seed, message) => ed25519.sign(message, seed);

const kem = (algorithm) => ({
  /** @param {Uint8Array} seed d || z */
  publicKey: (seed) => algorithm.keygen(seed).publicKey,
  decaps: (seed, ct) => algorithm.decapsulate(ct, algorithm.keygen(seed).secretKey),
  /** @returns {{ss: Uint8Array, ct: Uint8Array}} */
  encaps(publicKey) {
    try {
      const { sharedSecret, cipherText } = algorithm.encapsulate(publicKey);
      return { ss: sharedSecret, ct: cipherText };
    } catch {
      return refuse('invalid_public_key', 'encapsulation key fails the check of FIPS 203');
    }
  },
});

/** Of the handshake. */
export const { publicKey: kemPublic, decaps, encaps } = kem(ml_kem1024);
/** Of the post-quantum ratchet. */
export const ratchetKem = kem(ml_kem768);

export const seal = (key, nonce, plaintext, associated) => gcm(key, nonce, associated).encrypt(plaintext);

export function open(key, nonce, ciphertext, associated) {
  try {
    return gcm(key, nonce, associated).decrypt(ciphertext);
  } catch {
    return refuse('authentication_failed', 'AEAD');
  }
}
