/** The names of the vectors, where they differ from those of this implementation; and values for JSON. */
import { encodeHandshake, encodeRatchetMessage } from '../body.js';
import { decodeAll, hex, unhex } from '../bytes.js';
import { listHash } from '../devicelist.js';
import { repeatKey } from '../handshake.js';
import { decaps, ratchetKem, readDhKey } from '../primitives.js';

/** What a step draws for the post-quantum ratchet, if it draws anything. */
export const seedOf = (step) => step.seed && unhex(step.seed, 64);
export const kemOf = (step) => step.ciphertext
  && { ss: unhex(step.shared_secret, 32), ct: unhex(step.ciphertext, 1088) };

export const readKey = (text) => decodeAll(unhex(text), readDhKey);

/** Values for JSON: bytes as hex, without what is absent. */
export function plain(value) {
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  const present = Object.entries(value).filter(([, v]) => v !== undefined && v !== null);
  return Object.fromEntries(present.map(([k, v]) => [k, plain(v)]));
}

export const addressOf = (i) => ({ user: i.user_id, device: unhex(i.device_id, 16) });
export const nameAddress = ({ user, device }) => ({ user_id: user, device_id: device });
export const partyOf = (i) => ({
  address: addressOf(i),
  account: unhex(i.account_key), signing: unhex(i.device_signing_key), identity: unhex(i.identity_key),
});
export const positionOf = ({ seq, hash }) => ({ seq: BigInt(seq), hash: unhex(hash) });
export const nameList = (list) => ({
  user_id: list.user, account_key: list.account, seq: list.seq, previous_hash: list.previous, created_at: list.created,
  expires_at: list.expires, signature: list.signature, hash: listHash(list),
  devices: list.devices.map((d) => ({ device_id: d.device, device_signing_key: d.signing, identity_key: d.identity })),
});
export const namePrekey = (key) => key && {
  kind: key.kind, prekey_id: key.id, expires_at: key.expires, public_key: key.public, signature: key.signature,
};
export const messageOf = (i) => ({
  key: unhex(i.ratchet_key), previous: i.previous_chain_length, index: i.index,
  pq: { epoch: i.pq_epoch, index: i.pq_index }, payloadType: i.pq_payload_type ?? 0, payload: unhex(i.pq_payload ?? ''),
});
export const nameMessage = (m) => ({
  ratchet_key: m.key, previous_chain_length: m.previous, index: m.index, pq_epoch: m.pq.epoch, pq_index: m.pq.index,
  pq_payload_type: m.payloadType, pq_payload: m.payload,
  commitment: m.commitment, nonce: m.nonce, ciphertext: m.ciphertext,
});
export const fullMessageOf = (i) => encodeRatchetMessage({
  ...messageOf(i), commitment: unhex(i.commitment), nonce: unhex(i.nonce), ciphertext: unhex(i.ciphertext),
});
export const handshakeOf = (i) => ({
  account: unhex(i.account_key), signing: unhex(i.device_signing_key), identity: unhex(i.identity_key),
  created: BigInt(i.created), ephemeral: unhex(i.ephemeral_key), signedId: i.signed_prekey_id,
  oneTimeId: i.one_time_prekey_id ?? null, kemId: i.kem_prekey_id, ct: unhex(i.kem_ciphertext),
});
export const nameHandshake = (h) => ({
  account_key: h.account, device_signing_key: h.signing, identity_key: h.identity, created: h.created,
  ephemeral_key: h.ephemeral, signed_prekey_id: h.signedId, one_time_prekey_id: h.oneTimeId, kem_prekey_id: h.kemId,
  kem_ciphertext: h.ct,
});
export const nameContent = (c) => ({
  message_id: c.messageId, kind: c.kind, conversation_id: c.conversation, sent_at: c.sentAt, sender_list: c.senderList,
  recipient_list: c.recipientList, device_list: c.list, body: c.body,
});
export const nameAgreed = ({ agreed: { dhs: [dh1, dh2, dh3, dh4], transcript, id, dr, pq }, handshake }) => ({
  dh1, dh2, dh3, dh4, transcript, associated_data: id, sk_dr: dr, sk_pq: pq,
  handshake_hash: repeatKey(encodeHandshake(handshake)),
});
export const nameKeys = ({ message, pqMessage, key, commitment }) =>
  ({ message_key: message, pq_message_key: pqMessage, aes_key: key, commitment });

/** The secret of a ciphertext that nobody made shows the half z of a seed: here that of a KEM prekey, ... */
export const rejected = (seed) => decaps(seed, new Uint8Array(1568).fill(0x5a));
/** ... and here that of the encapsulation key that a step offers, if it does. */
export const rejectedOf = (step) => step.seed && ratchetKem.decaps(seedOf(step), new Uint8Array(1088).fill(0x5a));
