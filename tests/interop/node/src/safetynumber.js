/** Safety numbers (section 4.3). */
import { ascii, concat, equalSecret } from './bytes.js';
import { malformed } from './errors.js';
import { sha512 } from './primitives.js';
import { signedBytes } from './signatures.js';

const PREFIX = 'E2EE1-SAFETY:';
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

function lastHash(user, account) {
  let h = sha512(signedBytes('E2EE/1 safety number', concat(account, ascii(user))));
  for (let i = 1; i < 5200; i++) h = sha512(concat(h, account));
  return h;
}

/** 30 digits. */
export function safetyHalf(user, account) {
  const h = lastHash(user, account);
  const group = (at) => Buffer.from(h).readUIntBE(at, 5) % 100_000;
  return [0, 5, 10, 15, 20, 25].map((at) => String(group(at)).padStart(5, '0')).join('');
}

/** 60 digits, the same for both. @param {{user: string, account: Uint8Array}[]} both */
export const safetyNumber = (...both) => both.map((one) => safetyHalf(one.user, one.account)).sort().join('');

/** What one end shows the other. @param {{user: string, account: Uint8Array}} shower */
export function qrText(shower, reader) {
  const bytes = concat(...[shower, reader].map(({ user, account }) => lastHash(user, account).slice(0, 32)));
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return PREFIX + bits.match(/.{1,5}/g).map((five) => BASE32[parseInt(five.padEnd(5, '0'), 2)]).join('');
}

/** Whether a text that was read names the keys that the reader knows. */
export function isQrText(text, shower, reader) {
  if (!text.startsWith(PREFIX) || !/^[!-~]{116}$/.test(text)) malformed('not the QR code of a safety number');
  return equalSecret(ascii(text), ascii(qrText(shower, reader)));
}
