/** The Double Ratchet (section 7.2). A state is a value; each operation gives the next one. */
import { ascii, equal, hex } from './bytes.js';
import { refuse } from './errors.js';
import { dh, dhPair, hkdf, kdf } from './primitives.js';
import { lookUp, skip } from './skipped.js';

/**
 * @typedef {import('./primitives.js').Pair} Pair
 * @typedef {{root: Uint8Array, pair: ?Pair, sending: ?{key: Uint8Array, next: number}, theirs: ?Uint8Array,
 *   receiving: ?{theirs: Uint8Array, key: Uint8Array, next: number}, previous: number, closed: string[]}} Ratchet
 * @typedef {{key: Uint8Array, previous: number, index: number}} Header
 */

const CLOSED = 64;
const EMPTY = new Uint8Array();

/** @returns {[Uint8Array, Uint8Array]} the next root key and a chain key */
export const rootStep = (root, secret) => hkdf(root, secret, ascii('E2EE/1 root'), 64);
/** @returns {[Uint8Array, Uint8Array]} the next chain key and a message key */
export const chainStep = (key) => kdf(key, 'E2EE/1 chain', EMPTY);
export const nameOf = (key, index) => `${hex(key)}:${index}`;

const start = { pair: null, sending: null, theirs: null, receiving: null, previous: 0, closed: [] };
/** @returns {Ratchet} */
export const startInitiator = (root, signedPrekey) => ({ ...start, root, theirs: signedPrekey });
/** @param {Pair} pair the signed prekey @returns {Ratchet} */
export const startResponder = (root, pair) => ({ ...start, root, pair });

/** @param {Ratchet} s @param {Uint8Array} [fresh] private half of the next pair, for tests */
export function send(s, fresh) {
  let { root, pair, sending } = s;
  if (!sending || !pair) {
    if (!s.theirs) refuse('session_not_found', 'a responder cannot send before it has received');
    pair = dhPair(fresh);
    const [next, key] = rootStep(root, dh(pair.private, s.theirs));
    root = next;
    sending = { key, next: 0 };
  }
  const [key, message] = chainStep(sending.key);
  const header = { key: pair.public, previous: s.previous, index: sending.next };
  return { state: { ...s, root, pair, sending: { key, next: sending.next + 1 } }, header, message };
}

/** Section 12.2: may this header be of this session? @param {Ratchet} s @param {Header} h */
export const knows = (s, skipped, h) => (s.receiving && equal(s.receiving.theirs, h.key))
  || s.closed.includes(hex(h.key)) || nameOf(h.key, h.index) in skipped;

/**
 * @param {Ratchet} s @param {import('./skipped.js').Skipped} skipped @param {Header} h
 * @returns {{state: Ratchet, message: Uint8Array, add: [string, Uint8Array][], used: ?string}}
 */
export function receive(s, skipped, h) {
  const current = s.receiving && equal(s.receiving.theirs, h.key);
  if (current ? h.index < s.receiving.next : knows(s, skipped, h)) {
    const used = nameOf(h.key, h.index);
    return { state: s, message: lookUp(skipped, used), add: [], used };
  }
  const { state, add } = current ? { state: s, add: [] } : turn(s, h);
  const ahead = passOver(state.receiving, h.index);
  const [key, message] = chainStep(ahead.key);
  const receiving = { theirs: h.key, key, next: h.index + 1 };
  return { state: { ...state, receiving }, message, add: [...add, ...ahead.passed], used: null };
}

const passOver = (chain, to) => skip(chain.key, chain.next, to, chainStep, (n) => nameOf(chain.theirs, n));

/** A new ratchet key of theirs. @param {Ratchet} s @param {Header} h */
function turn(s, h) {
  if (!s.pair) refuse('authentication_failed', 'no ratchet key of ours that they could have answered');
  const old = s.receiving;
  const add = old ? passOver(old, h.previous).passed : [];
  const [root, key] = rootStep(s.root, dh(s.pair.private, h.key));
  const state = {
    root, pair: null, sending: null, theirs: h.key, receiving: { theirs: h.key, key, next: 0 },
    previous: s.sending ? s.sending.next : 0,
    closed: old ? [...s.closed, hex(old.theirs)].slice(-CLOSED) : s.closed,
  };
  return { state, add };
}
