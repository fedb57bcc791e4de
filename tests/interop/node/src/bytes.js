/** Byte strings, their text forms, and the codec (section 1). u64 values are BigInt, all others Number. */
import { malformed } from './errors.js';

/** @param {...Uint8Array} parts */
export function concat(...parts) {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Byte-wise order, as of memcmp. */
export const compare = (a, b) => Buffer.compare(a, b);
export const equal = (a, b) => compare(a, b) === 0;

/** Takes the same time for all values of one length. */
export function equalSecret(a, b) {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
  return difference === 0;
}

export const ascii = (text) => Uint8Array.from(Buffer.from(text, 'latin1'));
export const hex = (bytes) => Buffer.from(bytes).toString('hex');

/** @param {string} text @param {number} [length] in bytes */
export function unhex(text, length) {
  if (typeof text !== 'string' || text.length % 2 || !/^[0-9a-f]*$/.test(text)) malformed('not lower-case hex');
  if (length !== undefined && text.length !== 2 * length) malformed('hex of another length');
  return Uint8Array.from(Buffer.from(text, 'hex'));
}

export const base64url = (bytes) => Buffer.from(bytes).toString('base64url');

/** Accepts the canonical spelling only. */
export function unbase64url(text) {
  const bytes = Uint8Array.from(Buffer.from(text, 'base64url'));
  return base64url(bytes) === text ? bytes : malformed('not canonical base64url');
}

function integer(size, value) {
  const number = BigInt(value);
  const limit = size === 8 ? 63n : BigInt(8 * size);
  if (number < 0n || number >> limit) malformed('integer out of range');
  return unhex(number.toString(16).padStart(2 * size, '0'));
}

export const u8 = (value) => integer(1, value);
export const u16 = (value) => integer(2, value);
export const u32 = (value) => integer(4, value);
export const u64 = (value) => integer(8, value);
export const flag = (value) => u8(value ? 1 : 0);
export const bytes8 = (bytes) => concat(u8(bytes.length), bytes);
export const bytes16 = (bytes) => concat(u16(bytes.length), bytes);
export const bytes32 = (bytes) => concat(u32(bytes.length), bytes);

/** Takes fields off the front of a byte string. */
export class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  raw(size) {
    if (size > this.bytes.length - this.at) malformed('a field does not fit');
    this.at += size;
    return this.bytes.slice(this.at - size, this.at);
  }

  /** @param {(n: bigint) => any} [as] */
  integer(size, as = Number) {
    return as(BigInt(`0x${hex(this.raw(size))}`));
  }

  u8() { return this.integer(1); }
  u16() { return this.integer(2); }
  u32() { return this.integer(4); }

  u64() {
    const value = this.integer(8, BigInt);
    return value >> 63n ? malformed('integer of 2^63 or more') : value;
  }

  flag() {
    const value = this.u8();
    return value > 1 ? malformed('flag above 1') : value === 1;
  }

  /** A length is compared with its limit before anything is read. */
  limited(size, limit) {
    return size > limit ? malformed('length above its limit') : this.raw(size);
  }

  bytes8(limit = 0xff) { return this.limited(this.u8(), limit); }
  bytes16(limit = 0xffff) { return this.limited(this.u16(), limit); }
  bytes32(limit) { return this.limited(this.u32(), limit); }
  rest() { return this.raw(this.bytes.length - this.at); }

  end() {
    if (this.at !== this.bytes.length) malformed('trailing bytes');
  }
}

/** Reads the whole of `bytes` with `read`. @template T @param {(r: Reader) => T} read @returns {T} */
export function decodeAll(bytes, read) {
  const reader = new Reader(bytes);
  const value = read(reader);
  reader.end();
  return value;
}
