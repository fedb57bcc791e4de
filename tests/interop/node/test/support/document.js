/** Reads the examples out of docs/protocol.md, so that they are tested as they stand there. */
import { readFileSync } from 'node:fs';
import { unhex } from '../../src/bytes.js';

const page = readFileSync(new URL('../../../../../docs/protocol.md', import.meta.url), 'utf8');

/** The text of a section, from its heading to the next one. */
export function section(number) {
  const parts = page.split(/^#{2,4} /m);
  return parts.find((part) => part.startsWith(`${number} `)) ?? '';
}

/**
 * All `name = hex` of a section, with continuation lines; hex groups of one line are joined until two spaces and a
 * word that is not hex. @returns {Object<string, Uint8Array>}
 */
export function values(number) {
  const found = {};
  let name;
  for (const line of section(number).split('\n')) {
    const [, key, rest] = /^\s*(\S.*?)\s+= (.*)$/.exec(line) ?? [];
    if (key) name = key.trim();
    const groups = (rest ?? (/^ {5,}\S/.test(line) ? line : '')).trim().split(/\s+/);
    if (!rest && !/^ {5,}\S/.test(line)) name = undefined;
    const end = groups.findIndex((g) => g.length % 2 || !/^[0-9a-f]+$/.test(g));
    const digits = (end < 0 ? groups : groups.slice(0, end)).join('');
    if (name && digits) found[name] = (found[name] ?? '') + digits;
  }
  return Object.fromEntries(Object.entries(found).map(([k, v]) => [k, unhex(v)]));
}
