/** Two ends of a post-quantum ratchet without the rest of a session: messages are positions, payloads and keys. */
import assert from 'node:assert/strict';
import { hex } from '../../src/bytes.js';
import { receivePq, sendPq, startPq } from '../../src/pqratchet.js';
import { accept } from '../../src/pqturns.js';
import { settle } from '../../src/skipped.js';

export const NOW = 1800000000000;

/** Nothing may write to a state. */
function frozen(value) {
  if (value !== null && typeof value === 'object' && !(value instanceof Uint8Array) && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(frozen);
  }
  return value;
}

export class End {
  constructor(isInitiator, now = NOW) {
    this.state = frozen(startPq(new Uint8Array(32).fill(7), isInitiator, now));
    this.skipped = {};
    this.received = 0;
  }

  /** @returns {{epoch: number, index: number, type: number, payload: Uint8Array, key: string}} */
  write(now = NOW) {
    const { state, header, type, payload, message } = sendPq(this.state, now);
    this.state = frozen(state);
    return { ...header, type, payload, key: hex(message) };
  }

  read(m, now = NOW) {
    const got = receivePq(this.state, this.skipped, m);
    assert.equal(hex(got.message), m.key);
    this.state = frozen(accept(frozen(got.state), m, { now, received: this.received }));
    this.received += 1;
    this.skipped = settle(this.skipped, got.add, got.used, now, this.received);
  }

  change(operation, ...rest) {
    this.state = frozen(operation(this.state, ...rest));
  }

  get phase() {
    return this.state.phase.name;
  }
}

/** @returns {[End, End]} the initiator, who proposes first, and the responder */
export const bothEnds = () => [new End(true), new End(false)];

/** Messages to and fro, none lost, until `isDone`. @returns {number} how many it took */
export function talk(from, to, isDone, limit = 1000, now = NOW) {
  for (let n = 0; n < limit; n++) {
    if (isDone()) return n;
    to.read(from.write(now), now);
    [from, to] = [to, from];
  }
  return assert.fail(`${from.phase} and ${to.phase} after ${limit} messages`);
}

/** The two in one of the pairs of phases that occur, `epoch` being agreed on by the one who is named first. */
export function reach(phases) {
  const [a, b] = bothEnds();
  if (phases[0] === 'propose-idle') return { proposer: a, answerer: b };
  while (a.phase !== 'offering') a.write();
  if (phases[1] === 'waiting') return { proposer: a, answerer: b };
  while (b.phase !== 'answering') b.read({ ...a.write(NOW + 3_600_000) }, NOW);
  if (phases[0] === 'offering') return { proposer: a, answerer: b };
  a.read(b.write());
  return { proposer: a, answerer: b }; // waiting and answering
}

/** Numbers in [0, 1), the same for the same seed. */
export function randomNumbers(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}
