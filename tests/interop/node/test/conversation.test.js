/** Conversations of this implementation with itself: loss, reordering, repetition, and what is refused. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { peer } from '../converse.js';
import { unhex } from '../src/bytes.js';
import {
  addPrekey, claimBundle, createDevice, heal, learnList, receiveEnvelope, sendTo, start,
} from '../src/device.js';
import { decodeEnvelope } from '../src/envelope.js';
import { randomNumbers } from './support/ends.js';

const NOW = 1800000000000;

/** @returns {(op: string, fields?: object) => any} answers, which must be good unless `refused` is asked for */
function driver(user) {
  const ask = peer();
  const call = (op, fields = {}) => {
    const answer = ask({ op, now: NOW, ...fields });
    assert(answer.ok, answer.detail);
    return answer;
  };
  call.refused = (op, fields) => {
    const { ok, error, layer } = ask({ op, now: NOW, ...fields });
    assert(!ok);
    return `${layer} ${error}`;
  };
  Object.assign(call, call('create', { user }));
  return call;
}

function pair({ oneTime = true } = {}) {
  const [a, b] = [driver('alice'), driver('bob')];
  const kinds = ['signed', 'kem last-resort', ...(oneTime ? ['one-time', 'kem one-time'] : [])];
  for (const [me, other] of [[a, b], [b, a]]) {
    me('prekeys', { make: kinds.map((kind) => ({ kind })) });
    me('learn', { user: other === a ? 'alice' : 'bob', device_list: other.device_list });
  }
  return [a, b];
}

const say = (from, to, text, more = {}) => from('encrypt', { to: to.address, text, ...more });

/** Flips one bit in the middle of hex. */
const flipped = (text, at) => text.slice(0, at) + (parseInt(text[at], 16) ^ 1).toString(16) + text.slice(at + 1);

for (const seed of [1, 2]) {
  test(`200 messages with loss and reordering (${seed})`, () => {
    const [a, b] = pair();
    const next = randomNumbers(seed);
    a('start', { bundle: b('bundle').bundle });
    if (seed === 2) b('start', { bundle: a('bundle').bundle }); // both at once
    const inFlight = [];
    const deliver = () => {
      const [{ to, text, envelope }] = inFlight.splice(Math.floor(next() * inFlight.length), 1);
      assert.equal(to('receive', { envelope }).content.text, text);
      assert.equal(to.refused('receive', { envelope }), 'replay duplicate_message');
    };
    for (let i = 0; i < 200; i++) {
      const [from, to] = next() < 0.5 || (seed === 1 && i < 3) ? [a, b] : [b, a];
      const answered = seed === 2 || from === a || b('sessions', { with: a.address }).sessions.length;
      if (answered && next() > 0.1) inFlight.push({ to, text: `${i}`, ...say(from, to, `${i}`) });
      while (inFlight.length > 12 * next() + 1) deliver();
    }
    while (inFlight.length) deliver();
    const sending = [[a, b], [b, a]].map(([me, other]) => {
      const { sessions } = me('sessions', { with: other.address });
      assert.equal(sessions.length, seed);
      return sessions.find((s) => s.sending);
    });
    assert.equal(sending[0].session, sending[1].session);
    for (const { epoch } of sending) assert(epoch > 1, `epoch ${epoch}`);
  });
}

/** The fields of a PreKeyMessage without payload, in bytes, up to the ciphertext (sections 8.1 and 8.2). */
const FIELDS = [
  1, 1, 32, 32, 32, 8, 32, 4, 1, 4, 4, 1568, 4, // the handshake header and a length
  1, 1, 32, 4, 4, 4, 4, 1, 2, 32, 12,
];

test('a forged first message consumes nothing; a repeated one without one-time prekeys is refused', () => {
  const [a, b] = pair({ oneTime: false });
  a('start', { bundle: b('bundle').bundle });
  const { envelope, body } = say(a, b, 'hello');
  const starts = FIELDS.reduce((all, size) => [...all, all.at(-1) + size], [0]);
  for (const at of [...starts, body.length / 2 - 1]) {
    const before = JSON.stringify(b('device'));
    b.refused('receive', { sender: a.address, body: flipped(body, 2 * at + 1) });
    assert.equal(JSON.stringify(b('device')), before);
  }
  b('receive', { envelope });
  for (let i = 0; i < 20; i++) { // 20 newer sessions push the first one out
    a('start', { bundle: b('bundle').bundle });
    b('receive', { envelope: say(a, b, `${i}`).envelope });
  }
  const again = { sender: a.address, body: flipped(body, body.length - 1) };
  assert.equal(b.refused('receive', again), 'replay replayed_handshake');
});

test('refusals by layer', () => {
  const [a, b] = pair();
  const { bundle } = b('bundle');
  assert.equal(a.refused('start', { bundle: `${bundle}00` }), 'decode malformed_message');
  assert.equal(a.refused('start', { bundle: flipped(bundle, bundle.length - 1) }), 'signature invalid_signature');
  assert.equal(a.refused('start', { bundle, now: NOW + 91 * 86_400_000 }), 'limit prekey_expired');
  assert.equal(a.refused('encrypt', { to: b.address, text: '' }), 'authentication session_not_found');
  a('start', { bundle });
  const first = say(a, b, 'first');
  assert.equal(a.refused('receive', { envelope: first.envelope }), 'authentication wrong_recipient');
  b('receive', { envelope: first.envelope });
  b('receive', { envelope: say(a, b, 'second').envelope });
  a('receive', { envelope: say(b, a, 'answer').envelope });
  const { body } = say(a, b, 'third');
  const from = { sender: a.address };
  const forged = { ...from, body: flipped(body, body.length - 1) };
  assert.equal(b.refused('receive', forged), 'authentication authentication_failed');
  assert.equal(b.refused('receive', { ...from, body: flipped(body, 2 * 45 + 1) }), 'authentication epoch_unknown');
  assert.equal(b.refused('receive', { ...from, body: flipped(body, 2 * 39) }), 'limit too_many_skipped');
  assert.equal(b.refused('receive', { ...from, body: `02${body.slice(2)}` }), 'decode unsupported_version');
  assert.equal(b.refused('receive', { ...from, body: body.slice(0, 200) }), 'decode malformed_message');
  assert.equal(b('receive', { ...from, body }).content.text, 'third');
});

