/** Answers test vectors: one function for each type of test group, from its input to its output. */
import { pathToFileURL } from 'node:url';
import { conversation, deviceOf } from './src/answers/conversation.js';
import { doubleRatchet } from './src/answers/doubleratchet.js';
import * as n from './src/answers/names.js';
import { pqConversation, pqRatchet } from './src/answers/pqratchet.js';
import {
  decodePreKeyMessage, decodeRatchetMessage, encodeHandshake, encodePreKeyMessage, readHandshake,
} from './src/body.js';
import { base64url, concat, decodeAll, unbase64url, unhex } from './src/bytes.js';
import { checkContacts, decodeLinked } from './src/contacts.js';
import * as contents from './src/content.js';
import { listedParty } from './src/device.js';
import * as lists from './src/devicelist.js';
import { decodeEnvelope, encodeEnvelope } from './src/envelope.js';
import { initiate, repeatKey, respond } from './src/handshake.js';
import { openHistory, sealHistory } from './src/historyexport.js';
import { addressText, conversationId, encodeAddress, parseAddress, readAddress, userId } from './src/identifiers.js';
import { answerLines, attempt } from './src/lines.js';
import * as link from './src/linking.js';
import { pad, paddedLength, unpad } from './src/padding.js';
import { pqChainStep } from './src/pqkeys.js';
import * as prekeys from './src/prekeys.js';
import * as p from './src/primitives.js';
import { chainStep } from './src/ratchet.js';
import * as recovery from './src/recovery.js';
import { isQrText, qrText, safetyHalf, safetyNumber } from './src/safetynumber.js';
import { openMessage, sealMessage } from './src/session.js';
import { loginBytes, verify } from './src/signatures.js';

function verifiedBundle({ device_list: list, bundle: bytes, now }) {
  const bundle = prekeys.decodeBundle(unhex(bytes));
  const party = listedParty(lists.judgeList(undefined, unhex(list), bundle.address.user), bundle.address);
  prekeys.verifyPrekeys(bundle, party.signing, BigInt(now));
  return { bundle, party };
}

const login = (i) => loginBytes({
  origin: i.origin, address: n.addressOf(i), login: unhex(i.login_id), counter: BigInt(i.counter),
});

function signPrekey(i) {
  const seed = unhex(i.device_signing_seed);
  const key = { kind: i.kind, id: i.prekey_id, expires: BigInt(i.expires_at), public: unhex(i.public_key) };
  const bytes = prekeys.prekeyBytes(n.addressOf(i), key);
  const signed = { ...key, signature: p.sign(seed, bytes) };
  const encoded = i.kind ? prekeys.encodeKem(signed) : prekeys.encodeSigned(signed);
  return { device_signing_key: p.signingKey(seed), signed_bytes: bytes, encoded };
}

const payloadOf = (i) => ({
  seed: unhex(i.account_seed), list: unhex(i.device_list), policy: i.policy,
  contacts: i.contacts.map((c) => ({
    user: c.user_id, account: unhex(c.account_key), verified: c.verified === 1, forked: c.forked === 1,
    list: unhex(c.device_list),
  })),
  decisions: i.decisions.map((d) => ({
    user: d.user_id, decision: d.decision, account: unhex(d.account_key), at: BigInt(d.at),
  })),
  sections: i.sections.map((s) => ({ kind: s.kind, bytes: unhex(s.bytes) })),
});

const nameContact = (c) => ({
  user_id: c.user, account_key: c.account, verified: Number(c.verified), forked: Number(c.forked), device_list: c.list,
});
const nameDecision = (d) => ({ user_id: d.user, decision: d.decision, account_key: d.account, at: d.at });
const namePayload = (i) => ({
  user_id: i.user, account_seed: i.seed, device_list: i.list, policy: i.policy,
  contacts: i.contacts.map(nameContact), decisions: i.decisions.map(nameDecision), sections: i.sections,
});

const pastOf = (i) => ({
  message: unhex(i.message_id), author: i.author, device: unhex(i.device), peer: i.peer,
  conversation: i.conversation_id, kind: i.kind, sent: BigInt(i.sent_at), written: BigInt(i.written_at),
  received: BigInt(i.received_at), state: i.state, position: BigInt(i.position), body: unhex(i.body),
});
const namePast = (m) => ({
  message_id: m.message, author: m.author, device: m.device, peer: m.peer, conversation_id: m.conversation, kind: m.kind,
  sent_at: m.sent, written_at: m.written, received_at: m.received, state: m.state, position: m.position, body: m.body,
});

