/** Padding to Padmé lengths (section 9.2). */
import { concat } from './bytes.js';
import { malformed } from './errors.js';

const log2 = (n) => 31 - Math.clz32(n);

export function padme(length) {
  if (length < 2) return length;
  const e = log2(length);
  const step = 2 ** (e - log2(e) - 1);
  return Math.ceil(length / step) * step;
}

export const paddedLength = (length) => Math.max(256, padme(length + 1));

export const pad = (content) =>
  concat(content, Uint8Array.of(0x80), new Uint8Array(paddedLength(content.length) - content.length - 1));

export function unpad(padded) {
  let end = padded.length;
  while (end > 0 && padded[end - 1] === 0) end--;
  if (end === 0 || padded[end - 1] !== 0x80 || paddedLength(end - 1) !== padded.length) malformed('padding');
  return padded.slice(0, end - 1);
}
