/** Strict Ed25519 and the labels of what is signed (section 3). */
import { ed25519 } from '@noble/curves/ed25519.js';
import { ascii, bytes16, bytes8, concat, decodeAll, equal, hex, u64 } from './bytes.js';
import { malformed, refuse } from './errors.js';
import { encodeAddress, readAddress } from './identifiers.js';
import { isCanonical, sha512 } from './primitives.js';

const { Point } = ed25519;
const ORDER = Point.Fn.ORDER;
const SMALL_ORDER = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]);

function withoutSign(bytes) {
  const copy = bytes.slice();
  copy[31] &= 0x7f;
  return copy;
}

const little = (bytes) => BigInt(`0x${hex(bytes.slice().reverse())}`);

/** The five conditions of section 3.1. */
export function isValidSignature(key, message, signature) {
  if (key.length !== 32 || signature.length !== 64) return false;
  const r = signature.slice(0, 32);
  const s = little(signature.slice(32));
  if (s >= ORDER || !isCanonical(withoutSign(key))) return false;
  if ([key, r].some((point) => SMALL_ORDER.has(hex(withoutSign(point))))) return false;
  try {
    const k = little(sha512(concat(r, key, message))) % ORDER;
    const point = Point.BASE.multiplyUnsafe(s).subtract(Point.fromBytes(key).multiplyUnsafe(k));
    return equal(point.toBytes(), r);
  } catch {
    return false; // the key is not a point
  }
}

export function verify(key, message, signature) {
  if (!isValidSignature(key, message, signature)) refuse('invalid_signature', 'does not verify');
}

export const signedBytes = (label, fields) => concat(bytes8(ascii(label)), fields);

const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])$/;

/** An origin in its only spelling. */
export function checkOrigin(text) {
  const [, scheme, host, port] = /^(https?):\/\/(\[[^\]]*\]|[^:]*)(?::([1-9][0-9]{0,4}))?$/.exec(text) ?? [];
  if (text.length > 512 || !scheme || !HOST.test(host)) malformed('not an origin');
  if (port && (Number(port) > 65535 || port === { https: '443', http: '80' }[scheme])) malformed('port of an origin');
  return text;
}

/** @param {{origin: string, address: import('./identifiers.js').Address, login: Uint8Array, counter: bigint}} a */
export function loginBytes({ origin, address, login, counter }) {
  const fields = concat(bytes16(ascii(checkOrigin(origin))), encodeAddress(address), login, u64(counter));
  return signedBytes('E2EE/1 login assertion', fields);
}

/** The fields of a login assertion, after its label. */
export const decodeLogin = (bytes) => decodeAll(bytes, (r) => ({
  origin: checkOrigin(Buffer.from(r.bytes16(512)).toString('latin1')),
  address: readAddress(r), login: r.raw(16), counter: r.u64(),
}));

