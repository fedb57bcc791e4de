/** Recovery codes and exports (section 16). */
import { ascii, bytes16, bytes32, concat, decodeAll, equal, flag, Reader, u32, u64, u8 } from './bytes.js';
import { decodeList, verifyList } from './devicelist.js';
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
const keyOf = (secret, purpose) => p.hkdfBytes(new Uint8Array(64), secret, ascii(`E2EE/1 ${purpose}`), 32);
const headerOf = (user, account) => concat(u8(1), ascii8(userId(user)), account);

/** @param {any} i the payload of a vector, its bytes decoded */
export const encodePayload = (i) => concat(
  u8(1), i.seed, bytes16(i.list), u8(i.policy),
  u32(i.contacts.length), ...i.contacts.map((c) => concat(
    ascii8(userId(c.user)), c.account, flag(c.verified), flag(c.forked), bytes16(c.list),
  )),
  u32(i.decisions.length), ...i.decisions.map((d) => concat(
    ascii8(userId(d.user)), u8(d.decision), d.account, u64(d.at),
  )),
  u8(i.sections.length), ...i.sections.map((s) => concat(u8(s.kind), bytes32(s.bytes))),
);

export function sealExport(secret, purpose, user, nonce, i) {
  const payload = encodePayload(i);
  const header = headerOf(user, p.signingKey(i.seed));
  return { payload, export: concat(header, nonce, p.seal(keyOf(secret, purpose), nonce, payload, header)) };
}

function times(count, read) {
  const out = [];
  for (let i = 0; i < count; i++) out.push(read());
  return out;
}

const ascending = (keys, below) => keys.every((key, i) => i === 0 || below(keys[i - 1], key));

function readPayload(bytes) {
  return decodeAll(bytes, (r) => {
    if (r.u8() !== 1) refuse('unsupported_version', 'version of a payload');
    const head = { seed: r.raw(32), list: r.bytes16() };
    decodeList(head.list);
    const policy = r.u8();
    const contacts = times(r.u32(), () => {
      const contact = { user: readUserId(r), account: r.raw(32), verified: r.flag(), forked: r.flag(), list: r.bytes16() };
      decodeList(contact.list);
      return contact;
    });
    const decisions = times(r.u32(), () => ({
      user: readUserId(r), decision: r.u8(), account: r.raw(32), at: r.u64(),
    }));
    const sections = times(r.u8(), () => ({ kind: r.u8(), bytes: r.bytes32(bytes.length) }));
    return { ...head, policy, contacts, decisions, sections };
  });
}

/** A list that the owner of this key signed for this user. */
function checkList(bytes, user, account) {
  const list = decodeList(bytes);
  verifyList(list, user);
  if (!equal(list.account, account)) refuse('invalid_signature', 'a list under another account key');
}

export function openExport(secret, purpose, bytes) {
  const r = new Reader(bytes);
  if (r.u8() !== 1) refuse('unsupported_version', 'version of an export');
  const [user, account, nonce, sealed] = [readUserId(r), r.raw(32), r.raw(12), r.rest()];
  if (sealed.length < 16) malformed('an export without a tag');
  const i = readPayload(p.open(keyOf(secret, purpose), nonce, sealed, headerOf(user, account)));
  const users = i.contacts.map((c) => c.user);
  if (!ascending(users, (a, b) => a < b) || !ascending(i.sections, (a, b) => a.kind < b.kind)) malformed('order');
  if (!equal(p.signingKey(i.seed), account)) refuse('invalid_signature', 'the key of another account');
  checkList(i.list, user, account);
  for (const c of i.contacts) {
    checkList(c.list, c.user, c.account);
    if (c.user === user) refuse('invalid_signature', 'a contact with oneself');
  }
  return { user, ...i };
}
