/** The post-quantum ratchet takes its turns (section 7.3): progress under loss, and what is refused. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { concat, hex, u32 } from '../src/bytes.js';
import { closeBelow } from '../src/pqchains.js';
import { ANSWER, makeAnswer, makeOffer, NONE, OFFER, REQUEST } from '../src/pqkeys.js';
import { healPq, isStalled, prunePq, receivePq, sendPq } from '../src/pqratchet.js';
import { accept } from '../src/pqturns.js';
import { mac, random, ratchetKem } from '../src/primitives.js';
import { bothEnds, NOW, randomNumbers, reach, talk } from './support/ends.js';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** All pairs of phases in which the two ends can be. */
const PAIRS = [
  ['propose-idle', 'waiting'], ['offering', 'waiting'], ['offering', 'answering'], ['waiting', 'answering'],
];
const REFUSED = { code: 'authentication_failed', layer: 'authentication' };
const keysOf = ({ state }) => [hex(state.root), hex(state.authentication)];
const agreedOn = (end) => end.state.epoch - (end.phase === 'answering' ? 0 : 1);

/** What is true of two ends whenever no call is under way. */
function checkBoth(a, b) {
  const [behind, ahead] = a.state.epoch <= b.state.epoch ? [a, b] : [b, a];
  const phases = [a.phase, b.phase].join('/');
  const pairs = PAIRS.map((pair) => pair.join('/'));
  assert(pairs.includes(phases) || pairs.includes([b.phase, a.phase].join('/')), phases);
  const hasLeft = behind.phase === 'answering' && ahead.phase === 'waiting';
  assert.equal(ahead.state.epoch - behind.state.epoch, hasLeft ? 1 : 0);
  if (agreedOn(a) === agreedOn(b)) assert.deepEqual(keysOf(a), keysOf(b));
  for (const end of [a, b]) assert.equal(end.state.receiving.at(-1).epoch, agreedOn(end));
}

for (const seed of [1, 2]) {
  test(`epochs complete under loss, repetition and reordering, in both roles (${seed})`, () => {
    const next = randomNumbers(seed);
    const [a, b] = bothEnds();
    const inFlight = [];
    const seen = { a: new Set(), b: new Set() };
    let now = NOW;
    let read = 0;
    for (let i = 0; i < 2000; i++) {
      now += next() < 0.01 ? 2 * HOUR * next() : 1000 * next();
      const [from, to] = next() < (i % 200 < 100 ? 0.8 : 0.3) ? [a, b] : [b, a];
      if (next() < 0.003) from.change(healPq);
      const m = from.write(now);
      if (next() > 0.25) inFlight.push({ to, m, times: next() < 0.2 ? 2 : 1 });
      while (inFlight.length > 30 * next()) {
        const chosen = inFlight.splice(Math.floor(next() * inFlight.length), 1)[0];
        for (let n = 0; n < chosen.times; n++) {
          const again = () => chosen.to.read(chosen.m, now);
          if (n) assert.throws(again, { code: 'duplicate_message' });
          else again();
        }
        read += 1;
        checkBoth(a, b);
      }
      seen.a.add(a.phase);
      seen.b.add(b.phase);
    }
    assert(read > 1250);
    assert(a.state.epoch > 10, `epoch ${a.state.epoch}`);
    for (const phases of Object.values(seen)) assert.equal(phases.size, 4);
    const reached = a.state.epoch;
    talk(a, b, () => a.state.epoch > reached + 2 && b.state.epoch > reached + 2);
    assert.deepEqual(keysOf(a), keysOf(b));
  });
}

test('the chains of an epoch are one for each direction, and change with every epoch', () => {
  const [a, b] = bothEnds();
  const roots = new Set();
  while (roots.size < 5) {
    talk(a, b, () => a.state.epoch === roots.size + 1 && agreedOn(b) === agreedOn(a));
    roots.add(hex(a.state.root));
    assert.deepEqual(keysOf(a), keysOf(b));
  }
});

