/** Refusals (sections 1.2 and 14). */

/** The layer that refuses, as the vectors name it, unless the check that refuses says otherwise. */
const LAYERS = {
  malformed_message: 'decode', unsupported_version: 'decode',
  invalid_signature: 'signature', unlisted_device: 'signature', device_list_fork: 'signature',
  account_key_changed: 'signature', device_list_stale: 'signature',
  invalid_public_key: 'dh', unknown_prekey: 'dh',
  authentication_failed: 'authentication', epoch_unknown: 'authentication', wrong_recipient: 'authentication',
  session_not_found: 'authentication', link_mismatch: 'authentication',
  duplicate_message: 'replay', replayed_handshake: 'replay',
  too_many_skipped: 'limit', key_evicted: 'limit', prekey_expired: 'limit',
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
