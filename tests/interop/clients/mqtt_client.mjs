/**
 * The `mqtt` package from npm: section 13.13.
 *
 * Owns: the account, topics, Correlation Data, frames as text. Does not know about: what the frames say.
 */
import { randomBytes } from 'node:crypto';
import mqtt from 'mqtt';
import { errand, run } from './errand.mjs';

const account = async () => {
  const reply = await fetch(`${errand.url}/e2ee/mqtt`, {
    method: 'POST', headers: { Authorization: `Bearer ${errand.token}` }, redirect: 'error',
  });
  if (!reply.ok) throw new Error(`no account: ${reply.status}`);
  return (await reply.json()).access;
};

const open = async (onFrame, onEnd) => {
  const access = await account();
  const correlationData = randomBytes(16);
  const client = await mqtt.connectAsync(access.broker, {
    protocolVersion: 5,
    clientId: access.client_id,
    username: access.username,
    password: access.password,
    clean: true,
    reconnectPeriod: 0,
    properties: { sessionExpiryInterval: 0 },
    will: { topic: access.up, payload: Buffer.alloc(0), qos: 1, retain: false, properties: { correlationData } },
  });
  client.on('message', (topic, payload, packet) => {
    const ours = packet.properties?.correlationData;
    if (topic === access.news || (ours && correlationData.equals(ours))) onFrame(...JSON.parse(payload.toString()));
  });
  client.on('close', () => onEnd('the broker closed the connection'));
  await client.subscribeAsync([access.down, access.news], { qos: 1 });
  return {
    say: (name, fields) => client.publish(
      access.up,
      JSON.stringify([name, fields]),
      { qos: 1, properties: { correlationData } },
      (error, packet) => {
        if (error || packet?.reasonCode === 0x10) onEnd('nobody serves this device');
      },
    ),
    close: () => client.end(false, { reasonCode: 0x04 }),
  };
};

await run(open);
