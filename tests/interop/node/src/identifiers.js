/** Identifiers and addresses (section 1.4). */
import { ascii, bytes8, concat, hex, unhex } from './bytes.js';
import { malformed } from './errors.js';

/** @typedef {{user: string, device: Uint8Array}} Address */

function printable(text, least, what) {
  if (typeof text !== 'string' || text.length < least || text.length > 128 || !/^[!-~]*$/.test(text)) malformed(what);
  return text;
}

export const userId = (text) => printable(text, 1, 'not a user id');
export const conversationId = (text) => printable(text, 0, 'not a conversation id');

const text = (bytes) => Buffer.from(bytes).toString('latin1');
export const readUserId = (reader) => userId(text(reader.bytes8(128)));
export const readConversationId = (reader) => conversationId(text(reader.bytes8(128)));
export const ascii8 = (value) => bytes8(ascii(value));

/** @param {Address} address */
export const encodeAddress = ({ user, device }) => concat(ascii8(userId(user)), device);
/** @returns {Address} */
export const readAddress = (reader) => ({ user: readUserId(reader), device: reader.raw(16) });

/** @param {Address} address */
export const addressText = ({ user, device }) => `${user}/${hex(device)}`;

/** @param {string} value @returns {Address} */
export function parseAddress(value) {
  const slash = value.lastIndexOf('/');
  if (slash < 0) malformed('an address has a slash');
  return { user: userId(value.slice(0, slash)), device: unhex(value.slice(slash + 1), 16) };
}
