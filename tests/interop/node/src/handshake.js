/** PQXDH in both roles (sections 6 to 6.4). */
import { ascii, concat, hex, u32, u64, u8 } from './bytes.js';
import { refuse } from './errors.js';
import { ascii8, encodeAddress } from './identifiers.js';
import { decaps, dh, dhPair, encaps, hkdf, sha256 } from './primitives.js';

/**
 * @typedef {{address: import('./identifiers.js').Address, account: Uint8Array, signing: Uint8Array,
 *   identity: Uint8Array}} Party
 * @typedef {{account: Uint8Array, signing: Uint8Array, identity: Uint8Array, created: bigint, ephemeral: Uint8Array,
 *   signedId: number, oneTimeId: ?number, kemId: number, ct: Uint8Array}} Handshake the handshake header
 * @typedef {{id: Uint8Array, dr: Uint8Array, pq: Uint8Array, dhs: Uint8Array[], transcript: Uint8Array}} Agreed
 *   T and the two halves of SK; and what they were made of, which no session keeps
 */

/** @param {Party} p */
const encodeParty = (p) => concat(encodeAddress(p.address), p.account, p.signing, p.identity);

/** What T is the hash of; `keys` are the responder's public prekeys. @param {Handshake} h */
export const transcript = (initiator, responder, h, keys) => concat(
  ascii8('E2EE/1'), encodeParty(initiator), encodeParty(responder), u64(h.created), h.ephemeral,
  u32(h.signedId), keys.signed, u8(keys.oneTime ? 1 : 0),
  ...(keys.oneTime ? [u32(h.oneTimeId), keys.oneTime] : []),
  u32(h.kemId), keys.kem, h.ct,
);

/** @param {Uint8Array[]} dhs DH1, DH2, DH3 and perhaps DH4 @returns {Agreed} */
export function agree(dhs, ss, bytes) {
  const id = sha256(bytes);
  const ikm = concat(new Uint8Array(32).fill(0xff), ...dhs, ss);
  const info = concat(ascii('E2EE/1 PQXDH X25519 ML-KEM-1024 SHA-512'), id);
  const [dr, pq] = hkdf(new Uint8Array(64), ikm, info, 64);
  return { id, dr, pq, dhs, transcript: bytes };
}

/**
 * @param {Party & {secret: Uint8Array}} self with the private identity key
 * @param {Party} peer @param {import('./prekeys.js').Bundle} bundle already verified
 * @param {{created: bigint, ephemeral?: Uint8Array, kem?: {ss: Uint8Array, ct: Uint8Array}}} choices
 *   the key pair and the encapsulation are fresh, but for tests
 * @returns {{agreed: Agreed, handshake: Handshake}}
 */
export function initiate(self, peer, bundle, { created, ephemeral, kem: given }) {
  const ek = dhPair(ephemeral);
  const { signed, oneTime, kem } = bundle;
  const dhs = [dh(self.secret, signed.public), dh(ek.private, peer.identity), dh(ek.private, signed.public)];
  if (oneTime) dhs.push(dh(ek.private, oneTime.public));
  const fresh = encaps(kem.public);
  const { ss, ct } = given ?? fresh;
  const { account, signing, identity } = self;
  const handshake = {
    account, signing, identity, created, ephemeral: ek.public,
    signedId: signed.id, oneTimeId: oneTime ? oneTime.id : null, kemId: kem.id, ct,
  };
  const keys = { signed: signed.public, oneTime: oneTime?.public, kem: kem.public };
  return { agreed: agree(dhs, ss, transcript(self, peer, handshake, keys)), handshake };
}

/**
 * @typedef {'signed' | 'one-time' | 'kem one-time' | 'kem last-resort'} Kind
 * @typedef {{kind: Kind, private: Uint8Array, public: Uint8Array}} Held
 */

/** Our private halves, by id. @param {Object<number, Held>} held @param {Handshake} h */
export function findPrekeys(held, h) {
  const find = (id, ...kinds) => {
    const key = held[id];
    return key && kinds.includes(key.kind) ? key : refuse('unknown_prekey', `prekey ${id} is not held`);
  };
  return {
    signed: find(h.signedId, 'signed'),
    kem: find(h.kemId, 'kem one-time', 'kem last-resort'),
    oneTime: h.oneTimeId === null ? null : find(h.oneTimeId, 'one-time'),
  };
}

/** @param {Party & {secret: Uint8Array}} self @param {Party} peer @param {Handshake} h @returns {Agreed} */
export function respond(self, peer, h, { signed, kem, oneTime }) {
  const dhs = [dh(signed.private, h.identity), dh(self.secret, h.ephemeral), dh(signed.private, h.ephemeral)];
  if (oneTime) dhs.push(dh(oneTime.private, h.ephemeral));
  const keys = { signed: signed.public, oneTime: oneTime?.public, kem: kem.public };
  return agree(dhs, decaps(kem.private, h.ct), transcript(peer, self, h, keys));
}

/** H of section 6.4, as text. */
export const repeatKey = (headerBytes) => hex(sha256(headerBytes));
