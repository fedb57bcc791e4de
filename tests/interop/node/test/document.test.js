/** The worked examples of docs/protocol.md. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { decodeBody, encodeRatchetMessage } from '../src/body.js';
import { ascii, concat, hex, unbase64url, unhex } from '../src/bytes.js';
import { decodeContent, encodeContent, encodeReceipt } from '../src/content.js';
import { addPrekey, claimBundle, createDevice, learnList, receiveEnvelope, sendTo, start } from '../src/device.js';
import { decodeList, encodeList, listBytes, listHash, verifyList } from '../src/devicelist.js';
import { decodeEnvelope, encodeEnvelope } from '../src/envelope.js';
import { agree, respond, transcript } from '../src/handshake.js';
import { encodeAddress } from '../src/identifiers.js';
import { paddedLength, padme } from '../src/padding.js';
import { decodeBundle, encodeBundle, prekeyBytes } from '../src/prekeys.js';
import { dh, dhPair, hkdf, kdf, mac, sha256, sign } from '../src/primitives.js';
import { pqRoot } from '../src/pqkeys.js';
import { rootStep } from '../src/ratchet.js';
import { safetyNumber } from '../src/safetynumber.js';
import { encrypt, startSession } from '../src/session.js';
import { isValidSignature, loginBytes, verify } from '../src/signatures.js';
import { section, values } from './support/document.js';

const NOW = 1800000000000n;
const x = (name) => sha256(ascii(`E2EE/1 example: ${name}`));
const same = (a, b) => assert.equal(hex(a), hex(b));

function person(user) {
  const given = Object.fromEntries(['account', 'signing', 'identity'].map((key) =>
    [key, x(`${user} ${key === 'signing' ? 'device signing' : key} key`)]));
  return createDevice(user, NOW, { ...given, device: x(`${user} device id`).slice(0, 16) });
}

function bobWithPrekeys() {
  let bob = person('bob');
  const make = (kind, id, secret) => { bob = addPrekey(bob, kind, NOW, { id, private: secret }).device; };
  make('signed', 0x01020304, x('bob signed prekey'));
  make('one-time', 0, x('bob one-time prekey'));
  make('kem one-time', 0xfffefdfc, concat(x('bob KEM prekey d'), x('bob KEM prekey z')));
  return claimBundle(bob);
}

const alice = person('alice');
const { device: bob, bundle: bundleBytes } = bobWithPrekeys();
const A1 = values('A.1');

test('1.5 functions', () => {
  const key = Uint8Array.from({ length: 32 }, (_, i) => i);
  const found = [
    concat(...kdf(key, 'E2EE/1 chain', new Uint8Array())), mac(key, 'E2EE/1 PQ ek', Uint8Array.of(0, 0, 0, 1)),
    concat(...hkdf(key, Uint8Array.from({ length: 32 }, (_, i) => i + 32), ascii('E2EE/1 root'), 64)),
  ];
  for (const value of found) assert(section('1.5').replace(/\s/g, '').includes(hex(value)));
});

test('1.3 text forms', () => {
  assert.deepEqual(unbase64url('AA'), Uint8Array.of(0));
  for (const wrong of ['AB', 'AA==', 'A', 'A+8', 'AA\n']) {
    assert.throws(() => unbase64url(wrong), { code: 'malformed_message' });
  }
  assert(section('1.4').includes('05 616c696365 914a64dc3814abda59308514608f1f31'));
  assert.equal(hex(encodeAddress(alice.party.address)), '05616c696365914a64dc3814abda59308514608f1f31');
});

test('3.3 login assertion', () => {
  const example = values('3.3');
  const login = x('login id').slice(0, 16);
  same(login, example['login id']);
  const bytes = loginBytes({ origin: 'https://chat.example', address: alice.party.address, login, counter: NOW + 1n });
  same(bytes, example['signed bytes']);
  same(sign(alice.seeds.signing, bytes), example.signature);
  verify(alice.party.signing, bytes, example.signature);
  assert(!isValidSignature(alice.party.signing, bytes.slice(1), example.signature));
});

test('4.1 and A.1 device lists', () => {
  const example = values('4.1');
  const list = decodeList(alice.list);
  same(listBytes(list), example['signed bytes']);
  same(listHash(list), example.hash);
  same(list.signature, example.signature);
  verifyList(list, 'alice');
  same(encodeList(list), alice.list);
  const other = decodeList(bob.list);
  same(listBytes(other), A1['bob: signed bytes of list']);
  same(listHash(other), A1['bob: hash of list']);
  same(other.signature, A1['bob: signature of list']);
});

test('4.3 safety number', () => {
  const [, digits] = /number\s+= ([\d ]+)$/m.exec(section('4.3').split('Example')[1]);
  const both = [bob, alice].map((d) => ({ user: d.party.address.user, account: d.party.account }));
  assert.equal(safetyNumber(...both), digits.replaceAll(' ', ''));
});

test('5.1 and A.2 bundle', () => {
  const example = values('A.2');
  const bundle = decodeBundle(bundleBytes);
  same(prekeyBytes(bundle.address, bundle.signed), values('5.1')['signed bytes']);
  same(bundle.signed.signature, values('5.1').signature);
  same(bundle.oneTime.public, example['one-time prekey']);
  same(sha256(bundle.kem.public), example['SHA-256(KEM prekey)']);
  same(sha256(prekeyBytes(bundle.address, bundle.kem)), example['SHA-256(its signed bytes)']);
  same(bundle.kem.signature, example['its signature']);
  same(sha256(bundleBytes), example['SHA-256(bundle)']);
  same(encodeBundle(bundle), bundleBytes);
});

const bundle = decodeBundle(bundleBytes);
const handshake = {
  account: alice.party.account, signing: alice.party.signing, identity: alice.party.identity, created: NOW,
  ephemeral: dhPair(x('alice ephemeral key')).public, signedId: bundle.signed.id, oneTimeId: 0, kemId: bundle.kem.id,
  ct: new Uint8Array(1568).fill(0x5a),
};
const held = { signed: bob.prekeys[0x01020304], oneTime: bob.prekeys[0], kem: bob.prekeys[0xfffefdfc] };
const agreed = respond({ ...bob.party, secret: bob.seeds.identity }, alice.party, handshake, held);

test('A.3 handshake', () => {
  const example = values('A.3');
  const keys = { signed: held.signed.public, oneTime: held.oneTime.public, kem: held.kem.public };
  same(transcript(alice.party, bob.party, handshake, keys).slice(0, 358), example['its first 358 bytes']);
  same(agreed.id, example.T);
  same(agreed.dr, example.SK_dr);
  same(agreed.pq, example.SK_pq);
  const dhs = ['DH1', 'DH2', 'DH3', 'DH4'].map((name) => example[name]);
  const ss = unhex(/ss = Decaps\(ct\)\s+= (\w+)/.exec(section('A.3'))[1]);
  same(agree(dhs, ss, agreed.transcript).dr, example.SK_dr);
});

/** The first message, as Alice makes it, and what Bob makes of it. */
function exchange() {
  const role = { signedPrekey: bundle.signed.public };
  const session = startSession(agreed, bob.party, handshake, role, NOW);
  const content = decodeContent(values('A.4').Content);
  const fixed = { ratchetKey: x('alice ratchet key 1'), nonce: x('nonce 1').slice(0, 12) };
  const sent = encrypt(session, encodeContent(content), Number(NOW), fixed);
  const envelope = encodeEnvelope({
    id: x('envelope id 1').slice(0, 16), sender: alice.party.address, recipient: bob.party.address, lane: 1,
    ttl: 2419200, body: sent.body,
  });
  return { session, sent, content, envelope, received: receiveEnvelope(bob, envelope, NOW) };
}

