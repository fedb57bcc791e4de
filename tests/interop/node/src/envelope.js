/** What a server sees of a message (section 10). */
import { bytes32, concat, decodeAll, u32, u8 } from './bytes.js';
import { malformed, refuse } from './errors.js';
import { encodeAddress, readAddress } from './identifiers.js';

/**
 * @typedef {{id: Uint8Array, sender: import('./identifiers.js').Address, recipient: import('./identifiers.js').Address,
 *   lane: number, ttl: number, body: Uint8Array}} Envelope
 */

export const LIMIT = 98_304;
export const MAX_TTL = 2_419_200;

function checkLane(lane) {
  return lane > 3 ? malformed('lane') : lane;
}

function checkTtl(ttl) {
  return ttl < 1 || ttl > MAX_TTL ? malformed('ttl') : ttl;
}

/** @param {Envelope} e */
export function encodeEnvelope(e) {
  const bytes = concat(
    u8(1), e.id, encodeAddress(e.sender), encodeAddress(e.recipient), u8(checkLane(e.lane)), u32(checkTtl(e.ttl)),
    bytes32(e.body),
  );
  return bytes.length > LIMIT ? malformed('envelope is too large') : bytes;
}

/** @returns {Envelope} */
export function decodeEnvelope(bytes) {
  if (bytes.length > LIMIT) malformed('envelope is too large');
  return decodeAll(bytes, (r) => {
    if (r.u8() !== 1) refuse('unsupported_version', 'version');
    return {
      id: r.raw(16), sender: readAddress(r), recipient: readAddress(r), lane: checkLane(r.u8()),
      ttl: checkTtl(r.u32()), body: r.bytes32(LIMIT),
    };
  });
}
