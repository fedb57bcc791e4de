/** Runs the steps of the Double Ratchet alone. */
import { unhex } from '../bytes.js';
import { dh, dhPair } from '../primitives.js';
import * as ratchet from '../ratchet.js';
import { keptKeys, settle } from '../skipped.js';
import { readKey } from './names.js';

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