test('A.4 first message', () => {
  const example = values('A.4');
  const { session, sent, content, envelope, received } = exchange();
  assert.equal(session.repeat, hex(values('A.3').H));
  same(session.header.slice(0, 151), values('A.3')['its first 151 bytes']);
  const secret = dh(x('alice ratchet key 1'), bundle.signed.public);
  same(secret, example['DH(ratchet key, SPKb)']);
  const [root, chain] = rootStep(agreed.dr, secret);
  same(root, example['RK after the root step']);
  same(chain, example['CK after the root step']);
  const names = ["PQ epoch 0: RK'", 'PQ epoch 0: CK_ir', 'PQ epoch 0: CK_ri', 'PQ epoch 0: AK'];
  pqRoot(new Uint8Array(32), agreed.pq, 0, new Uint8Array()).forEach((key, i) => same(key, example[names[i]]));
  same(sent.session.ratchet.sending.key, example['CK after the chain step']);
  same(sent.session.pq.sending.key, example['PQ CK after the step']);
  same(decodeBody(sent.body).inner.prefix, example.prefix);
  same(sha256(sent.body), example['SHA-256(PreKeyMessage)']);
  same(sha256(envelope), example['SHA-256(envelope)']);
  same(encodeEnvelope(decodeEnvelope(envelope)), envelope);
  assert(section('10').replace(/\s/g, '').includes(hex(envelope.slice(0, 17))));
  assert.equal(received.fate, 'delivered');
  assert.deepEqual(received.content, content);
  assert.deepEqual(Object.keys(received.device.prekeys), [String(0x01020304)]);
  same(received.session.ratchet.root, example['RK after the root step']);
  assert.throws(() => receiveEnvelope(received.device, envelope, NOW), { code: 'duplicate_message', layer: 'replay' });
});

