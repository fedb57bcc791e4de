/** RatchetMessage and PreKeyMessage on the wire (sections 8.1 and 8.2). */
import { bytes16, bytes32, concat, decodeAll, flag, Reader, u32, u64, u8 } from './bytes.js';
import { malformed, refuse } from './errors.js';
import { readDhKey } from './primitives.js';

/**
 * @typedef {{key: Uint8Array, previous: number, index: number, pq: {epoch: number, index: number},
 *   payloadType: number, payload: Uint8Array}} MessageHeader
 * @typedef {MessageHeader & {commitment: Uint8Array, nonce: Uint8Array, ciphertext: Uint8Array,
 *   prefix: Uint8Array}} RatchetMessage
 * @typedef {import('./handshake.js').Handshake & {headerBytes: Uint8Array, inner: RatchetMessage}} PreKeyMessage
 */

const PAYLOAD_SIZES = [0, 1184 + 32, 1088 + 32, 0];
const LAST = 2 ** 32 - 1;
const BODY_LIMIT = 98_304;
export const HANDSHAKE_SIZE = 1719;

/** @param {MessageHeader} h */
export const encodeHeader = (h) => concat(
  Uint8Array.of(1, 2), h.key, u32(h.previous), u32(h.index), u32(h.pq.epoch), u32(h.pq.index),
  u8(h.payloadType), bytes16(h.payload),
);

function version(r, type) {
  if (r.u8() !== 1) refuse('unsupported_version', 'version');
  if (r.u8() !== type) refuse('unsupported_version', 'type');
}

/** The checks in the order of section 8.1: the ratchet key comes last. @returns {RatchetMessage} */
export function decodeRatchetMessage(bytes) {
  if (bytes.length < 53) malformed('a header has 53 bytes');
  const r = new Reader(bytes);
  version(r, 2);
  const keyReader = new Reader(r.raw(32));
  const [previous, index, epoch, pqIndex, payloadType] = [r.u32(), r.u32(), r.u32(), r.u32(), r.u8()];
  if (index === LAST || pqIndex === LAST) malformed('an index that leaves no next one');
  if (payloadType > 3) malformed('payload type');
  const size = r.u16();
  if (size !== PAYLOAD_SIZES[payloadType]) malformed('payload length');
  const payload = r.raw(size);
  const [commitment, nonce] = [r.raw(32), r.raw(12)];
  const prefix = bytes.slice(0, r.at);
  const ciphertext = r.rest();
  if (ciphertext.length < 256 + 16) malformed('ciphertext is too short');
  const key = readDhKey(keyReader);
  const header = { key, previous, index, pq: { epoch, index: pqIndex }, payloadType, payload };
  return { ...header, commitment, nonce, prefix, ciphertext };
}

/** @param {RatchetMessage} m */
export const encodeRatchetMessage = (m) => concat(encodeHeader(m), m.commitment, m.nonce, m.ciphertext);

/** 1,719 bytes. @param {import('./handshake.js').Handshake} h */
export const encodeHandshake = (h) => concat(
  Uint8Array.of(1, 1), h.account, h.signing, h.identity, u64(h.created), h.ephemeral, u32(h.signedId),
  flag(h.oneTimeId !== null), u32(h.oneTimeId ?? 0), u32(h.kemId), h.ct,
);

function readOneTimeId(r) {
  const named = r.flag();
  const id = r.u32();
  if (!named && id !== 0) malformed('id of a one-time prekey that is not named');
  return named ? id : null;
}

/** @returns {import('./handshake.js').Handshake} */
export function readHandshake(r) {
  version(r, 1);
  return {
    account: r.raw(32), signing: r.raw(32), identity: readDhKey(r), created: r.u64(), ephemeral: readDhKey(r),
    signedId: r.u32(), oneTimeId: readOneTimeId(r), kemId: r.u32(), ct: r.raw(1568),
  };
}

/** @returns {PreKeyMessage} */
export const decodePreKeyMessage = (bytes) => decodeAll(bytes, (r) => {
  const handshake = readHandshake(r);
  const inner = decodeRatchetMessage(r.bytes32(BODY_LIMIT));
  return { ...handshake, headerBytes: bytes.slice(0, HANDSHAKE_SIZE), inner };
});

export const encodePreKeyMessage = (headerBytes, inner) => concat(headerBytes, bytes32(inner));

/** A protected body of either kind; only a PreKeyMessage has `inner`. @returns {PreKeyMessage | RatchetMessage} */
export const decodeBody = (bytes) => (bytes[1] === 1 ? decodePreKeyMessage(bytes) : decodeRatchetMessage(bytes));
