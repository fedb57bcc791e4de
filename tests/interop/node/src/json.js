/** JSON whose integers may reach 2^63 - 1: those beyond 2^53 are BigInt. */

export const parse = (text) => JSON.parse(
  text.replace(/(?<=[:,[]\s*)\d{16,}(?=\s*[,}\]])/g, '"\\u0001$&"'),
  (_, value) => (typeof value === 'string' && value[0] === '\u0001' ? BigInt(value.slice(1)) : value),
);

export const stringify = (value) =>
  JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `\u0001${v}` : v)).replace(/"\\u0001(\d+)"/g, '$1');