test('a proposal is due after 50 messages either way, after a day, when asked for, or for healing', () => {
  const offers = (end, now) => end.write(now).type === OFFER;
  const [a, b] = bothEnds();
  for (let i = 0; i < 25; i++) {
    a.read(b.write());
    assert(!offers(a, NOW));
  }
  assert(offers(a, NOW));
  assert(!offers(bothEnds()[0], NOW + DAY - 1));
  assert(offers(bothEnds()[0], NOW + DAY));
  const [c, d] = bothEnds();
  d.change(healPq);
  c.read(d.write());
  assert(c.state.asked && offers(c, NOW));
  assert(c.state.asked && offers(c, NOW));
  const [e] = bothEnds();
  e.change(healPq);
  assert(offers(e, NOW));
  assert(e.state.fresh);
});

test('payloads are attached to the 1st, 8th, 16th, 32nd, 64th, 128th, every 256th message, and after an hour', () => {
  const { proposer, answerer } = reach(['propose-idle', 'waiting']);
  const attached = (end, count) => Array.from({ length: count }, (_, i) => [i + 1, end.write().type])
    .filter(([, type]) => type !== NONE);
  const schedule = [1, 8, 16, 32, 64, 128, 256, 512];
  assert.deepEqual(attached(proposer, 50), []);
  const offer = proposer.write();
  assert.deepEqual(attached(proposer, 512).map(([n]) => n + 1), schedule.slice(1));
  assert.deepEqual(attached(answerer, 60), []);
  answerer.read(offer);
  assert.deepEqual(attached(answerer, 600), schedule.map((n) => [n, ANSWER]));
  for (const end of [proposer, answerer]) {
    assert.equal(end.write(NOW + HOUR - 1).type, NONE);
    assert.notEqual(end.write(NOW + HOUR).type, NONE);
    assert.equal(end.write(NOW + 2 * HOUR - 1).type, NONE);
  }
});

test('a phase begins with nothing sent, received or attached, and nothing asked', () => {
  const worn = { sent: 3, received: 4, attached: NOW - 5, entered: NOW - 6, asked: true, again: true };
  const enters = ({ proposer, answerer }, who, steps) => {
    const end = who === 'proposer' ? proposer : answerer;
    const { phase } = end;
    end.change((s) => ({ ...s, ...worn }));
    steps(proposer, answerer);
    assert.notEqual(end.phase, phase);
    const { sent, received, attached, entered, asked, again } = end.state;
    return { sent, received, attached, entered: entered - NOW, asked, again };
  };
  const anew = { sent: 0, received: 0, attached: 0, entered: 1, asked: false, again: false };
  const later = NOW + 1;
  const told = (from, to) => to.read(from.write(later), later);
  const first = enters(reach(PAIRS[0]), 'proposer', (p) => p.write(later));
  assert.deepEqual(first, { ...anew, sent: 1, attached: later, asked: true });
  const offering = reach(PAIRS[1]);
  offering.proposer.change((s) => ({ ...s, asked: true }));
  assert.deepEqual(enters(offering, 'answerer', (p, a) => told(p, a)), anew);
  assert.deepEqual(enters(reach(PAIRS[2]), 'proposer', (p, a) => told(a, p)), anew);
  assert.deepEqual(enters(reach(PAIRS[3]), 'answerer', (p, a) => told(p, a)), anew);
});

test('an offer that comes again has the answer sent again', () => {
  const { proposer, answerer } = reach(['offering', 'answering']);
  answerer.write();
  assert.equal(answerer.write().type, NONE);
  answerer.read(proposer.write(NOW + 2 * HOUR));
  assert.equal(answerer.write().type, ANSWER);
  assert.equal(answerer.write().type, NONE);
});

/** A message of the one that has every right to send in its epoch, but with another payload. */
const carrying = (from, type, payload = new Uint8Array()) => ({ ...from.write(), type, payload });

function refuses(to, m, what) {
  const before = to.state;
  assert.throws(() => to.read(m), REFUSED, what);
  assert.equal(to.state, before);
}

