/** Contacts and decisions about them, as exports (section 16.2) and link contents (section 9.10) hold them. */
import { bytes16, concat, decodeAll, equal, flag, u64, u8 } from './bytes.js';
import { decodeList, verifyList } from './devicelist.js';
import { malformed, refuse } from './errors.js';
import { ascii8, readUserId, userId } from './identifiers.js';

const BODY_LIMIT = 61_440;

/**
 * @typedef {{user: string, account: Uint8Array, verified: boolean, forked: boolean, list: Uint8Array}} Contact
 * @typedef {{user: string, decision: number, account: Uint8Array, at: bigint}} Decision
 */

/** @param {Contact} c */
export const encodeContact = (c) => concat(
  ascii8(userId(c.user)), c.account, flag(c.verified), flag(c.forked), bytes16(c.list),
);
/** @param {Decision} d */
export const encodeDecision = (d) => concat(ascii8(userId(d.user)), u8(d.decision), d.account, u64(d.at));

/** @returns {Contact} */
export function readContact(r) {
  const contact = { user: readUserId(r), account: r.raw(32), verified: r.flag(), forked: r.flag(), list: r.bytes16() };
  decodeList(contact.list);
  return contact;
}
/** @returns {Decision} */
export const readDecision = (r) => ({ user: readUserId(r), decision: r.u8(), account: r.raw(32), at: r.u64() });

/** Reads one after another, so that a count that is too high runs out of bytes. */
export function times(count, read) {
  const out = [];
  for (let i = 0; i < count; i++) out.push(read());
  return out;
}

/** @param {Contact[]} contacts */
export function checkAscending(contacts) {
  contacts.forEach((c, i) => i === 0 || contacts[i - 1].user < c.user || malformed('contacts do not ascend'));
}

/** A list that the owner of this key signed for this user. */
export function checkList(bytes, user, account) {
  const list = decodeList(bytes);
  verifyList(list, user);
  if (!equal(list.account, account)) refuse('invalid_signature', 'a list under another account key');
}

/** @param {Contact[]} contacts @param {string} owner */
export function checkContacts(contacts, owner) {
  for (const c of contacts) {
    checkList(c.list, c.user, c.account);
    if (c.user === owner) refuse('invalid_signature', 'a contact with oneself');
  }
}

/** Section 9.10. @returns {?{policy: number, contacts: Contact[], decisions: Decision[]}} null: it means nothing */
export function decodeLinked(bytes) {
  if (bytes.length > BODY_LIMIT) malformed('a link content above its limit');
  return decodeAll(bytes, (r) => {
    if (r.u8() !== 1) {
      r.rest();
      return null;
    }
    const policy = r.u8();
    const contacts = times(r.u16(), () => readContact(r));
    const decisions = times(r.u16(), () => readDecision(r));
    r.end();
    checkAscending(contacts);
    if (decisions.some((d) => contacts.every((c) => c.user !== d.user))) malformed('a decision about nobody told of');
    return { policy, contacts, decisions };
  });
}
