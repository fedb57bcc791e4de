/** Refusals (sections 1.2 and 14). */

/** Where a refusal happens, unless the check that makes it says otherwise. */
const LAYERS = {
  malformed_message: 'decode', unsupported_version: 'decode',
  invalid_signature: 'signature', invalid_public_key: 'dh',
  authentication_failed: 'authentication', epoch_unknown: 'authentication',
  duplicate_message: 'replay', replayed_handshake: 'replay', unknown_prekey: 'replay',
  too_many_skipped: 'limit', key_evicted: 'limit', prekey_expired: 'limit',
  unlisted_device: 'trust', wrong_recipient: 'trust', device_list_fork: 'trust', account_key_changed: 'trust',
  session_not_found: 'state', device_list_stale: 'state',
};

/** The bytes, or our own state, do not allow the call. State is as it was before. */
export class Refusal extends Error {
  /** @param {keyof typeof LAYERS} code @param {string} detail @param {string} [layer] */
  constructor(code, detail, layer = LAYERS[code]) {
    super(`${code}: ${detail}`);
    this.code = code;
    this.layer = layer;
  }
}

/** @returns {never} */
export function refuse(code, detail, layer) {
  throw new Refusal(code, detail, layer);
}

/** @returns {never} */
export function malformed(detail) {
  throw new Refusal('malformed_message', detail);
}
