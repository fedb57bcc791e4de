/** Linking a device (section 15). */
import { ml_kem768_x25519 as XWing } from '@noble/post-quantum/hybrid.js';
import { ascii, bytes16, concat, decodeAll, equal, hex } from './bytes.js';
import { decodeList, entryOf, verifyList } from './devicelist.js';
import { malformed, refuse } from './errors.js';
import { readUserId } from './identifiers.js';
import * as p from './primitives.js';
import { signedBytes, verify } from './signatures.js';

/**
 * @typedef {{user: string, link: Uint8Array, seed: Uint8Array, device: Uint8Array, signing: Uint8Array,
 *   identity: Uint8Array, nonce: Uint8Array}} NewDevice with its secrets
 */

/** @returns {NewDevice} */
export const newDevice = (i) => ({
  user: i.user_id,
  ...Object.fromEntries(Object.entries({
    link: i.link_id, seed: i.link_seed, device: i.device_id, signing: i.device_signing_seed,
    identity: i.identity_private_key, nonce: i.nonce,
  }).map(([name, text]) => [name, Uint8Array.from(Buffer.from(text, 'hex'))])),
});

const LIMIT = 8192;

/** Every message of a link opens the same way. @template T @param {(r: import('./bytes.js').Reader) => T} read */
function decode(kind, bytes, read) {
  if (bytes.length > LIMIT) malformed('more than 8 KiB');
  return decodeAll(bytes, (r) => {
    if (r.u8() !== 1) refuse('unsupported_version', 'version of a link');
    if (r.u8() !== kind) malformed('another message of a link');
    return { link: r.raw(16), ...read(r) };
  });
}

const opening = (kind, link) => concat(Uint8Array.of(1, kind), link);
const readCommit = (bytes) => decode(1, bytes, (r) => ({ commitment: r.raw(32) }));
const readAnswer = (bytes) => decode(2, bytes, (r) => ({
  user: readUserId(r), account: r.raw(32), device: r.raw(16), signing: r.raw(32), nonce: r.raw(32),
}));
const readReveal = (bytes) => decode(3, bytes, (r) => ({
  key: r.raw(1216), device: r.raw(16), signing: r.raw(32), identity: p.readDhKey(r), nonce: r.raw(32),
}));
const readBundle = (bytes) => decode(4, bytes, (r) => ({ sealed: r.bytes16(), signature: r.raw(64) }));

const commitmentOf = (committed) => p.sha256(signedBytes('E2EE/1 link commit', committed));

/** @param {NewDevice} d */
function messages(d) {
  const keys = [XWing.keygen(d.seed).publicKey, d.device, p.signingKey(d.signing), p.dhPair(d.identity).public];
  const committed = concat(...keys, d.nonce);
  const commitment = commitmentOf(committed);
  return {
    key: keys[0], commitment, commit: concat(opening(1, d.link), commitment), reveal: concat(opening(3, d.link), committed),
  };
}

const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const checkOf = (link) => p.sha256(signedBytes('E2EE/1 link code', link)).slice(0, 4);

function codeOf(link) {
  const bits = [...concat(link, checkOf(link))].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return bits.match(/.{5}/g).map((five) => BASE32[parseInt(five, 2)]).join('');
}

/** @param {NewDevice} d */
export function offer(d) {
  const { key, commitment, commit, reveal } = messages(d);
  const code = codeOf(d.link);
  return { link_key: key, commitment, commit, reveal, code, qr_text: `E2EE1-LINK:${code}` };
}

