/** Runs the steps of the post-quantum ratchet alone: of one end, or of both. */
import { hex, unhex } from '../bytes.js';
import { attempt } from '../lines.js';
import { healPq, prunePq, receivePq, sendPq, startPq } from '../pqratchet.js';
import { accept } from '../pqturns.js';
import { keptKeys, settle } from '../skipped.js';
import { kemOf, rejectedOf, seedOf } from './names.js';

/**
 * @typedef {{state: import('../pqratchet.js').PqRatchet, skipped: import('../skipped.js').Skipped,
 *   received: number}} End
 */

/** @returns {End} */
const startEnd = (i, role) =>
  ({ state: startPq(unhex(i.sk_pq), role === 'initiator', i.time), skipped: {}, received: 0 });

const nameState = ({ phase, epoch, healing, receiving, root, authentication }) => ({
  phase: phase.name, e: epoch, healing: Number(healing), closed_chains: receiving.filter((c) => c.closed).length,
  root_key: root, authentication_key: authentication, receiving_chain_key: receiving.at(-1).key,
});

const changed = (end, state) => ({ end: { ...end, state }, output: nameState(state) });

/** Each takes an end and a step, and gives the next end and an output. */
const run = {
  send(end, step) {
    const { state, header, type, payload, message } = sendPq(end.state, step.time, seedOf(step));
    return { end: { ...end, state }, output: {
      ...header, payload_type: type, payload, chain_key: state.sending.key, message_key: message,
      phase: state.phase.name, rejected_secret: rejectedOf(step),
    } };
  },
  receive(end, step) {
    const { state, add, used, message } = receivePq(end.state, end.skipped, step);
    const carried = { epoch: step.epoch, type: step.payload_type, payload: unhex(step.payload) };
    const next = accept(state, carried, { now: step.time, received: end.received, kem: kemOf(step) });
    const received = end.received + 1;
    const skipped = settle(end.skipped, add, used, step.time, received);
    return { end: { state: next, skipped, received }, output: {
      message_key: message, skipped_keys: keptKeys(skipped).length, ...nameState(next),
    } };
  },
  heal: (end) => changed(end, healPq(end.state)),
  forget: (end, step) => changed(end, prunePq(end.state, step.time)),
};

export function pqRatchet(i) {
  let end = startEnd(i, i.role);
  const { root, sending, receiving, authentication } = end.state;
  const start = {
    root_key: root, sending_chain_key: sending.key, receiving_chain_key: receiving[0].key,
    authentication_key: authentication,
  };
  const steps = i.steps.map((step) => {
    const done = run[step.step](end, step);
    end = done.end;
    return { step: step.step, ...done.output };
  });
  return { ...start, steps };
}

export function pqConversation(i) {
  const ends = { initiator: startEnd(i, 'initiator'), responder: startEnd(i, 'responder') };
  const outputs = [];
  const take = (name, step) => {
    const { end, output } = run[name](ends[step.end], step);
    ends[step.end] = end;
    return { step: name, ...output };
  };
  for (const step of i.steps) {
    if (step.step === 'deliver') {
      const { epoch, index, payload_type, payload } = outputs[step.message_of];
      const message = { epoch, index, payload_type, payload: hex(payload) };
      const got = attempt(() => take('receive', { ...step, ...message }));
      outputs.push(got.ok === false ? { step: 'refused', error: got.error } : got);
    } else outputs.push(take(step.step, step));
  }
  return { steps: outputs };
}
