/**
 * `socket.io-client` from npm: section 13.7.
 *
 * Owns: frames as events, envelopes as attachments. Does not know about: what the frames say.
 */
import { io } from 'socket.io-client';
import { errand, run } from './errand.mjs';

const withBytes = (fields) => ('envelope' in fields
  ? { ...fields, envelope: Buffer.from(fields.envelope, 'base64url') } : fields);

const open = (onFrame, onEnd) => new Promise((resolve, reject) => {
  const socket = io(`${errand.url}/e2ee`, { transports: ['websocket'], forceNew: true, reconnection: false });
  socket.on('connect_error', reject);
  socket.on('disconnect', onEnd);
  socket.onAny((name, fields) => onFrame(name, fields));
  // Engine.IO's own heartbeat, which the library answers.
  socket.io.on('ping', () => onFrame('heartbeat', {}));
  socket.on('connect', () => resolve({
    say: (name, fields) => socket.emit(name, withBytes(fields)),
    close: () => socket.disconnect(),
  }));
});

await run(open);
