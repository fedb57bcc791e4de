/**
 * Skipped message keys (sections 7.2, 7.3 and 11): a map of values, in the order in which they were added.
 * @typedef {{key: Uint8Array, at: number, received: number}} Kept a key, and when it came in
 * @typedef {Object<string, Kept | 'evicted'>} Skipped
 */
import { refuse } from './errors.js';

export const SKIP_LIMIT = 1000;
export const KEPT = 2000;
export const MARKS = 4000;
export const LIFE = 7 * 86_400_000;
export const LIFE_RECEIVED = 2000;

/**
 * Steps a chain from `from` to `to` and collects what it passes.
 * @param {(key: Uint8Array, n: number) => [Uint8Array, Uint8Array]} step gives the next chain key and a message key
 * @param {(n: number) => string} name
 */
export function skip(key, from, to, step, name) {
  if (to - from > SKIP_LIMIT) refuse('too_many_skipped', `${to - from} keys`);
  const passed = [];
  for (let n = from; n < to; n++) {
    const [next, message] = step(key, n);
    passed.push([name(n), message]);
    key = next;
  }
  return { key, passed };
}

/** @param {Skipped} map @param {string} missing the code if there is neither a key nor a mark */
export function lookUp(map, name, missing = 'duplicate_message') {
  const kept = map[name];
  if (kept === undefined) refuse(missing, 'no key for this position');
  if (kept === 'evicted') refuse('key_evicted', 'the key was dropped');
  return kept.key;
}

/**
 * The map after a message has authenticated. Where keys join, others go for number.
 * @param {Skipped} map @param {[string, Uint8Array][]} add @param {?string} used
 * @param {number} received messages received on the session, with this one
 * @returns {Skipped}
 */
export function settle(map, add, used, now, received) {
  if (used === null && !add.length) return map;
  const next = { ...map };
  if (used !== null) delete next[used];
  for (const [name, key] of add) next[name] = { key, at: now, received };
  return add.length ? evict(next, (kept) => received - kept.received > LIFE_RECEIVED) : next;
}

/** Names of keys, without the marks, in the order in which they came. @param {Skipped} map */
export const keptKeys = (map) => Object.keys(map).filter((name) => map[name] !== 'evicted');

/** What goes for age; it waits until the inbox was drained (section 12.4). @param {Skipped} map @returns {Skipped} */
export const evictAged = (map, now) => evict(map, (kept) => now - kept.at > LIFE);

/** Marks the oldest of too many, and those of which `isOver` is true. @param {(kept: Kept) => boolean} isOver */
function evict(map, isOver) {
  const next = { ...map };
  const keys = keptKeys(map);
  keys.forEach((name, i) => {
    if (i < keys.length - KEPT || isOver(next[name])) next[name] = 'evicted';
  });
  const marks = Object.keys(next).filter((name) => next[name] === 'evicted');
  for (const name of marks.slice(0, Math.max(0, marks.length - MARKS))) delete next[name];
  return next;
}