test('whatever is not of this turn is refused, and changes nothing', () => {
  const offer = ({ state }) => makeOffer(state.authentication, state.epoch, random(64));
  const answer = ({ state }) => makeAnswer(state.authentication, state.epoch, random(1088));
  const outOfTurn = [
    ['propose-idle', 'waiting', 'proposer', [[OFFER, offer], [ANSWER, answer]]],
    ['propose-idle', 'waiting', 'answerer', [[ANSWER, answer], [REQUEST, () => undefined]]],
    ['offering', 'answering', 'proposer', [[OFFER, offer], [ANSWER, answer]]],
    ['offering', 'answering', 'answerer', [[OFFER, offer], [ANSWER, answer], [REQUEST, () => undefined]]],
    // The answerer's next message shows that it is followed; with one of these, it has not been.
    ['waiting', 'answering', 'answerer', [[OFFER, offer], [ANSWER, answer]]],
  ];
  for (const [p, q, who, payloads] of outOfTurn) {
    for (const [type, make] of payloads) {
      const ends = reach([p, q]);
      const [to, from] = who === 'proposer' ? [ends.proposer, ends.answerer] : [ends.answerer, ends.proposer];
      refuses(to, carrying(from, type, make(to)), `${to.phase} of ${p}/${q} takes type ${type}`);
      const wasAnswering = to.phase === 'answering';
      to.read(from.write());
      assert(!wasAnswering || p !== 'waiting' || to.phase === 'propose-idle');
    }
  }
});

test('a payload of an epoch to come is refused', () => {
  const { proposer } = reach(['offering', 'waiting']);
  const late = { epoch: proposer.state.epoch, type: REQUEST, payload: new Uint8Array() };
  assert.throws(() => accept(proposer.state, late, { now: NOW, received: 1 }), REFUSED);
});

const flipped = (bytes, at) => Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte));

test('an offer needs the mac of the epoch before, and an encapsulation key', () => {
  const { proposer, answerer } = reach(['offering', 'waiting']);
  const good = proposer.write(NOW + HOUR);
  assert.equal(good.type, OFFER);
  for (const at of [0, 1183, 1184, 1215]) refuses(answerer, { ...good, payload: flipped(good.payload, at) }, `${at}`);
  const { authentication, epoch } = answerer.state;
  for (const [key, e] of [[random(32), epoch], [authentication, epoch + 1], [authentication, epoch - 1]]) {
    refuses(answerer, { ...good, payload: makeOffer(key, e, random(64)) }, 'key or epoch of the mac');
  }
  // The mac of an answer is none of an offer; and the mac is right, but the coefficients are not below q.
  const outOfRange = new Uint8Array(1184).fill(0xff);
  refuses(answerer, { ...good, payload: makeAnswer(authentication, epoch, good.payload.slice(0, 1184)) }, 'label');
  refuses(answerer, { ...good, payload: withOfferMac(authentication, epoch, outOfRange) }, 'FIPS 203, 7.2');
  answerer.read(good);
  assert.equal(answerer.phase, 'answering');
});

const withOfferMac = (key, epoch, ek) => concat(ek, mac(key, 'E2EE/1 PQ ek', concat(u32(epoch), ek)));

test('an answer needs the mac of the epoch that it makes', () => {
  const { proposer, answerer } = reach(['offering', 'answering']);
  const good = answerer.write();
  assert.equal(good.type, ANSWER);
  for (const at of [0, 1087, 1088, 1119]) refuses(proposer, { ...good, payload: flipped(good.payload, at) }, `${at}`);
  proposer.read(good);
  assert.equal(proposer.phase, 'waiting');
  assert.deepEqual(keysOf(proposer), keysOf(answerer));
});

