/** Answers test vectors: one function for each type of test group, from its input to its output. */
import { pathToFileURL } from 'node:url';
import {
  decodePreKeyMessage, decodeRatchetMessage, encodeHandshake, encodePreKeyMessage, encodeRatchetMessage, readHandshake,
} from './src/body.js';
import { base64url, concat, decodeAll, hex, unbase64url, unhex } from './src/bytes.js';
import * as contents from './src/content.js';
import * as devices from './src/device.js';
import * as lists from './src/devicelist.js';
import { decodeEnvelope, encodeEnvelope } from './src/envelope.js';
import { initiate, repeatKey, respond } from './src/handshake.js';
import { addressText, conversationId, encodeAddress, parseAddress, readAddress, userId } from './src/identifiers.js';
import { answerLines, attempt } from './src/lines.js';
import { pad, paddedLength, unpad } from './src/padding.js';
import { pqChainStep, receivePq, sendPq, startPq } from './src/pqratchet.js';
import * as prekeys from './src/prekeys.js';
import * as p from './src/primitives.js';
import * as ratchet from './src/ratchet.js';
import { safetyHalf, safetyNumber } from './src/safetynumber.js';
import { openMessage, sealMessage } from './src/session.js';
import { loginBytes, verify } from './src/signatures.js';
import { settle } from './src/skipped.js';

const readKey = (text) => decodeAll(unhex(text), p.readDhKey);

/** Values for JSON: bytes as hex, without what is absent. */
function plain(value) {
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined && v !== null).map(([k, v]) => [k, plain(v)]));
}

// Names of the vectors, where they differ from those of this implementation.
const addressOf = (i) => ({ user: i.user_id, device: unhex(i.device_id, 16) });
const nameAddress = ({ user, device }) => ({ user_id: user, device_id: device });
const partyOf = (i) => ({
  address: addressOf(i), account: unhex(i.account_key), signing: unhex(i.device_signing_key), identity: unhex(i.identity_key),
});
const positionOf = ({ seq, hash }) => ({ seq: BigInt(seq), hash: unhex(hash) });
const nameList = (list) => ({
  user_id: list.user, account_key: list.account, seq: list.seq, previous_hash: list.previous, created_at: list.created,
  expires_at: list.expires, signature: list.signature, hash: lists.listHash(list),
  devices: list.devices.map((d) => ({ device_id: d.device, device_signing_key: d.signing, identity_key: d.identity })),
});
const namePrekey = (key) => key && {
  kind: key.kind, prekey_id: key.id, expires_at: key.expires, public_key: key.public, signature: key.signature,
};
const messageOf = (i) => ({
  key: unhex(i.ratchet_key), previous: i.previous_chain_length, index: i.index, pq: { epoch: i.pq_epoch, index: i.pq_index },
  payloadType: i.pq_payload_type ?? 0, payload: unhex(i.pq_payload ?? ''),
});
const nameMessage = (m) => ({
  ratchet_key: m.key, previous_chain_length: m.previous, index: m.index, pq_epoch: m.pq.epoch, pq_index: m.pq.index,
  pq_payload_type: m.payloadType, pq_payload: m.payload, commitment: m.commitment, nonce: m.nonce, ciphertext: m.ciphertext,
});
const fullMessageOf = (i) => encodeRatchetMessage({
  ...messageOf(i), commitment: unhex(i.commitment), nonce: unhex(i.nonce), ciphertext: unhex(i.ciphertext),
});
const handshakeOf = (i) => ({
  account: unhex(i.account_key), signing: unhex(i.device_signing_key), identity: unhex(i.identity_key),
  created: BigInt(i.created), ephemeral: unhex(i.ephemeral_key), signedId: i.signed_prekey_id,
  oneTimeId: i.one_time_prekey_id ?? null, kemId: i.kem_prekey_id, ct: unhex(i.kem_ciphertext),
});
const nameHandshake = (h) => ({
  account_key: h.account, device_signing_key: h.signing, identity_key: h.identity, created: h.created, ephemeral_key: h.ephemeral,
  signed_prekey_id: h.signedId, one_time_prekey_id: h.oneTimeId, kem_prekey_id: h.kemId, kem_ciphertext: h.ct,
});
const nameContent = (c) => ({
  message_id: c.messageId, kind: c.kind, conversation_id: c.conversation, sent_at: c.sentAt, sender_list: c.senderList,
  recipient_list: c.recipientList, device_list: c.list, body: c.body,
});
const nameAgreed = ({ agreed: { dhs: [dh1, dh2, dh3, dh4], transcript, id, dr, pq }, handshake }) => ({
  dh1, dh2, dh3, dh4, transcript, associated_data: id, sk_dr: dr, sk_pq: pq, handshake_hash: repeatKey(encodeHandshake(handshake)),
});

