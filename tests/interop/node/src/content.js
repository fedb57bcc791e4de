/** Content and the bodies of its kinds (section 9). */
import { bytes32, concat, decodeAll, flag, u16, u64, u8 } from './bytes.js';
import { decodeList, encodePosition, readPosition } from './devicelist.js';
import { malformed } from './errors.js';
import { ascii8, conversationId, readConversationId, readUserId } from './identifiers.js';

/**
 * @typedef {{messageId: Uint8Array, kind: number, conversation: string, sentAt: bigint,
 *   senderList: import('./devicelist.js').Position, recipientList: import('./devicelist.js').Position,
 *   list: ?Uint8Array, body: Uint8Array}} Content `list` is a SignedDeviceList
 */

export const APPLICATION = 1;
export const RECEIPT = 2;
export const CALL = 7;
export const EMPTY = 8;
const ANSWERED = 5;
const MISSED = 6;
const CALL_DATA_LIMIT = 3_840;
const LIST_LIMIT = 98_304;
const BODY_LIMIT = 66_560;
const DATA_LIMIT = 65_536;

/** @param {Content} c */
export const encodeContent = (c) => concat(
  c.messageId, u8(c.kind), ascii8(conversationId(c.conversation)), u64(c.sentAt),
  encodePosition(c.senderList), encodePosition(c.recipientList),
  flag(c.list), c.list ? bytes32(c.list) : new Uint8Array(), bytes32(c.body),
);

function readList(r) {
  const bytes = r.bytes32(LIST_LIMIT);
  decodeList(bytes);
  return bytes;
}

/** @returns {Content} */
export const decodeContent = (bytes) => decodeAll(bytes, (r) => ({
  messageId: r.raw(16), kind: r.u8(), conversation: readConversationId(r), sentAt: r.u64(),
  senderList: readPosition(r), recipientList: readPosition(r),
  list: r.flag() ? readList(r) : null, body: r.bytes32(BODY_LIMIT),
}));

/** @returns {{format: number, data: Uint8Array}} */
export const decodeApplication = (bytes) => decodeAll(bytes, (r) => {
  const format = r.u8();
  const data = r.rest();
  if (format > 1 || data.length > DATA_LIMIT) malformed('application data');
  if (format === 1) {
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(data);
    } catch {
      malformed('text is not UTF-8');
    }
  }
  return { format, data };
});
export const encodeApplication = ({ format, data }) => concat(u8(format), data);

function readIds(r) {
  const count = r.u16();
  if (count < 1 || count > 256) malformed('number of ids');
  return Array.from({ length: count }, () => r.raw(16));
}
const encodeIds = (ids) => concat(u16(ids.length), ...ids);

/** @returns {{type: number, ids: Uint8Array[]}} */
export const decodeReceipt = (bytes) => decodeAll(bytes, (r) => {
  const type = r.u8();
  if (type !== 1 && type !== 2) malformed('type of a receipt');
  return { type, ids: readIds(r) };
});
export const encodeReceipt = ({ type, ids }) => concat(u8(type), encodeIds(ids));

export const decodeRetryRequest = (bytes) => decodeAll(bytes, readIds);
export const encodeRetryRequest = encodeIds;

/** @returns {Uint8Array[]} SignedDeviceLists */
export const decodeListUpdate = (bytes) => decodeAll(bytes, (r) => {
  const count = r.u8();
  if (count < 1 || count > 16) malformed('number of lists');
  return Array.from({ length: count }, () => readList(r));
});
export const encodeListUpdate = (lists) => concat(u8(lists.length), ...lists.map(bytes32));

/** Section 9.8. @returns {{call: Uint8Array, action: number, device: ?Uint8Array, data: Uint8Array}} */
export const decodeCall = (bytes) => decodeAll(bytes, (r) => {
  const call = r.raw(16);
  const action = r.u8();
  if (action < 1 || action > MISSED) malformed('action of a call signal');
  const device = action === ANSWERED ? r.raw(16) : null;
  const data = r.rest();
  if (data.length > CALL_DATA_LIMIT) malformed('data of a call signal');
  return { call, action, device, data };
});

/** Section 9.9. @returns {?{type: number, user: string, kind?: number, body?: Uint8Array, ids?: Uint8Array[]}} */
export const decodeSync = (bytes) => decodeAll(bytes, (r) => {
  const type = r.u8();
  if (type === 1) {
    const copy = { type, user: readUserId(r), kind: r.u8(), body: r.rest() };
    if (copy.kind !== APPLICATION) malformed('copy of another kind');
    decodeApplication(copy.body);
    return copy;
  }
  if (type === 2) return { type, user: readUserId(r), ids: readIds(r) };
  r.rest();
  return null;
});

/** Decodes the body where release 0.1 acts on the kind, and says what becomes of the message. @param {Content} c */
export function disposition(c) {
  if (c.kind === APPLICATION) decodeApplication(c.body);
  if (c.kind === RECEIPT) decodeReceipt(c.body);
  if (c.kind === CALL && decodeCall(c.body).action === MISSED) return 'delivered';
  if (c.kind === APPLICATION || c.kind === RECEIPT) return 'delivered';
  return c.kind >= 3 && c.kind <= 9 ? 'accepted' : 'unsupported';
}