test('payloads of epochs that are over are ignored, and their messages read', () => {
  const { proposer, answerer } = reach(['offering', 'waiting']);
  answerer.change(healPq);
  const late = [answerer.write(), proposer.write(NOW + HOUR)];
  answerer.read(proposer.write(NOW + 2 * HOUR));
  late.push(answerer.write(), answerer.write());
  assert.deepEqual(late.map((m) => m.type), [REQUEST, OFFER, ANSWER, ANSWER]);
  proposer.read(late[2]);
  answerer.read(proposer.write());
  assert.deepEqual([proposer.phase, answerer.phase], ['waiting', 'propose-idle']);
  for (const [to, m] of [[proposer, late[3]], [proposer, late[0]], [answerer, late[1]]]) {
    const { receiving: before, received, ...rest } = to.state;
    to.read({ ...m, payload: flipped(m.payload, 3) });
    const { receiving, ...after } = to.state;
    assert.deepEqual(after, { ...rest, received: received + 1 });
  }
});

test('an epoch above is unknown, a chain that is gone has its keys evicted, a position below is used up', () => {
  const { proposer, answerer } = reach(['offering', 'answering']);
  const position = (epoch, index) => () => receivePq(proposer.state, proposer.skipped, { epoch, index });
  assert.throws(position(1, 0), { code: 'epoch_unknown' });
  const early = answerer.write();
  proposer.read(answerer.write(NOW + HOUR)); // with the answer, and early is overtaken
  answerer.read(proposer.write());
  proposer.read(answerer.write());
  assert.equal(proposer.state.receiving.length, 2);
  const skipped = { ...proposer.skipped };
  proposer.change(prunePq, NOW + 7 * DAY);
  assert.equal(proposer.state.receiving.length, 2);
  proposer.change(prunePq, NOW + 7 * DAY + 1);
  assert.equal(proposer.state.receiving.length, 1);
  assert.throws(position(0, 1000), { code: 'key_evicted', layer: 'limit' });
  assert.throws(position(1, 0), { code: 'duplicate_message' });
  assert.throws(position(1, 1002), { code: 'too_many_skipped' });
  proposer.skipped = { [`0:${early.index}`]: 'evicted' };
  assert.throws(() => proposer.read(early), { code: 'key_evicted' });
  proposer.skipped = skipped;
  proposer.read(early); // the key outlives the chain
});

test('a closed chain still steps for late messages, and its place in the order of epochs stays', () => {
  const { proposer, answerer } = reach(['offering', 'answering']);
  const [early, late, answer] = [answerer.write(NOW + HOUR), answerer.write(), answerer.write(NOW + 2 * HOUR)];
  const last = answerer.write();
  proposer.read(answer);
  answerer.read(proposer.write());
  proposer.read(answerer.write());
  assert.deepEqual(proposer.state.receiving.map((c) => c.epoch), [0, 1]);
  const before = proposer.received - 1; // the message that closes a chain does not count
  assert.deepEqual(proposer.state.receiving.map((c) => c.closed), [{ at: NOW, received: before }, null]);
  for (const m of [last, early, late]) proposer.read(m);
  assert.throws(() => proposer.read(last), { code: 'duplicate_message' });
});

test('64 closed chains are kept', () => {
  const [a, b] = bothEnds();
  const firstOpen = () => a.state.receiving.find((c) => !c.closed).epoch;
  for (const closed of [1, 64, 65, 66]) {
    talk(a, b, () => {
      for (const end of [a, b]) if (!end.state.healing) end.change(healPq);
      return firstOpen() === closed;
    });
    assert.equal(a.state.receiving[0].epoch, Math.max(0, closed - 64));
  }
});

test('a closed chain is kept for 2,000 messages, and never leaves a gap', () => {
  const chains = (...received) => [...received, null, null].map((n, epoch) =>
    ({ epoch, closed: n === null ? null : { at: NOW, received: n } }));
  const oldest = (of, received) => closeBelow(of, of.length - 1, { at: NOW, received })[0].epoch;
  for (const [received, epoch] of [[2010, 0], [2011, 1], [2012, 2], [9000, 2]]) {
    assert.equal(oldest(chains(10, 11), received), epoch);
  }
  assert.deepEqual(closeBelow(chains(50, 11), 3, { at: NOW, received: 2030 }).map((c) => c.epoch), [0, 1, 2, 3]);
  const untouched = chains(10, 11);
  assert.equal(closeBelow(untouched, 2, { at: NOW, received: 9000 }), untouched);
});

