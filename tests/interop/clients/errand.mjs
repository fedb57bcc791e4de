/**
 * What each of these clients does, whatever carries the frames (section 13): receive, acknowledge, answer pings,
 * reconnect once in the middle, send one envelope on each connection, and leave.
 *
 * Owns: the frames said and understood. Does not know about: how they travel; a carrier brings `open(onFrame, onEnd)`.
 */
const { ERRAND } = process.env;
/** @type {{url: string, token: string, expected: number, heartbeats: number, send: object}} */
export const errand = JSON.parse(ERRAND);

const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const instance = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
const bytes = (envelope) => (typeof envelope === 'string' ? Buffer.from(envelope, 'base64url') : Buffer.from(envelope));

/**
 * @param {(onFrame: (name: string, fields: object) => void, onEnd: (why: string) => void) =>
 *   Promise<{say: (name: string, fields: object) => void, close: () => void}>} open
 *   a carrier whose transport has a heartbeat of its own reports it as a frame `heartbeat`
 */
export async function run(open) {
  let epoch = 0;
  let watermark = 0;
  let received = 0;
  let heartbeats = 0;
  const half = Math.ceil(errand.expected / 2);
  for (let number = 1; number <= 2; number += 1) {
    const goal = number === 1 ? half : errand.expected;
    await new Promise((resolve, reject) => {
      let carrier;
      let online = false;
      let asked = false;
      let leaving = false;
      const finish = () => {
        if (asked || !online || received < goal || heartbeats < errand.heartbeats) return;
        asked = true;
        carrier.say('send', errand.send);
      };
      const deliver = (fields) => {
        // The first connection leaves the rest for the second; the second must not get more than the rest.
        if (received === goal && number === 1) return;
        if (received === goal) throw new Error('more was delivered than expected');
        received += 1;
        const envelope = 'dropped' in fields ? null : bytes(fields.envelope);
        print(envelope ? { delivered: envelope.toString('base64url') } : { dropped: fields.envelope_id });
        carrier.say('ack', { epoch: fields.epoch, ranges: [[fields.seq, fields.seq]] });
        carrier.say('credit', { messages: 1, bytes: envelope ? envelope.length : 0 });
        if (fields.seq === watermark + 1) watermark = fields.seq;
      };
      const onFrame = (name, fields) => {
        if (leaving) return;
        if (name === 'error') reject(new Error(`${fields.code}: ${fields.detail}`));
        if (name === 'hello') {
          if (fields.epoch !== epoch) watermark = 0;
          epoch = fields.epoch;
          watermark = Math.max(watermark, fields.settled_through);
          online = true;
          print({ left: fields.head_seq - fields.settled_through });
        }
        if (name === 'ping') carrier.say('pong', {});
        if (name === 'ping' || name === 'heartbeat') heartbeats += 1;
        if (name === 'deliver') deliver(fields);
        if (name === 'sent') {
          // Assumed: frames are taken in order, so this answer says that the acknowledgements before it were.
          print({ sent: fields.envelope_id, duplicate: fields.duplicate });
          leaving = true;
          carrier.close();
          resolve();
          return;
        }
        finish();
      };
      open(onFrame, (why) => leaving || reject(new Error(why))).then((opened) => {
        carrier = opened;
        carrier.say('hello', {
          version: 1, token: errand.token, instance, connection: number, epoch, watermark,
          credit_messages: 4, credit_bytes: 262_144,
        });
      }, reject);
    });
  }
  print({ done: received, heartbeats });
}
