/** Recovery codes and exports (section 16). */
import { ascii, bytes16, bytes32, concat, decodeAll, equal, Reader, u32, u8 } from './bytes.js';
import {
  checkAscending, checkContacts, checkList, encodeContact, encodeDecision, readContact, readDecision, times,
} from './contacts.js';
import { decodeList } from './devicelist.js';
import { malformed, refuse } from './errors.js';
import { ascii8, readUserId, userId } from './identifiers.js';
import * as p from './primitives.js';
import { signedBytes } from './signatures.js';

const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const checkOf = (secret) => p.sha256(signedBytes('E2EE/1 recovery check', secret)).slice(0, 5);

export function writeCode(secret) {
  const bits = [...concat(secret, checkOf(secret))].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const letters = bits.match(/.{5}/g).map((five) => BASE32[parseInt(five, 2)]).join('');
  return letters.match(/.{5}/g).join('-');
}

export function readCode(text) {
  const letters = text.replace(/[\s-]/g, '').toUpperCase();
  if (!/^[A-Z2-7]{40}$/.test(letters)) malformed('not a recovery code');
  const bits = [...letters].map((letter) => BASE32.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const bytes = Uint8Array.from(bits.match(/.{8}/g), (eight) => parseInt(eight, 2));
  const secret = bytes.slice(0, 20);
  return equal(bytes.slice(20), checkOf(secret)) ? secret : malformed('a mistyped recovery code');
}

/** @param {'export' | 'recovery'} purpose */
export const keyOf = (secret, purpose) => p.hkdfBytes(new Uint8Array(64), secret, ascii(`E2EE/1 ${purpose}`), 32);
export const headerOf = (user, account, version = 1) => concat(u8(version), ascii8(userId(user)), account);

/** @param {any} i the payload of a vector, its bytes decoded */
export const encodePayload = (i) => concat(
  u8(1), i.seed, bytes16(i.list), u8(i.policy),
  u32(i.contacts.length), ...i.contacts.map(encodeContact),
  u32(i.decisions.length), ...i.decisions.map(encodeDecision),
  u8(i.sections.length), ...i.sections.map((s) => concat(u8(s.kind), bytes32(s.bytes))),
);

export function sealExport(secret, purpose, user, nonce, i) {
  const payload = encodePayload(i);
  const header = headerOf(user, p.signingKey(i.seed));
  return { payload, export: concat(header, nonce, p.seal(keyOf(secret, purpose), nonce, payload, header)) };
}

function readPayload(bytes) {
  return decodeAll(bytes, (r) => {
    if (r.u8() !== 1) refuse('unsupported_version', 'version of a payload');
    const head = { seed: r.raw(32), list: r.bytes16() };
    decodeList(head.list);
    const policy = r.u8();
    const contacts = times(r.u32(), () => readContact(r));
    const decisions = times(r.u32(), () => readDecision(r));
    const sections = times(r.u8(), () => ({ kind: r.u8(), bytes: r.bytes32(bytes.length) }));
    return { ...head, policy, contacts, decisions, sections };
  });
}

/** Opens the account of an export and checks that it is the one of the header. */
export function openPayload(secret, purpose, { user, account, nonce, sealed, header }) {
  const i = readPayload(p.open(keyOf(secret, purpose), nonce, sealed, header));
  checkAscending(i.contacts);
  i.sections.forEach((s, at) => at === 0 || i.sections[at - 1].kind < s.kind || malformed('sections do not ascend'));
  if (!equal(p.signingKey(i.seed), account)) refuse('invalid_signature', 'the key of another account');
  checkList(i.list, user, account);
  checkContacts(i.contacts, user);
  return i;
}

export function openExport(secret, purpose, bytes) {
  const r = new Reader(bytes);
  if (r.u8() !== 1) refuse('unsupported_version', 'version of an export');
  const [user, account, nonce, sealed] = [readUserId(r), r.raw(32), r.raw(12), r.rest()];
  if (sealed.length < 16) malformed('an export without a tag');
  const header = headerOf(user, account);
  return { user, ...openPayload(secret, purpose, { user, account, nonce, sealed, header }) };
}