function verifiedBundle({ device_list: list, bundle: bytes, now }) {
  const bundle = prekeys.decodeBundle(unhex(bytes));
  const party = devices.listedParty(lists.judgeList(undefined, unhex(list), bundle.address.user), bundle.address);
  prekeys.verifyPrekeys(bundle, party.signing, BigInt(now));
  return { bundle, party };
}

const login = (i) => loginBytes({ origin: i.origin, address: addressOf(i), login: unhex(i.login_id), counter: BigInt(i.counter) });

function signPrekey(i) {
  const seed = unhex(i.device_signing_seed);
  const key = { kind: i.kind, id: i.prekey_id, expires: BigInt(i.expires_at), public: unhex(i.public_key) };
  const bytes = prekeys.prekeyBytes(addressOf(i), key);
  const signed = { ...key, signature: p.sign(seed, bytes) };
  const encoded = i.kind ? prekeys.encodeKem(signed) : prekeys.encodeSigned(signed);
  return { device_signing_key: p.signingKey(seed), signed_bytes: bytes, encoded };
}

/** The secret of a ciphertext that nobody made: it shows the half z of the seed. */
const rejected = (seed) => p.decaps(seed, new Uint8Array(1568).fill(0x5a));

const keysOf = (i, index) => ({
  message: ratchet.chainStep(unhex(i.chain_key))[1], pqMessage: pqChainStep(unhex(i.pq_chain_key), index)[1],
});
const nameKeys = ({ message, pqMessage, key, commitment }) =>
  ({ message_key: message, pq_message_key: pqMessage, aes_key: key, commitment });

/** Runs the steps of a Double Ratchet. */
function doubleRatchet(i) {
  const root = unhex(i.root_key);
  let state = i.role === 'initiator' ? ratchet.startInitiator(root, readKey(i.their_signed_prekey))
    : ratchet.startResponder(root, p.dhPair(unhex(i.signed_prekey_private_key)));
  let skipped = {};
  return { steps: i.steps.map((step, n) => {
    const before = state;
    if (step.step === 'send') {
      const sent = ratchet.send(state, step.ratchet_private_key && unhex(step.ratchet_private_key));
      state = sent.state;
      return {
        step: 'send', dh: state.root === before.root ? undefined : p.dh(state.pair.private, state.theirs),
        ratchet_key: sent.header.key, previous_chain_length: sent.header.previous, index: sent.header.index,
        root_key: state.root, chain_key: state.sending.key, message_key: sent.message,
      };
    }
    const header = { key: readKey(step.ratchet_key), previous: step.previous_chain_length, index: step.index };
    const got = ratchet.receive(state, skipped, header);
    state = got.state;
    skipped = settle(skipped, got.add, got.used, 0, n);
    return {
      step: 'receive', dh: state.root === before.root ? undefined : p.dh(before.pair.private, header.key),
      root_key: state.root, chain_key: state.receiving.key, message_key: got.message, skipped_keys: Object.keys(skipped).length,
    };
  }) };
}

