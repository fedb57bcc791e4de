/** Prekeys and bundles (sections 5.1 and 5.2). */
import { bytes8, concat, decodeAll, flag, u32, u64, u8, ascii } from './bytes.js';
import { malformed, refuse } from './errors.js';
import { encodeAddress, readAddress } from './identifiers.js';
import { readDhKey } from './primitives.js';
import { verify } from './signatures.js';

/**
 * @typedef {{id: number, expires: bigint, public: Uint8Array, signature: Uint8Array}} SignedPreKey
 * @typedef {{id: number, public: Uint8Array}} OneTimePreKey
 * @typedef {SignedPreKey & {kind: number}} KemPreKey kind 1 is one-time, 2 last-resort
 * @typedef {{address: import('./identifiers.js').Address, signed: SignedPreKey, oneTime: ?OneTimePreKey,
 *   kem: KemPreKey}} Bundle
 */

const KEM_LABELS = [, 'E2EE/1 one-time KEM prekey', 'E2EE/1 last-resort KEM prekey'];

/** What the signature of a prekey covers; one with a `kind` is a KEM prekey. */
export function prekeyBytes(address, { kind, id, expires, public: key }) {
  const label = kind ? KEM_LABELS[kind] : 'E2EE/1 signed prekey';
  return concat(bytes8(ascii(label)), encodeAddress(address), u32(id), u64(expires), key);
}

export const encodeSigned = (k) => concat(u32(k.id), u64(k.expires), k.public, k.signature);
export const encodeOneTime = (k) => concat(u32(k.id), k.public);
export const encodeKem = (k) => concat(u8(k.kind), encodeSigned(k));

const readSigned = (r) => ({ id: r.u32(), expires: r.u64(), public: readDhKey(r), signature: r.raw(64) });
const readOneTime = (r) => ({ id: r.u32(), public: readDhKey(r) });
function readKem(r) {
  const kind = r.u8();
  if (kind !== 1 && kind !== 2) malformed('kind of a KEM prekey');
  return { kind, id: r.u32(), expires: r.u64(), public: r.raw(1568), signature: r.raw(64) };
}

/** @param {Bundle} b */
export const encodeBundle = (b) => concat(
  encodeAddress(b.address), encodeSigned(b.signed),
  flag(b.oneTime), b.oneTime ? encodeOneTime(b.oneTime) : new Uint8Array(), encodeKem(b.kem),
);

/** @returns {Bundle} */
export const decodeBundle = (bytes) => decodeAll(bytes, (r) => ({
  address: readAddress(r), signed: readSigned(r), oneTime: r.flag() ? readOneTime(r) : null, kem: readKem(r),
}));
export const decodeSigned = (bytes) => decodeAll(bytes, readSigned);
export const decodeOneTime = (bytes) => decodeAll(bytes, readOneTime);
export const decodeKem = (bytes) => decodeAll(bytes, readKem);

/** Section 5.2, steps 4 to 6. @param {Bundle} b @param {Uint8Array} signing the listed device signing key */
export function verifyPrekeys(b, signing, now) {
  verify(signing, prekeyBytes(b.address, b.signed), b.signed.signature);
  verify(signing, prekeyBytes(b.address, b.kem), b.kem.signature);
  if (b.signed.expires <= now || b.kem.expires <= now) refuse('prekey_expired', 'the bundle is too old');
}