const personOf = (i) => ({ user: userId(i.user_id), account: unhex(i.account_key) });

const keysOf = (i, index) => ({
  message: chainStep(unhex(i.chain_key))[1], pqMessage: pqChainStep(unhex(i.pq_chain_key), index)[1],
});

const answers = {
  HkdfSha512: (i) => ({ okm: p.hkdfBytes(unhex(i.salt), unhex(i.ikm), unhex(i.info), i.length) }),
  Kdf: (i) => ({ output: concat(...p.kdf(unhex(i.key), i.label, unhex(i.data))) }),
  Mac: (i) => ({ tag: p.mac(unhex(i.key), i.label, unhex(i.data)) }),
  X25519: (i) => ({
    public_key: p.dhPair(unhex(i.private_key)).public,
    shared_secret: p.dh(unhex(i.private_key), n.readKey(i.their_public_key)),
  }),
  Ed25519Sign: (i) => ({ public_key: p.signingKey(unhex(i.seed)), signature: p.sign(unhex(i.seed), unhex(i.message)) }),
  Ed25519Verify: (i) => void verify(unhex(i.public_key), unhex(i.message), unhex(i.signature)),
  MlKem1024Decapsulate(i) {
    const seed = unhex(i.seed);
    const secret = p.decaps(seed, unhex(i.ciphertext, 1568));
    return { public_key: p.kemPublic(seed), shared_secret: secret, rejected_secret: n.rejected(seed) };
  },

  Base64urlEncode: (i) => ({ text: base64url(unhex(i.bytes)) }),
  Base64urlDecode: (i) => ({ bytes: unbase64url(i.text) }),
  AddressEncode: (i) => ({ encoded: encodeAddress(n.addressOf(i)), text: addressText(n.addressOf(i)) }),
  AddressDecode: (i) => n.nameAddress(decodeAll(unhex(i.encoded), readAddress)),
  AddressParse: (i) => n.nameAddress(parseAddress(i.text)),
  ConversationId: (i) => ({ conversation_id: conversationId(i.text) }),
  SafetyNumber({ one, other }) {
    const both = [one, other].map(personOf);
    const [a, b] = both.map(({ user, account }) => safetyHalf(user, account));
    return { half_of_one: a, half_of_other: b, number: safetyNumber(...both) };
  },
  SafetyQrText: ({ shower, reader }) => ({ text: qrText(personOf(shower), personOf(reader)) }),
  SafetyQrRead({ shower, reader, text }) {
    const [theirs, ours] = [shower, reader].map(personOf);
    return { same: Number(isQrText(text, theirs, ours)), expected: qrText(theirs, ours) };
  },

  RecoveryCodeWrite: (i) => ({ text: recovery.writeCode(unhex(i.secret)) }),
  RecoveryCodeRead: (i) => ({ secret: recovery.readCode(i.text) }),
  ExportSeal: (i) => recovery.sealExport(
    unhex(i.secret), i.purpose, i.user_id, unhex(i.nonce), payloadOf(i.payload),
  ),
  ExportOpen: (i) => namePayload(recovery.openExport(unhex(i.secret), i.purpose, unhex(i.export))),
  HistoryExportSeal: (i) => sealHistory(
    unhex(i.secret), i.user_id, unhex(i.nonce), payloadOf(i.payload), i.chunks.map((some) => some.map(pastOf)),
  ),
  HistoryExportOpen(i) {
    const opened = openHistory(unhex(i.secret), unhex(i.export));
    return { ...namePayload(opened), retention: opened.retention, messages: opened.messages.map(namePast) };
  },

  LinkOffer: (i) => link.offer(link.newDevice(i)),
  LinkCode: (i) => ({ link_id: link.parseCode(i.text) }),
  LinkCompare: (i) => link.shown(unhex(i.commit), unhex(i.answer), unhex(i.reveal)),
  LinkBundleSign: (i) => link.signBundle(
    unhex(i.device_signing_seed), unhex(i.link_id), unhex(i.transcript), unhex(i.sealed),
  ),
  LinkBundleOpen: (i) => link.openBundle(link.newDevice(i.device), unhex(i.answer), unhex(i.bundle)),

  DeviceListSign(i) {
    const seed = unhex(i.account_seed);
    const list = lists.signList(seed, {
      user: i.user_id, account: p.signingKey(seed), seq: BigInt(i.seq), previous: unhex(i.previous_hash),
      created: BigInt(i.created_at), expires: BigInt(i.expires_at),
      devices: i.devices.map((d) => ({
        device: unhex(d.device_id), signing: unhex(d.device_signing_key), identity: unhex(d.identity_key),
      })),
    });
    return {
      account_key: list.account, signed_bytes: lists.listBytes(list), hash: lists.listHash(list),
      encoded: lists.encodeList(list),
    };
  },
  DeviceListDecode: (i) => n.nameList(lists.decodeList(unhex(i.encoded))),
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
      ...n.nameAddress(b.address), signed_prekey: n.namePrekey(b.signed), one_time_prekey: n.namePrekey(b.oneTime),
      kem_prekey: n.namePrekey(b.kem),
    };
  },
  BundleVerify(i) {
    const { bundle: { signed, oneTime, kem }, party } = verifiedBundle(i);
    return {
      account_key: party.account, device_signing_key: party.signing, identity_key: party.identity,
      one_time_prekey: oneTime?.public, prekey_ids: [signed, oneTime, kem].filter(Boolean).map((key) => key.id),
    };
  },
  LoginAssertionSign(i) {
    const seed = unhex(i.device_signing_seed);
    return { device_signing_key: p.signingKey(seed), signed_bytes: login(i), signature: p.sign(seed, login(i)) };
  },
  LoginAssertionVerify: (i) => void verify(unhex(i.device_signing_key), login(i), unhex(i.signature)),

  PqxdhInitiate(i) {
    const { bundle, party } = verifiedBundle(i);
    const made = initiate({ ...n.partyOf(i.initiator), secret: unhex(i.identity_private_key) }, party, bundle, {
      created: BigInt(i.created), ephemeral: unhex(i.ephemeral_private_key),
      kem: { ss: unhex(i.kem_shared_secret), ct: unhex(i.kem_ciphertext) },
    });
    return { ...n.nameAgreed(made), handshake_header: encodeHandshake(made.handshake) };
  },
  PqxdhRespond(i) {
    const handshake = decodeAll(unhex(i.handshake_header), readHandshake);
    const held = {
      signed: p.dhPair(unhex(i.signed_prekey_private_key)),
      oneTime: i.one_time_prekey_private_key && p.dhPair(unhex(i.one_time_prekey_private_key)),
      kem: { private: unhex(i.kem_prekey_seed), public: p.kemPublic(unhex(i.kem_prekey_seed)) },
    };
    const self = { ...n.partyOf(i.responder), secret: unhex(i.identity_private_key) };
    const agreed = respond(self, { ...handshake, address: n.addressOf(i.initiator) }, handshake, held);
    const { private: seed } = held.kem;
    return {
      ...n.nameAgreed({ agreed, handshake }), kem_shared_secret: p.decaps(seed, handshake.ct),
      rejected_secret: n.rejected(seed),
    };
  },
  DoubleRatchet: doubleRatchet,
  PqRatchet: pqRatchet,
  PqConversation: pqConversation,

  RatchetMessageEncode: (i) => ({ encoded: n.fullMessageOf(i) }),
  RatchetMessageDecode: (i) => n.nameMessage(decodeRatchetMessage(unhex(i.encoded))),
  PreKeyMessageEncode(i) {
    const header = encodeHandshake(n.handshakeOf(i.handshake));
    return { encoded: encodePreKeyMessage(header, n.fullMessageOf(i.message)), handshake_hash: repeatKey(header) };
  },
  PreKeyMessageDecode(i) {
    const m = decodePreKeyMessage(unhex(i.encoded));
    return { handshake: n.nameHandshake(m), message: n.nameMessage(m.inner), handshake_hash: repeatKey(m.headerBytes) };
  },
  MessageSeal(i) {
    const keys = keysOf(i, i.pq_index);
    const id = unhex(i.associated_data);
    const sealed = sealMessage(id, keys.message, keys.pqMessage, n.messageOf(i), unhex(i.nonce), unhex(i.plaintext));
    return { ...n.nameKeys({ ...sealed, ...keys }), message: sealed.message };
  },
  MessageOpen(i) {
    const m = decodeRatchetMessage(unhex(i.message));
    const keys = keysOf(i, m.pq.index);
    const opened = openMessage(unhex(i.associated_data), keys.message, keys.pqMessage, m);
    return { ...n.nameKeys({ ...keys, ...opened }), plaintext: opened.padded };
  },

  PaddedLength: (i) => ({ padded_length: paddedLength(i.length) }),
  Pad: (i) => ({ padded: pad(unhex(i.content)) }),
  Unpad: (i) => ({ content: unpad(unhex(i.padded)) }),
  ContentEncode: (i) => ({ encoded: contents.encodeContent({
    messageId: unhex(i.message_id), kind: i.kind, conversation: i.conversation_id, sentAt: BigInt(i.sent_at),
    senderList: n.positionOf(i.sender_list), recipientList: n.positionOf(i.recipient_list),
    list: i.device_list ? unhex(i.device_list) : null, body: unhex(i.body),
  }) }),
  ContentDecode: (i) => n.nameContent(contents.decodeContent(unhex(i.encoded))),
  ApplicationData(i) {
    const { format, data } = contents.decodeApplication(unhex(i.body));
    return format === 1 ? { format: 'text', text: Buffer.from(data).toString() } : { format: 'bytes', bytes: data };
  },
  Receipt(i) {
    const { type, ids } = contents.decodeReceipt(unhex(i.body));
    return { type, message_ids: ids };
  },
  RetryRequest: (i) => ({ envelope_ids: contents.decodeRetryRequest(unhex(i.body)) }),
  CallSignal(i) {
    const { call, action, device, data } = contents.decodeCall(unhex(i.body));
    return { call_id: call, action, ...(device && { device_id: device }), data };
  },
  Sync(i) {
    const sync = contents.decodeSync(unhex(i.body));
    if (sync === null) return { unknown: i.body };
    const { type, user, kind, body, ids } = sync;
    return type === 1 ? { type, recipient: user, kind, body } : { type, author: user, message_ids: ids };
  },
  LinkedContacts(i) {
    const linked = decodeLinked(unhex(i.body));
    if (linked === null) return { unknown: i.body };
    checkContacts(linked.contacts, i.user_id);
    const { policy, contacts, decisions } = linked;
    return { policy, contacts: contacts.map(nameContact), decisions: decisions.map(nameDecision) };
  },
  DeviceListUpdate: (i) => ({ device_lists: contents.decodeListUpdate(unhex(i.body)) }),
  EnvelopeEncode: (i) => ({ encoded: encodeEnvelope({
    id: unhex(i.envelope_id), sender: n.addressOf(i.sender), recipient: n.addressOf(i.recipient), lane: i.lane,
    ttl: i.ttl, body: unhex(i.body),
  }) }),
  EnvelopeDecode(i) {
    const e = decodeEnvelope(unhex(i.encoded));
    return {
      envelope_id: e.id, sender: n.nameAddress(e.sender), recipient: n.nameAddress(e.recipient), lane: e.lane,
      ttl: e.ttl, body: e.body,
    };
  },

  Reception(i) {
    const { device, output } = deviceOf(i.device);
    return { device: output, steps: conversation({ [i.device.user_id]: device }, i.steps) };
  },
  Conversation(i) {
    const made = i.devices.map(deviceOf);
    const all = Object.fromEntries(made.map(({ device }) => [device.party.address.user, device]));
    return { devices: made.map(({ output }) => output), steps: conversation(all, i.steps) };
  },
};

/** @param {{type: string, input: object}} request the type of the test group, and the input of a test */
export function answer({ type, input }) {
  if (!(type in answers)) return { result: 'unsupported' };
  try {
    const result = attempt(() => ({ result: 'valid', output: n.plain(answers[type](input) ?? {}) }));
    return result.ok === false ? { result: 'invalid', fails_at: result.layer } : result;
  } catch (error) {
    return { result: 'error', problem: error.stack };
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await answerLines(answer);
