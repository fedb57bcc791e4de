/** A peer that holds a conversation: one device, driven by JSON lines. README.md has its commands. */
import { pathToFileURL } from 'node:url';
import { concat, hex, u8, unhex } from './src/bytes.js';
import { decodeApplication, decodeReceipt, APPLICATION, RECEIPT } from './src/content.js';
import * as devices from './src/device.js';
import { decodeList, newestList, positionOf } from './src/devicelist.js';
import { addressText, parseAddress } from './src/identifiers.js';
import { attempt, answerLines } from './src/lines.js';
import { isStalled } from './src/pqratchet.js';
import { safetyNumber } from './src/safetynumber.js';
import { owesEmpty, sendingSession } from './src/session.js';
import { keptKeys } from './src/skipped.js';

const optional = (value, as) => (value === undefined ? undefined : as(value));
const position = ({ seq, hash }) => ({ seq: String(seq), hash: hex(hash) });

function describe(content) {
  const { messageId, kind, conversation, sentAt, senderList, recipientList, list, body } = content;
  const known = {};
  if (kind === APPLICATION) {
    const { format, data } = decodeApplication(body);
    Object.assign(known, format === 1 ? { text: Buffer.from(data).toString() } : { data: hex(data) });
  }
  if (kind === RECEIPT) {
    const { type, ids } = decodeReceipt(body);
    known.receipt = { type, ids: ids.map(hex) };
  }
  return {
    message_id: hex(messageId), kind, conversation, sent_at: String(sentAt), sender_list: position(senderList),
    recipient_list: position(recipientList), device_list: list && hex(list), body: hex(body), ...known,
  };
}

function bodyOf({ text, data, body }) {
  if (text !== undefined) return concat(u8(1), Uint8Array.from(Buffer.from(text)));
  return data === undefined ? unhex(body ?? '') : concat(u8(0), unhex(data));
}

/** Each command takes the device and the request, and gives the next device and an answer. */
const commands = {
  create(_, { user, keys = {} }, now) {
    const bytes = ([name, value]) => [name, unhex(value, name === 'device' ? 16 : 32)];
    const given = Object.fromEntries(Object.entries(keys).map(bytes));
    const device = devices.createDevice(user, now, given);
    return [device, describeDevice(device)];
  },
  device: (device) => [device, describeDevice(device)],
  prekeys(device, { make }, now) {
    const ids = make.map(({ kind, id, private: secret }) => {
      const made = devices.addPrekey(device, kind, now, { id, private: optional(secret, unhex) });
      device = made.device;
      return made.id;
    });
    return [device, { ids }];
  },
  bundle(device, { one_time: oneTime = true, kem_one_time: oneTimeKem = true }) {
    const claimed = devices.claimBundle(device, { oneTime, oneTimeKem });
    return [claimed.device, { bundle: hex(claimed.bundle) }];
  },
  learn: (device, { user, device_list: list }) => [devices.learnList(device, user, unhex(list)), {}],
  start(device, { bundle }, now) {
    const started = devices.start(device, unhex(bundle), now);
    return [started.device, describeSession(started.session, now)];
  },
  encrypt(device, request, now) {
    const { to, kind = 1, conversation, lane, ttl } = request;
    const sent = devices.sendTo(device, parseAddress(to), {
      kind, body: bodyOf(request), messageId: optional(request.message_id, unhex), conversation,
      sentAt: optional(request.sent_at, BigInt), envelopeId: optional(request.envelope_id, unhex), lane, ttl,
    }, now);
    return [sent.device, describeSent(sent)];
  },
  heal(device, { to }, now) {
    const sent = devices.heal(device, parseAddress(to), now);
    return [sent.device, describeSent(sent)];
  },
  receive(device, { envelope, sender, body }, now) {
    const got = envelope === undefined ? devices.receiveBody(device, parseAddress(sender), unhex(body), now)
      : devices.receiveEnvelope(device, unhex(envelope), now);
    return [got.device, { fate: got.fate, sender: addressText(got.session.peer.address), session: hex(got.session.id),
      content: describe(got.content) }];
  },
  prune: (device, { with: address }, now) => [devices.prune(device, parseAddress(address), now), {}],
  safety(device, { user }) {
    const { account, address } = device.party;
    const theirs = newestList(device.contacts[user]).account;
    return [device, { number: safetyNumber({ user, account: theirs }, { user: address.user, account }) }];
  },
  sessions(device, { with: address }, now) {
    const sessions = device.sessions[address] ?? [];
    const sending = sendingSession(sessions, now);
    return [device, { sessions: sessions.map((s) => ({ ...describeSession(s, now), sending: s === sending })) }];
  },
};

const describeSent = ({ envelope, body, content, session }) => ({
  envelope: hex(envelope), body: hex(body), first: !session.answered, session: hex(session.id),
  content: describe(content),
});

const describeSession = (s, now) => ({
  session: hex(s.id), created: String(s.created), answered: s.answered,
  skipped: [s.skipped, s.skippedPq].map((map) => keptKeys(map).length),
  epoch: s.pq.epoch, phase: s.pq.phase.name, healing: s.pq.healing, stalled: isStalled(s.pq),
  owes_empty: owesEmpty(s, Number(now)),
});

const describeDevice = ({ party, list, prekeys, contacts }) => ({
  address: addressText(party.address), account_key: hex(party.account), signing_key: hex(party.signing),
  identity_key: hex(party.identity), device_list: hex(list), position: position(positionOf(decodeList(list))),
  prekeys: Object.keys(prekeys).map(Number), forked: Object.keys(contacts).filter((user) => contacts[user].forked),
});

/** A device that takes commands; a refused one changes nothing but the mark of a fork. */
export function peer() {
  let device;
  return (request) => attempt(() => {
    const now = BigInt(request.now ?? Date.now());
    try {
      const [next, answer] = commands[request.op](device, request, now);
      device = next;
      return { ok: true, ...answer };
    } catch (error) {
      if (error.code === 'device_list_fork' && error.forked) device = devices.markForked(device, error.forked);
      throw error;
    }
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await answerLines(peer());