function pqRatchet(i) {
  let state = startPq(unhex(i.sk_pq), i.role === 'initiator');
  const start = {
    root_key: state.root, sending_chain_key: state.sending.key, receiving_chain_key: state.receiving.key,
    authentication_key: state.authentication,
  };
  let skipped = {};
  const steps = i.steps.map((step, n) => {
    if (step.step === 'send') {
      const { state: next, header, message } = sendPq(state);
      state = next;
      return { step: 'send', ...header, chain_key: state.sending.key, message_key: message };
    }
    const got = receivePq(state, skipped, step);
    state = got.state;
    skipped = settle(skipped, got.add, got.used, 0, n);
    return { step: 'receive', chain_key: state.receiving.key, message_key: got.message, skipped_keys: Object.keys(skipped).length };
  });
  return { ...start, steps };
}

function deviceOf(i) {
  const now = BigInt(i.created_at);
  const given = { account: i.account_seed, signing: i.device_signing_seed, identity: i.identity_private_key, device: i.device_id };
  let device = devices.createDevice(i.user_id, now, Object.fromEntries(Object.entries(given).map(([k, v]) => [k, unhex(v)])));
  const add = (kind, id, secret) => { device = devices.addPrekey(device, kind, now, { id, private: unhex(secret) }).device; };
  for (const key of i.signed_prekeys) add('signed', key.prekey_id, key.private_key);
  for (const key of i.one_time_prekeys) add('one-time', key.prekey_id, key.private_key);
  for (const key of i.kem_prekeys) add(key.kind === 1 ? 'kem one-time' : 'kem last-resort', key.prekey_id, key.seed);
  const encoded = (of, encode) => of.map((key) => encode(devices.publicPrekey(device, key.prekey_id)));
  return { device, output: {
    device_list: device.list, signed_prekeys: encoded(i.signed_prekeys, prekeys.encodeSigned),
    one_time_prekeys: encoded(i.one_time_prekeys, prekeys.encodeOneTime), kem_prekeys: encoded(i.kem_prekeys, prekeys.encodeKem),
    rejected_secrets: i.kem_prekeys.map((key) => rejected(unhex(key.seed))),
  } };
}

/** Sessions of all peers, and the keys that they keep. */
const skippedKeys = (device) => Object.values(device.sessions).flat()
  .flatMap((s) => [s.skipped, s.skippedPq]).reduce((n, map) => n + Object.keys(map).length, 0);

