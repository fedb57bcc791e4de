/** Rules that no example and no vector shows: judging lists and positions, the order of sessions, evicted keys. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { encodeList, judgeList, judgePosition, isStale, listHash, positionOf, signList } from '../src/devicelist.js';
import { dhPair, random, signingKey } from '../src/primitives.js';
import { startPq } from '../src/pqratchet.js';
import { receive, send, startInitiator, startResponder } from '../src/ratchet.js';
import { inOrder, pruneSessions, sendingSession } from '../src/session.js';
import { evictAged, keptKeys, settle } from '../src/skipped.js';

const DAY = 86_400_000;
const seed = random(32);
const entry = (n) => ({ device: new Uint8Array(16).fill(n), signing: random(32), identity: dhPair().public });
const one = entry(1);
const makeList = (seq, previous, devices = [one]) => signList(seed, {
  user: 'u', account: signingKey(seed), seq, previous, created: seq, expires: seq, devices,
});

const first = makeList(1n, new Uint8Array(32));
const second = makeList(2n, listHash(first), [one, entry(2)]);
const third = makeList(3n, listHash(second));
const judge = (contact, list) => judgeList(contact, encodeList(list), 'u');

test('4.2 a chain of lists, and what contradicts it', () => {
  const contact = judge(judge(undefined, first), second);
  assert.equal(judge(contact, first), contact);
  assert.equal(judge(judge(undefined, first), third).heard, 3n); // a gap
  const forks = {
    'lower by one': makeList(1n, new Uint8Array(32), []),
    equal: makeList(2n, listHash(first), []),
    'higher by one': makeList(3n, listHash(first)),
    'other keys for a device id': makeList(9n, listHash(first), [entry(1)]),
  };
  for (const [what, list] of Object.entries(forks)) {
    assert.throws(() => judge(contact, list), { code: 'device_list_fork', forked: 'u' }, what);
  }
  const lower = makeList(1n, new Uint8Array(32), [entry(2)]);
  assert.equal(judge(judge(undefined, third), lower).heard, 3n); // lower otherwise
  const last = makeList(3n, listHash(second), []);
  assert.throws(() => judge(judge(contact, last), makeList(9n, listHash(last))), { code: 'device_list_fork' });
});

test('4.2 positions in messages', () => {
  const contact = judge(undefined, second);
  const { forked, heard } = judgePosition(contact, positionOf(third));
  assert.deepEqual([forked, heard], [false, 3n]);
  assert(isStale(judgePosition(contact, positionOf(third))));
  assert.equal(judgePosition(contact, positionOf(first)).forked, false);
  for (const seq of [1n, 2n]) assert(judgePosition(contact, { seq, hash: random(32) }).forked);
  assert(!isStale(judge(judgePosition(contact, positionOf(third)), third)));
});

const session = (created, n, more) => ({ created, id: Uint8Array.of(n), answered: true, storedAt: 0n, ...more });

test('12.1 the order of sessions', () => {
  const sessions = [session(1n, 9), session(2n, 1), session(2n, 2), session(3n, 0, { answered: false })];
  assert.deepEqual(inOrder(sessions).map((s) => s.id[0]), [0, 2, 1, 9]);
  assert.equal(sendingSession(sessions, BigInt(30 * DAY)).id[0], 0);
  assert.equal(sendingSession(sessions, BigInt(30 * DAY) + 1n).id[0], 2);
});

test('12.1 lower sessions go when the sending one was stored more than 45 days ago', () => {
  const state = { skipped: {}, skippedPq: {}, pq: startPq(random(32), true, 0) };
  const sessions = [session(1n, 1, { ...state, storedAt: BigInt(-DAY) }), session(2n, 2, state)];
  const left = (ms) => pruneSessions(sessions, BigInt(45 * DAY + ms)).map((s) => s.id[0]);
  assert.deepEqual([left(0), left(1)], [[1, 2], [2]]);
});

test('7.2 and 11 a skipped key is evicted for age in the upkeep, and for number when others join', () => {
  const prekey = dhPair();
  const root = random(32);
  let alice = startInitiator(root, prekey.public);
  const headers = Array.from({ length: 3 }, () => {
    const sent = send(alice);
    alice = sent.state;
    return sent.header;
  });
  const got = receive(startResponder(root, prekey), {}, headers[2]);
  const skipped = settle({}, got.add, null, 0, 1);
  const others = (count) => Array.from({ length: count }, (_, i) => [`other:${i}`, random(32)]);
  const opens = (map, n) => receive(got.state, map, headers[n]).message;
  const gone = (map, n) => assert.throws(() => opens(map, n), { code: 'key_evicted', layer: 'limit' });
  assert.equal(keptKeys(skipped).length, 2);
  assert(opens(evictAged(skipped, 7 * DAY), 0));
  gone(evictAged(skipped, 7 * DAY + 1), 0);
  assert(opens(settle(skipped, others(1), null, 30 * DAY, 2001), 0));
  gone(settle(skipped, others(1), null, 0, 2002), 0);
  assert(opens(settle(skipped, [], 'other:0', 0, 2002), 0)); // nothing joins
  const full = settle(skipped, others(1999), null, 0, 2);
  gone(full, 0);
  assert(opens(full, 1));
  assert.equal(keptKeys(full).length, 2000);
});