test('healing asked for by both is over after three round trips, whatever was under way', () => {
  for (const pair of PAIRS) {
    const { proposer, answerer } = reach(pair);
    for (const end of [proposer, answerer]) end.change(healPq);
    let ways = 0;
    for (; proposer.state.healing || answerer.state.healing; ways++) {
      const [m, n] = [proposer.write(), answerer.write()];
      answerer.read(m);
      proposer.read(n);
    }
    assert(ways <= 6, `${pair}: ${ways}`);
  }
});

test('healing ends with an epoch that this end gave something to after the call, and with no other', () => {
  for (const pair of PAIRS) {
    for (const who of ['proposer', 'answerer']) {
      const ends = reach(pair);
      const gave = pair[who === 'proposer' ? 0 : 1];
      const wasUnderWay = gave === 'offering' || gave === 'answering';
      const { epoch } = ends[who].state;
      ends[who].change(healPq);
      talk(ends.proposer, ends.answerer, () => !ends[who].state.healing);
      assert.equal(ends[who].state.epoch, epoch + (wasUnderWay ? 2 : 1), `${pair}: ${who}`);
      assert(!ends[who].state.fresh);
    }
  }
});

test('a second call for healing does not trust what was made between the two', () => {
  const { proposer, answerer } = reach(PAIRS[0]);
  proposer.change(healPq);
  proposer.write();
  proposer.change(healPq);
  const { epoch } = proposer.state;
  talk(proposer, answerer, () => !proposer.state.healing);
  assert.equal(proposer.state.epoch, epoch + 2);
});

test('while healing every message has its payload', () => {
  for (const [pair, who, type] of [
    [PAIRS[1], 'proposer', OFFER], [PAIRS[1], 'answerer', REQUEST], [PAIRS[2], 'answerer', ANSWER],
  ]) {
    const end = reach(pair)[who];
    for (let i = 0; i < 2; i++) end.write(NOW + HOUR);
    assert.equal(end.write(NOW + HOUR).type, NONE);
    end.change(healPq);
    const { attached } = end.state;
    for (let i = 0; i < 20; i++) assert.equal(end.write(NOW + 2 * HOUR).type, type);
    assert.equal(end.state.attached, type === REQUEST ? attached : NOW + 2 * HOUR);
  }
});

test('an epoch without progress is seen after 32 sent and 500 received', () => {
  const { proposer, answerer } = reach(['offering', 'waiting']);
  const hear = (count) => { for (let i = 0; i < count; i++) proposer.read(answerer.write()); };
  hear(600);
  while (proposer.state.sent < 31) proposer.write();
  assert(!isStalled(proposer.state));
  proposer.write();
  assert(isStalled(proposer.state));
  const idle = { ...proposer.state, phase: { name: 'propose-idle' } };
  assert(!isStalled(idle) && !isStalled({ ...proposer.state, received: 499 }));
});

test('a seed and an encapsulation can be given, and then decide everything', () => {
  const { proposer, answerer } = reach(['propose-idle', 'waiting']);
  const seed = random(64);
  const sent = [1, 2].map(() => sendPq(healPq(proposer.state), NOW, seed));
  assert.deepEqual(sent[0], sent[1]);
  const kem = ratchetKem.encaps(ratchetKem.publicKey(seed));
  const m = { ...sent[0].header, type: sent[0].type, payload: sent[0].payload };
  const [one, two] = [1, 2].map(() => accept(answerer.state, m, { now: NOW, received: 1, kem }));
  assert.deepEqual(one, two);
  assert.deepEqual(one.phase.payload.slice(0, 1088), kem.ct);
});