/** Runs steps of devices that are their users' only ones. @param {Object<string, devices.Device>} all by user id */
function conversation(all, steps, isRefusalAnOutcome) {
  const envelopes = {};
  const peerOf = (device, user) => {
    const known = all[user] ? lists.decodeList(all[user].list) : lists.newestList(device.contacts[user]);
    return { user, device: known.devices[0].device };
  };
  const receive = (me, bytes, now) => {
    const got = devices.receiveEnvelope(all[me], bytes, now);
    all[me] = got.device;
    const { envelope, session, content: c, fate } = got;
    const isStored = fate === 'delivered' || fate === 'unsupported';
    return {
      step: 'receive', outcome: isStored ? 'stored' : 'consumed', envelope_id: envelope.id, sender: nameAddress(envelope.sender),
      lane: envelope.lane, ttl: envelope.ttl, associated_data: session.id, root_key: session.ratchet.root,
      chain_key: session.ratchet.receiving.key, skipped_keys: skippedKeys(got.device),
      message: isStored ? { message_id: c.messageId, kind: c.kind, conversation_id: c.conversation, sent_at: c.sentAt, body: c.body } : null,
    };
  };
  const run = {
    start(step, me, now) {
      const peer = all[step.peer];
      const bundle = devices.bundleOf(peer, { signed: step.signed_prekey_id, oneTime: step.one_time_prekey_id, kem: step.kem_prekey_id });
      const { device, session } = devices.start(devices.learnList(all[me], step.peer, peer.list), bundle, now, {
        ephemeral: unhex(step.ephemeral_private_key), kem: { ss: unhex(step.kem_shared_secret), ct: unhex(step.kem_ciphertext) },
      });
      all[me] = device;
      return { associated_data: session.id, handshake_hash: session.repeat, root_key: session.ratchet.root, pq_root_key: session.pq.root };
    },
    send(step, me, now, number) {
      const sent = devices.sendTo(all[me], peerOf(all[me], step.peer), {
        kind: step.kind, body: unhex(step.body), messageId: unhex(step.message_id), conversation: step.conversation_id,
        envelopeId: unhex(step.envelope_id), lane: step.lane, ttl: step.ttl,
      }, now, { ratchetKey: step.ratchet_private_key && unhex(step.ratchet_private_key), nonce: unhex(step.nonce) });
      all[me] = sent.device;
      envelopes[number] = sent.envelope;
      const { session, trace } = sent;
      return {
        associated_data: session.id, root_key: session.ratchet.root, chain_key: session.ratchet.sending.key, ...nameKeys(trace),
        plaintext: trace.padded, envelope: sent.envelope,
      };
    },
    receive: (step, me, now) => receive(me, unhex(step.envelope), now),
    deliver(step, me, now) {
      const bytes = envelopes[step.envelope_of].slice();
      if (step.complement_byte !== undefined) bytes[step.complement_byte] ^= 0xff;
      const got = attempt(() => receive(me, bytes, now));
      if (got.ok === false && !isRefusalAnOutcome) throw got;
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

const answers = {
  HkdfSha512: (i) => ({ okm: p.hkdfBytes(unhex(i.salt), unhex(i.ikm), unhex(i.info), i.length) }),
  Kdf: (i) => ({ output: concat(...p.kdf(unhex(i.key), i.label, unhex(i.data))) }),
  Mac: (i) => ({ tag: p.mac(unhex(i.key), i.label, unhex(i.data)) }),
  X25519: (i) => ({
    public_key: p.dhPair(unhex(i.private_key)).public, shared_secret: p.dh(unhex(i.private_key), readKey(i.their_public_key)),
  }),
  Ed25519Sign: (i) => ({ public_key: p.signingKey(unhex(i.seed)), signature: p.sign(unhex(i.seed), unhex(i.message)) }),
  Ed25519Verify: (i) => void verify(unhex(i.public_key), unhex(i.message), unhex(i.signature)),
  MlKem1024Decapsulate(i) {
    const seed = unhex(i.seed);
    return { public_key: p.kemPublic(seed), shared_secret: p.decaps(seed, unhex(i.ciphertext, 1568)), rejected_secret: rejected(seed) };
  },

  Base64urlEncode: (i) => ({ text: base64url(unhex(i.bytes)) }),
  Base64urlDecode: (i) => ({ bytes: unbase64url(i.text) }),
  AddressEncode: (i) => ({ encoded: encodeAddress(addressOf(i)), text: addressText(addressOf(i)) }),
  AddressDecode: (i) => nameAddress(decodeAll(unhex(i.encoded), readAddress)),
  AddressParse: (i) => nameAddress(parseAddress(i.text)),
  ConversationId: (i) => ({ conversation_id: conversationId(i.text) }),
  SafetyNumber({ one, other }) {
    const both = [one, other].map((i) => ({ user: userId(i.user_id), account: unhex(i.account_key) }));
    const [a, b] = both.map(({ user, account }) => safetyHalf(user, account));
    return { half_of_one: a, half_of_other: b, number: safetyNumber(...both) };
  },

  DeviceListSign(i) {
    const seed = unhex(i.account_seed);
    const list = lists.signList(seed, {
      user: i.user_id, account: p.signingKey(seed), seq: BigInt(i.seq), previous: unhex(i.previous_hash),
      created: BigInt(i.created_at), expires: BigInt(i.expires_at),
      devices: i.devices.map((d) => ({ device: unhex(d.device_id), signing: unhex(d.device_signing_key), identity: unhex(d.identity_key) })),
    });
    return { account_key: list.account, signed_bytes: lists.listBytes(list), hash: lists.listHash(list), encoded: lists.encodeList(list) };
  },
  DeviceListDecode: (i) => nameList(lists.decodeList(unhex(i.encoded))),
  DeviceListVerify(i) {
    const list = lists.decodeList(unhex(i.encoded));
    lists.verifyList(list, i.user_id);
    return { account_key: list.account, hash: lists.listHash(list) };
  },
  DeviceListChain(i) {
    let contact;
    return { verdicts: i.lists.map((bytes) => {
      const next = lists.judgeList(contact, unhex(bytes), i.user_id);
      const verdict = !contact ? 'first' : next === contact ? 'known' : 'newer';
      contact = next;
      const { seq, hash } = lists.positionOf(lists.newestList(contact));
      return { verdict, newest_seq: seq, newest_hash: hash };
    }) };
  },

  SignedPreKeySign: signPrekey,
  KemPreKeySign: signPrekey,
  BundleDecode(i) {
    const b = prekeys.decodeBundle(unhex(i.encoded));
    return {
      ...nameAddress(b.address), signed_prekey: namePrekey(b.signed), one_time_prekey: namePrekey(b.oneTime), kem_prekey: namePrekey(b.kem),
    };
  },
  BundleVerify(i) {
    const { bundle: { signed, oneTime, kem }, party } = verifiedBundle(i);
    return {
      account_key: party.account, device_signing_key: party.signing, identity_key: party.identity, one_time_prekey: oneTime?.public,
      prekey_ids: [signed, oneTime, kem].filter(Boolean).map((key) => key.id),
    };
  },
  LoginAssertionSign(i) {
    const seed = unhex(i.device_signing_seed);
    return { device_signing_key: p.signingKey(seed), signed_bytes: login(i), signature: p.sign(seed, login(i)) };
  },
  LoginAssertionVerify: (i) => void verify(unhex(i.device_signing_key), login(i), unhex(i.signature)),

  PqxdhInitiate(i) {
    const { bundle, party } = verifiedBundle(i);
    const made = initiate({ ...partyOf(i.initiator), secret: unhex(i.identity_private_key) }, party, bundle, {
      created: BigInt(i.created), ephemeral: unhex(i.ephemeral_private_key),
      kem: { ss: unhex(i.kem_shared_secret), ct: unhex(i.kem_ciphertext) },
    });
    return { ...nameAgreed(made), handshake_header: encodeHandshake(made.handshake) };
  },
  PqxdhRespond(i) {
    const handshake = decodeAll(unhex(i.handshake_header), readHandshake);
    const held = {
      signed: p.dhPair(unhex(i.signed_prekey_private_key)),
      oneTime: i.one_time_prekey_private_key && p.dhPair(unhex(i.one_time_prekey_private_key)),
      kem: { private: unhex(i.kem_prekey_seed), public: p.kemPublic(unhex(i.kem_prekey_seed)) },
    };
    const self = { ...partyOf(i.responder), secret: unhex(i.identity_private_key) };
    const agreed = respond(self, { ...handshake, address: addressOf(i.initiator) }, handshake, held);
    const secrets = { kem_shared_secret: p.decaps(held.kem.private, handshake.ct), rejected_secret: rejected(held.kem.private) };
    return { ...nameAgreed({ agreed, handshake }), ...secrets };
  },
  DoubleRatchet: doubleRatchet,
  PqRatchet: pqRatchet,

  RatchetMessageEncode: (i) => ({ encoded: fullMessageOf(i) }),
  RatchetMessageDecode: (i) => nameMessage(decodeRatchetMessage(unhex(i.encoded))),
  PreKeyMessageEncode(i) {
    const header = encodeHandshake(handshakeOf(i.handshake));
    return { encoded: encodePreKeyMessage(header, fullMessageOf(i.message)), handshake_hash: repeatKey(header) };
  },
  PreKeyMessageDecode(i) {
    const m = decodePreKeyMessage(unhex(i.encoded));
    return { handshake: nameHandshake(m), message: nameMessage(m.inner), handshake_hash: repeatKey(m.headerBytes) };
  },
  MessageSeal(i) {
    const keys = keysOf(i, i.pq_index);
    const id = unhex(i.associated_data);
    const sealed = sealMessage(id, keys.message, keys.pqMessage, messageOf(i), unhex(i.nonce), unhex(i.plaintext));
    return { ...nameKeys({ ...sealed, ...keys }), message: sealed.message };
  },
  MessageOpen(i) {
    const m = decodeRatchetMessage(unhex(i.message));
    const keys = keysOf(i, m.pq.index);
    const opened = openMessage(unhex(i.associated_data), keys.message, keys.pqMessage, m);
    return { ...nameKeys({ ...keys, ...opened }), plaintext: opened.padded };
  },

  PaddedLength: (i) => ({ padded_length: paddedLength(i.length) }),
  Pad: (i) => ({ padded: pad(unhex(i.content)) }),
  Unpad: (i) => ({ content: unpad(unhex(i.padded)) }),
  ContentEncode: (i) => ({ encoded: contents.encodeContent({
    messageId: unhex(i.message_id), kind: i.kind, conversation: i.conversation_id, sentAt: BigInt(i.sent_at),
    senderList: positionOf(i.sender_list), recipientList: positionOf(i.recipient_list), list: i.device_list ? unhex(i.device_list) : null,
    body: unhex(i.body),
  }) }),
  ContentDecode: (i) => nameContent(contents.decodeContent(unhex(i.encoded))),
  ApplicationData(i) {
    const { format, data } = contents.decodeApplication(unhex(i.body));
    return format === 1 ? { format: 'text', text: Buffer.from(data).toString() } : { format: 'bytes', bytes: data };
  },
  Receipt(i) {
    const { type, ids } = contents.decodeReceipt(unhex(i.body));
    return { type, message_ids: ids };
  },
  RetryRequest: (i) => ({ envelope_ids: contents.decodeRetryRequest(unhex(i.body)) }),
  DeviceListUpdate: (i) => ({ device_lists: contents.decodeListUpdate(unhex(i.body)) }),
  EnvelopeEncode: (i) => ({ encoded: encodeEnvelope({
    id: unhex(i.envelope_id), sender: addressOf(i.sender), recipient: addressOf(i.recipient), lane: i.lane, ttl: i.ttl, body: unhex(i.body),
  }) }),
  EnvelopeDecode(i) {
    const e = decodeEnvelope(unhex(i.encoded));
    return { envelope_id: e.id, sender: nameAddress(e.sender), recipient: nameAddress(e.recipient), lane: e.lane, ttl: e.ttl, body: e.body };
  },

  Reception(i) {
    const { device, output } = deviceOf(i.device);
    return { device: output, steps: conversation({ [i.device.user_id]: device }, i.steps, false) };
  },
  Conversation(i) {
    const made = i.devices.map(deviceOf);
    const all = Object.fromEntries(made.map(({ device }) => [device.party.address.user, device]));
    return { devices: made.map(({ output }) => output), steps: conversation(all, i.steps, true) };
  },
};

/** @param {string} type of the test group @param {object} input */
export function answer(type, input) {
  const result = attempt(() => ({ result: 'valid', output: plain(answers[type](input) ?? {}) }));
  return result.ok === false ? { result: 'invalid', fails_at: result.layer } : result;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await answerLines(({ type, input }) => answer(type, input));
}
