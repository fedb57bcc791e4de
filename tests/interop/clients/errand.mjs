/**
 * What each of these clients does, whatever carries the frames (section 13): receive, acknowledge, reconnect once in the
 * middle, send one envelope, and leave.
 *
 * Owns: the frames said and understood. Does not know about: how they travel; a carrier brings `open(onFrame, onEnd)`.
 */
const { ERRAND } = process.env;
/** @type {{url: string, token: string, expected: number, send: object}} */
export const errand = JSON.parse(ERRAND);

const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const instance = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
export const base64url = (bytes) => Buffer.from(bytes).toString('base64url');

/**
 * @param {(onFrame: (name: string, fields: object) => void, onEnd: (why: string) => void) =>
 *   Promise<{say: (name: string, fields: object) => void, close: () => void}>} open
 * @param {(bytes: any) => string} text turns an envelope as it came into base64url
 */
export async function run(open, text) {
  let epoch = 0;
  let watermark = 0;
  let received = 0;
  const half = Math.ceil(errand.expected / 2);
  for (let number = 1; number <= 2; number += 1) {
    const goal = number === 1 ? half : errand.expected;
    await new Promise((resolve, reject) => {
      let carrier;
      let leaving = false;
      const onFrame = (name, fields) => {
        if (name === 'ping') carrier.say('pong', {});
        if (name === 'hello') epoch = fields.epoch;
        if (name === 'error') reject(new Error(`${fields.code}: ${fields.detail}`));
        if (name === 'sent') {
          // Frames are taken in order: this answer says that the acknowledgements before it were.
          print({ sent: fields.envelope_id, duplicate: fields.duplicate });
          leaving = true;
          carrier.close();
          resolve();
        }
        if (name !== 'deliver' || leaving || received === goal) return;
        received += 1;
        print({ delivered: text(fields.envelope) });
        carrier.say('ack', { epoch: fields.epoch, ranges: [[fields.seq, fields.seq]] });
        carrier.say('credit', { messages: 1, bytes: fields.envelope.length });
        if (fields.seq === watermark + 1) watermark = fields.seq;
        if (received === goal) carrier.say('send', errand.send);
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
  print({ done: received });
}