const sessionOf = (me, other, now = NOW) => me('sessions', { with: other.address, now }).sessions[0];

test('healing on demand goes through in three round trips, from the first message on', () => {
  const [a, b] = pair();
  a('start', { bundle: b('bundle').bundle });
  const heal = (from, to) => from('heal', { to: to.address });
  for (const [from, to, write] of [[a, b, heal], [b, a, heal], [a, b, say], [b, a, say], [a, b, say], [b, a, say]]) {
    const sent = write(from, to, 'text');
    if (write === heal) assert.equal(decodeEnvelope(unhex(sent.envelope)).lane, 2);
    assert.equal(to('receive', { envelope: sent.envelope }).fate, write === heal ? 'accepted' : 'delivered');
  }
  for (const [me, other] of [[a, b], [b, a]]) {
    assert.equal(sessionOf(me, other).healing, false);
    assert.equal(sessionOf(me, other).epoch, 3);
  }
});

test('who got a payload and sends nothing for five seconds owes an empty message', () => {
  const [a, b] = pair();
  a('start', { bundle: b('bundle').bundle });
  b('receive', { envelope: say(a, b, 'nothing to answer').envelope });
  assert.equal(sessionOf(b, a, NOW + 5000).owes_empty, false);
  b('receive', { envelope: a('heal', { to: b.address }).envelope });
  b('receive', { envelope: say(a, b, 'more', { now: NOW + 4000 }).envelope, now: NOW + 4000 });
  assert.deepEqual([4999, 5000].map((ms) => sessionOf(b, a, NOW + ms).owes_empty), [false, true]);
  say(b, a, 'answer');
  assert.equal(sessionOf(b, a, NOW + 9000).owes_empty, false);
});

test('who asked for healing while answering owes an empty message once that epoch has completed', () => {
  const [a, b] = pair();
  a('start', { bundle: b('bundle').bundle });
  b('receive', { envelope: a('heal', { to: b.address }).envelope });
  a('receive', { envelope: b('heal', { to: a.address }).envelope });
  b('receive', { envelope: say(a, b, 'of the new epoch').envelope });
  const { phase, healing, owes_empty: owes } = sessionOf(b, a, NOW + 5000);
  assert.deepEqual([phase, healing, owes], ['propose-idle', true, true]);
});

/** Alice has sent Bob a first message, and he has read it. */
function afterFirst() {
  const [alice, bob] = ['alice', 'bob'].map((user) => createDevice(user, BigInt(NOW)));
  const ready = addPrekey(addPrekey(bob, 'signed', BigInt(NOW)).device, 'kem last-resort', BigInt(NOW)).device;
  const started = start(learnList(alice, 'bob', bob.list), claimBundle(ready).bundle, BigInt(NOW));
  const sent = sendTo(started.device, bob.party.address, { kind: 8, body: new Uint8Array() }, BigInt(NOW));
  const read = receiveEnvelope(ready, sent.envelope, BigInt(NOW)).device;
  return { from: sent.device, before: started.session, read, to: bob.party.address };
}

/** What is made with another post-quantum state is refused; what is made with the right one is not. */
function refusesPq({ from, read, to }, change) {
  const [[name, [session]]] = Object.entries(from.sessions);
  const changed = { ...from, sessions: { [name]: [{ ...session, pq: change(session.pq) }] } };
  const kept = structuredClone(read);
  const wrong = heal(changed, to, BigInt(NOW)).envelope;
  assert.throws(() => receiveEnvelope(read, wrong, BigInt(NOW)), { code: 'authentication_failed' });
  assert.deepEqual(structuredClone(read), kept);
  const good = heal(from, to, BigInt(NOW)).envelope;
  assert.equal(receiveEnvelope(read, good, BigInt(NOW)).session.pq.phase.name, 'answering');
}

test('a refused payload refuses its message; the session goes on', () => {
  refusesPq(afterFirst(), (pq) => ({ ...pq, authentication: new Uint8Array(32) }));
});

test('a new index beside a post-quantum one that was used is no duplicate, but does not authenticate', () => {
  const state = afterFirst();
  refusesPq(state, () => state.before.pq);
});

test('two lists that contradict each other stop sending', () => {
  const [a, b] = pair();
  const other = driver('bob');
  assert.equal(a.refused('learn', { user: 'bob', device_list: other.device_list }), 'signature account_key_changed');
  const keys = { account: '11'.repeat(32) };
  const lists = [1, 2].map(() => peer()({ op: 'create', user: 'carol', keys, now: NOW }).device_list);
  a('learn', { user: 'carol', device_list: lists[0] });
  assert.equal(a.refused('learn', { user: 'carol', device_list: lists[1] }), 'signature device_list_fork');
  assert.deepEqual(a('device').forked, ['carol']);
  assert.equal(a.refused('encrypt', { to: `carol/${'00'.repeat(16)}`, text: '' }), 'signature device_list_fork');
  assert.equal(a('safety', { user: 'bob' }).number, b('safety', { user: 'alice' }).number);
});
