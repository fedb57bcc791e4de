/** Device lists: bytes, verification, judgement (sections 4.1 and 4.2). */
import { compare, concat, decodeAll, equal, Reader, u64, u8 } from './bytes.js';
import { malformed, Refusal, refuse } from './errors.js';
import { ascii8, readUserId, userId } from './identifiers.js';
import { readDhKey, sha256, sign } from './primitives.js';
import { signedBytes, verify } from './signatures.js';

/**
 * @typedef {{device: Uint8Array, signing: Uint8Array, identity: Uint8Array}} Entry
 * @typedef {{user: string, account: Uint8Array, seq: bigint, previous: Uint8Array, created: bigint,
 *   expires: bigint, devices: Entry[], signature: Uint8Array}} DeviceList
 * @typedef {{seq: bigint, hash: Uint8Array}} Position
 * @typedef {{pinned: Uint8Array, newest: Uint8Array, heard: bigint, forked: boolean}} Contact
 *   `newest` is a SignedDeviceList, `heard` the highest seq heard of
 */

const LABEL = 'E2EE/1 device list';
const ZERO = new Uint8Array(32);
export const LIFETIME = 30n * 86_400_000n;

/** @param {DeviceList} list without its signature */
const unsigned = (list) => concat(
  ascii8(userId(list.user)), list.account, u64(list.seq), list.previous, u64(list.created), u64(list.expires),
  u8(list.devices.length), ...list.devices.flatMap((d) => [d.device, d.signing, d.identity]),
);

/** @param {DeviceList} list */
export const encodeList = (list) => concat(unsigned(list), list.signature);
export const listBytes = (list) => signedBytes(LABEL, unsigned(list));
export const listHash = (list) => sha256(listBytes(list));
/** @returns {Position} */
export const positionOf = (list) => ({ seq: list.seq, hash: listHash(list) });

/** @returns {DeviceList} */
function readList(r) {
  const list = {
    user: readUserId(r), account: r.raw(32), seq: r.u64(), previous: r.raw(32), created: r.u64(), expires: r.u64(),
  };
  const count = r.u8();
  if (count > 10) malformed('more than 10 devices');
  const devices = Array.from({ length: count }, () => ({
    device: r.raw(16), signing: r.raw(32), identity: readDhKey(r),
  }));
  for (let i = 1; i < count; i++) {
    if (compare(devices[i - 1].device, devices[i].device) >= 0) malformed('devices do not ascend');
  }
  if (list.seq === 0n) malformed('a list of seq 0');
  if ((list.seq === 1n) !== equal(list.previous, ZERO)) malformed('previous hash');
  return { ...list, devices };
}

/** @returns {DeviceList} */
export const decodeList = (bytes) => decodeAll(bytes, (r) => ({ ...readList(r), signature: r.raw(64) }));

/** @returns {DeviceList} */
export const signList = (seed, list) => decodeList(encodeList({ ...list, signature: sign(seed, listBytes(list)) }));

/** @param {DeviceList} list @param {string} user */
export function verifyList(list, user) {
  if (list.user !== userId(user)) refuse('invalid_signature', 'the list is for another user');
  verify(list.account, listBytes(list), list.signature);
}

export const newestList = (contact) => decodeList(contact.newest);
export const isStale = (contact) => contact.heard > newestList(contact).seq;
export const entryOf = (list, device) => list.devices.find((d) => equal(d.device, device));

/**
 * Section 4.2, rules 1 to 9. A `device_list_fork` made here has the user in `forked`: the mark is stored nevertheless.
 * @param {Contact | undefined} contact @param {Uint8Array} bytes a SignedDeviceList @returns {Contact}
 */
export function judgeList(contact, bytes, user) {
  const list = decodeList(bytes);
  verifyList(list, user);
  if (!contact) return { pinned: list.account, newest: bytes, heard: list.seq, forked: false };
  if (!equal(list.account, contact.pinned)) refuse('account_key_changed', 'another account key than the pinned one');
  const newest = newestList(contact);
  const next = list.seq === newest.seq + 1n && !equal(list.previous, listHash(newest));
  const [earlier, later] = list.seq < newest.seq ? [list, newest] : [newest, list];
  const closed = earlier.seq < later.seq && earlier.devices.length === 0;
  if (next || closed || contradicts(newest, positionOf(list)) || list.devices.some((d) => hasOtherKeys(newest, d))) {
    throw Object.assign(new Refusal('device_list_fork', 'two lists contradict each other'), { forked: user });
  }
  if (list.seq <= newest.seq) return contact;
  return { ...contact, newest: bytes, heard: list.seq > contact.heard ? list.seq : contact.heard };
}

/** A device id keeps its keys for ever. */
function hasOtherKeys(list, { device, signing, identity }) {
  const entry = entryOf(list, device);
  return entry !== undefined && !(equal(entry.signing, signing) && equal(entry.identity, identity));
}

/** A position at, or just below, that of the newest list known, with another hash. */
function contradicts(newest, { seq, hash }) {
  return (seq === newest.seq && !equal(hash, listHash(newest)))
    || (seq + 1n === newest.seq && !equal(hash, newest.previous));
}

/**
 * The sender's word on its own list, in a Content.
 * @param {Contact} contact @param {Position} position @returns {Contact}
 */
export function judgePosition(contact, position) {
  if (contradicts(newestList(contact), position)) return { ...contact, forked: true };
  return { ...contact, heard: position.seq > contact.heard ? position.seq : contact.heard };
}

/** @param {Position} position */
export const encodePosition = ({ seq, hash }) => concat(u64(seq), hash);
/** @param {Reader} r @returns {Position} */
export const readPosition = (r) => ({ seq: r.u64(), hash: r.raw(32) });
