// The twin of apps/agent.py: enqueues as the driver says, one JSON command a line, one answer a line.
import { createInterface } from 'node:readline';
import { Queue } from 'bullmq';
import { JOB, QUEUE, connect } from './options.mjs';

const WARM_UP = 50;
const queue = new Queue(QUEUE, { connection: connect(), defaultJobOptions: JOB });
const noop = () => queue.add('noop', {});
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const answer = (value) => process.stdout.write(JSON.stringify(value) + '\n');

async function oneByOne(count) {
  for (let i = 0; i < count; i++) await noop();
}

async function concurrently(count, inFlight, send) {
  let left = count;
  const produce = async () => {
    while (left-- > 0) await send();
  };
  await Promise.all(Array.from({ length: inFlight }, produce));
}

async function bulk(count, batch) {
  for (let first = 0; first < count; first += batch) {
    const jobs = Array.from({ length: Math.min(batch, count - first) }, () => ({ name: 'noop', data: {} }));
    await queue.addBulk(jobs);
  }
}

async function lone(count, pauseMs) {
  for (let i = 0; i < count; i++) {
    await queue.add('stamp', { sent: process.hrtime.bigint().toString() });
    await sleep(pauseMs * (0.5 + Math.random()));
  }
}

const commands = {
  warm_up: () => oneByOne(WARM_UP),
  one_by_one: ({ count }) => oneByOne(count),
  concurrent: ({ count, in_flight }) => concurrently(count, in_flight, noop),
  bulk: ({ count, batch }) => bulk(count, batch),
  payload: ({ count, in_flight, body }) => concurrently(count, in_flight, () => queue.add('payload', { body })),
  lone: ({ count, pause_ms }) => lone(count, pause_ms),
};

await queue.waitUntilReady();
answer({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const started = performance.now();
  await commands[command.do](command);
  answer({ seconds: (performance.now() - started) / 1000 });
}
process.exit(0);
