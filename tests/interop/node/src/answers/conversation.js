/** Runs the steps of devices that talk with one another. */
import { unhex } from '../bytes.js';
import * as devices from '../device.js';
import { decodeList, newestList } from '../devicelist.js';
import { addressText } from '../identifiers.js';
import { stringify } from '../json.js';
import { attempt } from '../lines.js';
import { encodeKem, encodeOneTime, encodeSigned } from '../prekeys.js';
import { keptKeys } from '../skipped.js';
import { kemOf, nameAddress, nameKeys, rejected, rejectedOf, seedOf } from './names.js';

const made = new Map();

/** Most tests have the same devices; as a device is a value, they can share them. */
export function deviceOf(i) {
  const name = stringify(i);
  if (!made.has(name)) made.set(name, makeDevice(i));
  return made.get(name);
}

function makeDevice(i) {
  const now = BigInt(i.created_at);
  let device = devices.createDevice(i.user_id, now, {
    account: unhex(i.account_seed), signing: unhex(i.device_signing_seed), identity: unhex(i.identity_private_key),
    device: unhex(i.device_id),
  });
  const add = (kind, id, secret) => {
    device = devices.addPrekey(device, kind, now, { id, private: unhex(secret) }).device;
  };
  for (const key of i.signed_prekeys) add('signed', key.prekey_id, key.private_key);
  for (const key of i.one_time_prekeys) add('one-time', key.prekey_id, key.private_key);
  for (const key of i.kem_prekeys) add(key.kind === 1 ? 'kem one-time' : 'kem last-resort', key.prekey_id, key.seed);
  const encoded = (of, encode) => of.map((key) => encode(devices.publicPrekey(device, key.prekey_id)));
  return { device, output: {
    device_list: device.list, signed_prekeys: encoded(i.signed_prekeys, encodeSigned),
    one_time_prekeys: encoded(i.one_time_prekeys, encodeOneTime),
    kem_prekeys: encoded(i.kem_prekeys, encodeKem),
    rejected_secrets: i.kem_prekeys.map((key) => rejected(unhex(key.seed))),
  } };
}

/** Sessions of all peers, and the keys that they keep. */
const skippedKeys = (device) => Object.values(device.sessions).flat()
  .flatMap((s) => [s.skipped, s.skippedPq]).reduce((n, map) => n + keptKeys(map).length, 0);

/** Runs steps of devices that are their users' only ones. @param {Object<string, devices.Device>} all by user id */
export function conversation(all, steps) {
  const envelopes = {};
  const peerOf = (device, user) => {
    const known = all[user] ? decodeList(all[user].list) : newestList(device.contacts[user]);
    return { user, device: known.devices[0].device };
  };
  const receive = (me, bytes, now, step) => {
    const got = devices.receiveEnvelope(all[me], bytes, now, { kem: kemOf(step) });
    all[me] = got.device;
    const { envelope, session, content: c, fate } = got;
    const isStored = fate === 'delivered' || fate === 'unsupported';
    const message = {
      message_id: c.messageId, kind: c.kind, conversation_id: c.conversation, sent_at: c.sentAt, body: c.body,
    };
    return {
      step: 'receive', outcome: isStored ? 'stored' : 'consumed', envelope_id: envelope.id,
      sender: nameAddress(envelope.sender), lane: envelope.lane, ttl: envelope.ttl,
      associated_data: session.id, root_key: session.ratchet.root,
      chain_key: session.ratchet.receiving.key, pq_root_key: session.pq.root, skipped_keys: skippedKeys(got.device),
      message: isStored ? message : undefined,
    };
  };
  const run = {
    start(step, me, now) {
      const peer = all[step.peer];
      const bundle = devices.bundleOf(peer, {
        signed: step.signed_prekey_id, oneTime: step.one_time_prekey_id, kem: step.kem_prekey_id,
      });
      const { device, session } = devices.start(devices.learnList(all[me], step.peer, peer.list), bundle, now, {
        ephemeral: unhex(step.ephemeral_private_key),
        kem: { ss: unhex(step.kem_shared_secret), ct: unhex(step.kem_ciphertext) },
      });
      all[me] = device;
      const { id, repeat, ratchet, pq } = session;
      return { associated_data: id, handshake_hash: repeat, root_key: ratchet.root, pq_root_key: pq.root };
    },
    send(step, me, now, number) {
      const sent = devices.sendTo(all[me], peerOf(all[me], step.peer), {
        kind: step.kind, body: unhex(step.body), messageId: unhex(step.message_id), conversation: step.conversation_id,
        envelopeId: unhex(step.envelope_id), lane: step.lane, ttl: step.ttl,
      }, now, {
        ratchetKey: step.ratchet_private_key && unhex(step.ratchet_private_key), nonce: unhex(step.nonce),
        seed: seedOf(step),
      });
      all[me] = sent.device;
      envelopes[number] = sent.envelope;
      const { session, trace } = sent;
      return {
        associated_data: session.id, root_key: session.ratchet.root, chain_key: session.ratchet.sending.key,
        ...nameKeys(trace), plaintext: trace.padded, envelope: sent.envelope, rejected_secret: rejectedOf(step),
      };
    },
    receive: (step, me, now) => receive(me, unhex(step.envelope), now, step),
    deliver(step, me, now) {
      const bytes = envelopes[step.envelope_of].slice();
      if (step.complement_byte !== undefined) bytes[step.complement_byte] ^= 0xff;
      const got = attempt(() => receive(me, bytes, now, step));
      return got.ok === false ? { step: 'receive', outcome: 'refused', fails_at: got.layer } : got;
    },
    prune(step, me, now) {
      const peer = peerOf(all[me], step.peer);
      all[me] = devices.prune(all[me], peer, now);
      return { sessions: all[me].sessions[addressText(peer)].length };
    },
  };
  return steps.map((step, n) => ({ step: step.step, ...run[step.step](step, step.device, BigInt(step.time), n) }));
}