test('A.5 answer', () => {
  const example = values('A.5');
  const { sent, received } = exchange();
  const answer = sendTo(received.device, alice.party.address, {
    kind: 1, body: Uint8Array.of(0, 1, 2, 3), messageId: x('message id 2').slice(0, 16), conversation: 'team-7',
    sentAt: NOW + 1000n,
  }, NOW, { ratchetKey: x('bob ratchet key 1'), nonce: x('nonce 2').slice(0, 12) });
  same(answer.body, example.RatchetMessage);
  same(encodeContent(answer.content), example.Content);
  same(answer.session.ratchet.root, example.RK);
  same(encodeRatchetMessage(decodeBody(answer.body)), answer.body);
  const key = `bob/${hex(bob.party.address.device)}`;
  const withList = learnList(alice, 'bob', bob.list);
  const back = receiveEnvelope({ ...withList, sessions: { [key]: [sent.session] } }, answer.envelope, NOW);
  same(encodeContent(back.content), example.Content);
});

test('9.2 padding table', () => {
  const rows = [...section('9.2').matchAll(/^\| (len|padme|padded)(.*)\|$/gm)]
    .map((row) => row[2].split('|').slice(1).map((n) => Number(n.replaceAll(',', ''))));
  rows[0].forEach((length, i) => {
    assert.equal(padme(length + 1), rows[1][i]);
    assert.equal(paddedLength(length), rows[2][i]);
  });
  assert(rows[0].length > 8);
});

test('9.5 receipt', () => {
  const bytes = encodeReceipt({ type: 2, ids: [x('message id 1').slice(0, 16)] });
  assert(section('9.5').replace(/\s/g, '').includes(hex(bytes)));
});

test('5.2 a session from the bundle, with real encapsulation', () => {
  const { device, session } = start(learnList(alice, 'bob', bob.list), bundleBytes, NOW);
  assert.equal(session.created, NOW);
  const { envelope } = sendTo(device, bob.party.address, { kind: 1, body: ascii('\x01hi') }, NOW);
  assert.equal(receiveEnvelope(bob, envelope, NOW).fate, 'delivered');
});
