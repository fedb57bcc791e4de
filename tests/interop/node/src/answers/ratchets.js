/** Runs the steps of one ratchet alone. */
import { unhex } from '../bytes.js';
import { NONE } from '../pqkeys.js';
import { healPq, receivePq, sendPq, startPq } from '../pqratchet.js';
import { accept } from '../pqturns.js';
import { dh, dhPair } from '../primitives.js';
import * as ratchet from '../ratchet.js';
import { keptKeys, settle } from '../skipped.js';
import { kemOf, readKey, seedOf } from './names.js';

export function doubleRatchet(i) {
  const root = unhex(i.root_key);
  let state = i.role === 'initiator' ? ratchet.startInitiator(root, readKey(i.their_signed_prekey))
    : ratchet.startResponder(root, dhPair(unhex(i.signed_prekey_private_key)));
  let skipped = {};
  return { steps: i.steps.map((step, n) => {
    const before = state;
    if (step.step === 'send') {
      const sent = ratchet.send(state, step.ratchet_private_key && unhex(step.ratchet_private_key));
      state = sent.state;
      return {
        step: 'send', dh: state.root === before.root ? undefined : dh(state.pair.private, state.theirs),
        ratchet_key: sent.header.key, previous_chain_length: sent.header.previous, index: sent.header.index,
        root_key: state.root, chain_key: state.sending.key, message_key: sent.message,
      };
    }
    const header = { key: readKey(step.ratchet_key), previous: step.previous_chain_length, index: step.index };
    const got = ratchet.receive(state, skipped, header);
    state = got.state;
    skipped = settle(skipped, got.add, got.used, 0, n);
    return {
      step: 'receive', dh: state.root === before.root ? undefined : dh(before.pair.private, header.key),
      root_key: state.root, chain_key: state.receiving.key, message_key: got.message,
      skipped_keys: keptKeys(skipped).length,
    };
  }) };
}

/** Each takes the state, the skipped keys, a step and its number; and gives what changed, and the output. */
const pqSteps = {
  send(state, _, step) {
    const { state: next, header, type, payload, message } = sendPq(state, timeOf(step), seedOf(step));
    const carried = type === NONE ? {} : { payload_type: type, payload };
    return { state: next, output: { ...header, ...carried, chain_key: next.sending.key, message_key: message } };
  },
  receive(state, skipped, step, n) {
    const { epoch } = step;
    const got = receivePq(state, skipped, step);
    const carried = { epoch, type: step.payload_type ?? NONE, payload: unhex(step.payload ?? '') };
    const next = accept(got.state, carried, { now: timeOf(step), received: n + 1, kem: kemOf(step) });
    const kept = settle(skipped, got.add, got.used, timeOf(step), n);
    const chain = got.state.receiving.find((c) => c.epoch === epoch);
    return { state: next, skipped: kept, output: {
      chain_key: chain?.key, message_key: got.message, skipped_keys: keptKeys(kept).length,
    } };
  },
  heal: (state) => ({ state: healPq(state), output: {} }),
};

const timeOf = (step) => step.time ?? 0;

export function pqRatchet(i) {
  let state = startPq(unhex(i.sk_pq), i.role === 'initiator', i.time ?? 0);
  const start = {
    root_key: state.root, sending_chain_key: state.sending.key, receiving_chain_key: state.receiving[0].key,
    authentication_key: state.authentication,
  };
  let skipped = {};
  const steps = i.steps.map((step, n) => {
    const done = pqSteps[step.step](state, skipped, step, n);
    state = done.state;
    skipped = done.skipped ?? skipped;
    return { step: step.step, ...done.output };
  });
  return { ...start, steps };
}