/** A code as people type it. */
export function parseCode(text) {
  const code = text.replace(/\s/g, '').toUpperCase().replace(/^E2EE1-LINK:/, '').replaceAll('-', '');
  if (!/^[A-Z2-7]{32}$/.test(code)) malformed('not the code of a link');
  const bits = [...code].map((letter) => BASE32.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const bytes = Uint8Array.from(bits.match(/.{8}/g), (eight) => parseInt(eight, 2));
  const link = bytes.slice(0, 16);
  return equal(bytes.slice(16), checkOf(link)) ? link : malformed('a mistyped code');
}

/** L, if the three belong together. */
function transcript(commitBytes, answerBytes, revealBytes) {
  const [commit, answer, reveal] = [readCommit(commitBytes), readAnswer(answerBytes), readReveal(revealBytes)];
  if (!equal(commit.link, answer.link) || !equal(commit.link, reveal.link)) refuse('link_mismatch', 'two links');
  if (!equal(commitmentOf(revealBytes.slice(18)), commit.commitment)) refuse('link_mismatch', 'not committed to');
  return p.sha256(signedBytes('E2EE/1 link transcript', concat(commitBytes, answerBytes, revealBytes)));
}

export const NAMES = [
  'ant apple avocado balloon banana bat bear bee', 'bell book boot bread broom bus cactus cake',
  'camel carrot castle cat cheese cherries chicken corn', 'crab crocodile drum duck elephant fire fish frog',
  'gift giraffe grapes guitar hammer hat hedgehog house', 'key lemon lion lock moon mushroom octopus owl',
  'panda pear penguin pizza rocket rose snail snowman', 'star strawberry sun tractor tree trumpet whale zebra',
].flatMap((line) => line.split(' '));

/** What both devices show. */
export function shown(commit, answer, reveal) {
  const l = transcript(commit, answer, reveal);
  const [first] = p.kdf(l, 'E2EE/1 link signs', new Uint8Array(0));
  const number = BigInt(`0x${hex(first.slice(0, 6))}`) >> 6n;
  const numbers = [0, 1, 2, 3, 4, 5, 6].map((at) => Number((number >> BigInt(6 * (6 - at))) & 63n));
  const digits = String(BigInt(`0x${hex(first.slice(8, 16))}`) % 1_000_000n).padStart(6, '0');
  return { link_transcript: l, numbers, names: numbers.map((each) => NAMES[each]), digits };
}

const bundleBytes = (l, sealed) => signedBytes('E2EE/1 link bundle', concat(l, p.sha256(sealed)));

export function signBundle(seed, link, l, sealed) {
  const bytes = bundleBytes(l, sealed);
  return { signed_bytes: bytes, bundle: concat(opening(4, link), bytes16(sealed), p.sign(seed, bytes)) };
}

// --- HPKE (RFC 9180): KEM 0x647a, HKDF-SHA512, AES-256-GCM, base mode -----------------------------------------

const EMPTY = new Uint8Array(0);
const SUITE = concat(ascii('HPKE'), Uint8Array.of(0x64, 0x7a, 0, 3, 0, 2));
const extract = (salt, label, ikm) => p.extract(concat(ascii('HPKE-v1'), SUITE, ascii(label), ikm), salt);
const expand = (key, label, info, size) => p.expand(
  key, concat(Uint8Array.of(size >> 8, size & 255), ascii('HPKE-v1'), SUITE, ascii(label), info), size,
);

function hpkeOpen(seed, sealed, info) {
  if (sealed.length < 1120 + 16) refuse('authentication_failed', 'too short');
  let shared;
  try {
    shared = XWing.decapsulate(sealed.slice(0, 1120), XWing.keygen(seed).secretKey);
  } catch {
    return refuse('authentication_failed', 'decapsulation');
  }
  const context = concat(Uint8Array.of(0), extract(EMPTY, 'psk_id_hash', EMPTY), extract(EMPTY, 'info_hash', info));
  const secret = extract(shared, 'secret', EMPTY);
  const [key, nonce] = [expand(secret, 'key', context, 32), expand(secret, 'base_nonce', context, 12)];
  return p.open(key, nonce, sealed.slice(1120), EMPTY);
}

const readPayload = (bytes) => decodeAll(bytes, (r) => {
  if (r.u8() !== 1) refuse('unsupported_version', 'version of a payload');
  const head = { user: readUserId(r), seed: r.raw(32), list: r.bytes16() };
  return { ...head, devices: decodeList(head.list) };
});

/** The new device, whose person confirmed. @param {NewDevice} d */
export function openBundle(d, answerBytes, bundleBytesIn) {
  const [answer, bundle] = [readAnswer(answerBytes), readBundle(bundleBytesIn)];
  const { commit, reveal } = messages(d);
  if (answer.user !== d.user) refuse('link_mismatch', 'another user');
  const l = transcript(commit, answerBytes, reveal);
  if (!equal(bundle.link, d.link)) refuse('link_mismatch', 'another link');
  verify(answer.signing, bundleBytes(l, bundle.sealed), bundle.signature);
  const { user, seed, list, devices } = readPayload(hpkeOpen(d.seed, bundle.sealed, concat(ascii('E2EE/1 link'), l)));
  if (user !== d.user || !equal(p.signingKey(seed), answer.account)) refuse('link_mismatch', 'another account');
  verifyList(devices, user);
  if (!equal(devices.account, answer.account)) refuse('invalid_signature', 'a list of another account');
  const entry = entryOf(devices, answer.device);
  if (!entry || !equal(entry.signing, answer.signing)) refuse('link_mismatch', 'who answered is not listed');
  if (entryOf(devices, d.device)) refuse('link_mismatch', 'the new device is listed already');
  return { account_seed: seed, device_list: list };
}
