/** Hostile bytes: one encoding per value, no failure but a refusal, strict keys and signatures. */
import { ed25519 } from '@noble/curves/ed25519.js';
import assert from 'node:assert/strict';
import test from 'node:test';
import { decodeBody, encodeHandshake, encodePreKeyMessage, encodeRatchetMessage } from '../src/body.js';
import { ascii, concat, hex, Reader, unhex } from '../src/bytes.js';
import { decodeContent, encodeContent } from '../src/content.js';
import { decodeList, encodeList } from '../src/devicelist.js';
import { decodeEnvelope, encodeEnvelope } from '../src/envelope.js';
import { Refusal } from '../src/errors.js';
import { pad, unpad } from '../src/padding.js';
import { decodeBundle, encodeBundle } from '../src/prekeys.js';
import { dh, dhPair, encaps, random, readDhKey, sign, signingKey } from '../src/primitives.js';
import { isValidSignature } from '../src/signatures.js';
import { peer } from '../converse.js';
import { section, values } from './support/document.js';

const encodeBody = (m) => (m.inner
  ? encodePreKeyMessage(encodeHandshake(m), encodeRatchetMessage(m.inner)) : encodeRatchetMessage(m));

function samples() {
  const [a, b] = ['alice', 'bob'].map((user) => {
    const ask = peer();
    return Object.assign(ask, ask({ op: 'create', user }));
  });
  b({ op: 'prekeys', make: [{ kind: 'signed' }, { kind: 'one-time' }, { kind: 'kem last-resort' }] });
  a({ op: 'learn', user: 'bob', device_list: b.device_list });
  const { bundle } = b({ op: 'bundle' });
  a({ op: 'start', bundle });
  const { envelope, body } = a({ op: 'encrypt', to: b.address, text: 'hello' });
  return [
    [bundle, decodeBundle, encodeBundle], [a.device_list, decodeList, encodeList],
    [envelope, decodeEnvelope, encodeEnvelope], [body, decodeBody, encodeBody],
    [hex(values('A.5').RatchetMessage), decodeBody, encodeBody],
    [hex(values('A.4').Content), decodeContent, encodeContent],
  ].map(([text, ...rest]) => [unhex(text), ...rest]);
}

test('every accepted byte string is the encoding of what it decodes to', () => {
  for (const [bytes, decode, encode] of samples()) {
    assert.equal(hex(encode(decode(bytes))), hex(bytes));
    let refused = 0;
    for (let i = 0; i < 400; i++) {
      const at = i < 200 ? i % bytes.length : (i * 7919) % bytes.length;
      const turned = bytes.slice();
      turned[at] ^= 1 << (i % 8);
      const changed = i % 2 ? turned : bytes.slice(0, at);
      try {
        assert.equal(hex(encode(decode(changed))), hex(changed));
      } catch (error) {
        assert(error instanceof Refusal, error.stack);
        refused++;
      }
    }
    assert(refused >= 100);
    const longer = () => assert.throws(() => decode(concat(bytes, Uint8Array.of(0))), { code: 'malformed_message' });
    if (decode !== decodeBody || bytes[1] === 1) longer(); // a RatchetMessage ends with whatever is left
  }
});

test('padding has one form', () => {
  for (const length of [0, 1, 121, 254, 255, 256, 1000]) {
    const padded = pad(new Uint8Array(length).fill(7));
    assert.equal(unpad(padded).length, length);
    assert.throws(() => unpad(concat(padded, new Uint8Array(256))), { code: 'malformed_message' });
    assert.throws(() => unpad(padded.slice(0, -1)), { code: 'malformed_message' });
  }
  assert.throws(() => unpad(new Uint8Array(256)), { code: 'malformed_message' });
});

test('X25519 keys: canonical when decoded, not of low order when used', () => {
  const lines = section('2').match(/^[0-9a-f]{64}$/gm);
  assert.equal(lines.length, 5);
  for (const line of lines) {
    const key = readDhKey(new Reader(unhex(line)));
    assert.throws(() => dh(random(32), key), { code: 'invalid_public_key', layer: 'dh' });
  }
  for (const line of [`ed${'ff'.repeat(30)}7f`, `09${'00'.repeat(30)}80`, 'ff'.repeat(32)]) {
    assert.throws(() => readDhKey(new Reader(unhex(line))), { code: 'invalid_public_key', layer: 'decode' });
  }
  assert.throws(() => encaps(new Uint8Array(1568).fill(0xff)), { code: 'invalid_public_key', layer: 'dh' });
  const [one, two] = [dhPair(), dhPair()];
  assert.deepEqual(dh(one.private, two.public), dh(two.private, one.public));
});

test('Ed25519 is strict', () => {
  const seed = random(32);
  const message = ascii('message');
  const good = sign(seed, message);
  assert(isValidSignature(signingKey(seed), message, good));
  const { ORDER } = ed25519.Point.Fn;
  const s = BigInt(`0x${hex(good.slice(32).reverse())}`) + ORDER;
  const above = concat(good.slice(0, 32), unhex(s.toString(16).padStart(64, '0')).reverse());
  assert(!isValidSignature(signingKey(seed), message, above));
  const identity = unhex(`01${'00'.repeat(31)}`);
  assert(!isValidSignature(identity, message, concat(identity, new Uint8Array(32))));
  const zero = concat(signingKey(random(32)), new Uint8Array(32)); // S = 0
  assert(!isValidSignature(signingKey(seed), message, zero));
});
