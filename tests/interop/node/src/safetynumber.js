/** Safety numbers (section 4.3). */
import { ascii, concat } from './bytes.js';
import { sha512 } from './primitives.js';
import { signedBytes } from './signatures.js';

/** 30 digits. */
export function safetyHalf(user, account) {
  let h = sha512(signedBytes('E2EE/1 safety number', concat(account, ascii(user))));
  for (let i = 1; i < 5200; i++) h = sha512(concat(h, account));
  const group = (at) => Buffer.from(h).readUIntBE(at, 5) % 100_000;
  return [0, 5, 10, 15, 20, 25].map((at) => String(group(at)).padStart(5, '0')).join('');
}

/** 60 digits, the same for both. @param {{user: string, account: Uint8Array}[]} both */
export const safetyNumber = (...both) => both.map((one) => safetyHalf(one.user, one.account)).sort().join('');
