/**
 * The `ws` package from npm: section 13.9.
 *
 * Owns: frames as text. Does not know about: what the frames say.
 */
import WebSocket from 'ws';
import { errand, run } from './errand.mjs';

const open = (onFrame, onEnd) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`${errand.url.replace('http', 'ws')}/e2ee/ws`, { perMessageDeflate: false });
  socket.on('error', reject);
  socket.on('close', (code) => onEnd(`closed with ${code}`));
  socket.on('message', (data, isBinary) => {
    if (isBinary) throw new Error('a binary message');
    onFrame(...JSON.parse(data.toString()));
  });
  socket.on('open', () => resolve({
    say: (name, fields) => socket.send(JSON.stringify([name, fields])),
    close: () => socket.close(),
  }));
});

await run(open);
