/** Rules that no example and no vector shows: judging lists and positions, the order of sessions, evicted keys. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { encodeList, judgeList, judgePosition, isStale, listHash, positionOf, signList } from '../src/devicelist.js';
import { dhPair, random, signingKey } from '../src/primitives.js';
import { receive, send, startInitiator, startResponder } from '../src/ratchet.js';
import { inOrder, sendingSession } from '../src/session.js';
import { evict, settle } from '../src/skipped.js';

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
  assert.equal(judge(judge(undefined, third), makeList(1n, new Uint8Array(32), [])).heard, 3n); // lower otherwise
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

test('12.1 the order of sessions', () => {
  const session = (created, n, more) => ({ created, id: Uint8Array.of(n), answered: true, storedAt: 0n, ...more });
  const sessions = [session(1n, 9), session(2n, 1), session(2n, 2), session(3n, 0, { answered: false })];
  assert.deepEqual(inOrder(sessions).map((s) => s.id[0]), [0, 2, 1, 9]);
  assert.equal(sendingSession(sessions, BigInt(30 * DAY)).id[0], 0);
  assert.equal(sendingSession(sessions, BigInt(30 * DAY) + 1n).id[0], 2);
});

test('7.2 and 11 a skipped key is evicted for age, and then for number', () => {
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
  assert.equal(Object.keys(skipped).length, 2);
  assert(receive(got.state, evict(skipped, 7 * DAY, 2001), headers[0]).message);
  for (const aged of [evict(skipped, 7 * DAY + 1, 2), evict(skipped, 0, 2002)]) {
    assert.throws(() => receive(got.state, aged, headers[0]), { code: 'key_evicted', layer: 'limit' });
  }
  const many = Array.from({ length: 2000 }, (_, i) => [`other:${i}`, random(32)]);
  const full = evict(settle(skipped, many, null, 0, 2), 0, 2);
  assert.throws(() => receive(got.state, full, headers[1]), { code: 'key_evicted' });
});
