/** Exports with a history (section 16.3). */
import { bytes32, concat, decodeAll, Reader, u32, u64, u8 } from './bytes.js';
import { APPLICATION, decodeApplication } from './content.js';
import { malformed, refuse } from './errors.js';
import { ascii8, conversationId, readConversationId, readUserId, userId } from './identifiers.js';
import * as p from './primitives.js';
import { encodePayload, headerOf, keyOf, openExport, openPayload } from './recovery.js';

const VERSION = 2;
const ACCOUNT_LIMIT = 64 * 1024 * 1024;
const CHUNK_LIMIT = 128 * 1024 + 16;
const BODY_LIMIT = 66_560;
const CALL = 7;

/** @param {any} m a message of a vector, its bytes decoded */
const encodeMessage = (m) => concat(
  m.message, ascii8(userId(m.author)), m.device, ascii8(userId(m.peer)), ascii8(conversationId(m.conversation)),
  u8(m.kind), u64(m.sent), u64(m.written), u64(m.received), u8(m.state), u64(m.position), bytes32(m.body),
);

function readMessage(r, owner) {
  const m = {
    message: r.raw(16), author: readUserId(r), device: r.raw(16), peer: readUserId(r),
    conversation: readConversationId(r), kind: r.u8(), sent: r.u64(), written: r.u64(), received: r.u64(),
    state: r.u8(), position: r.u64(), body: r.bytes32(BODY_LIMIT),
  };
  if (m.author !== owner && m.author !== m.peer) malformed('a message of a stranger');
  if (m.state > 2 || m.position >> 62n) malformed('state or position');
  if (m.kind >= 1 && m.kind <= 9 && m.kind !== APPLICATION && m.kind !== CALL) malformed('a kind that no history holds');
  if (m.kind === APPLICATION) decodeApplication(m.body);
  return m;
}

function sectionOf(payload) {
  const section = payload.sections.find((each) => each.kind === 1) ?? malformed('no section of the history');
  const { key, retention } = decodeAll(section.bytes, (r) => ({ key: r.raw(32), retention: r.u64() }));
  return retention === 0n ? malformed('a history that is kept for no time') : { key, retention };
}

const nonceOf = (number, isLast) => concat(u64(number), u32(isLast ? 1 : 0));

export function sealHistory(secret, user, nonce, payload, chunks) {
  const { key } = sectionOf(payload);
  const header = headerOf(user, p.signingKey(payload.seed), VERSION);
  const plain = encodePayload(payload);
  const sealed = chunks.map((messages, i) => bytes32(
    p.seal(key, nonceOf(i, i === chunks.length - 1), concat(...messages.map(encodeMessage)), header),
  ));
  const account = bytes32(p.seal(keyOf(secret, 'export'), nonce, plain, header));
  return { payload: plain, export: concat(header, nonce, account, ...sealed) };
}

export function openHistory(secret, bytes) {
  if (bytes[0] === 1) return { ...openExport(secret, 'export', bytes), retention: 0n, messages: [] };
  const r = new Reader(bytes);
  if (r.u8() !== VERSION) refuse('unsupported_version', 'version of an export');
  const [user, account, nonce] = [readUserId(r), r.raw(32), r.raw(12)];
  const header = headerOf(user, account, VERSION);
  const sized = (limit) => {
    const sealed = r.bytes32(limit);
    return sealed.length < 16 ? malformed('a part without a tag') : sealed;
  };
  const payload = openPayload(secret, 'export', { user, account, nonce, sealed: sized(ACCOUNT_LIMIT), header });
  const { key, retention } = sectionOf(payload);
  const messages = [];
  for (let number = 0, isLast = false; !isLast; number++) {
    const sealed = sized(CHUNK_LIMIT);
    isLast = r.at === r.bytes.length;
    const chunk = new Reader(p.open(key, nonceOf(number, isLast), sealed, header));
    while (chunk.at < chunk.bytes.length) messages.push(readMessage(chunk, user));
  }
  return { user, ...payload, retention, messages };
}
