// BullMQ's worker: does nothing, or notes when a `stamp` job was dispatched and when it started.
import { openSync, writeSync } from 'node:fs';
import { Worker } from 'bullmq';
import { QUEUE, connect } from './options.mjs';

const stamps = process.env.BENCH_STAMPS ? openSync(process.env.BENCH_STAMPS, 'a') : -1;

async function handle(job) {
  if (job.name !== 'stamp') return;
  const started = process.hrtime.bigint(); // CLOCK_MONOTONIC, as Python's time.monotonic_ns
  writeSync(stamps, `${job.data.sent} ${started}\n`);
}

const worker = new Worker(QUEUE, handle, { connection: connect(), concurrency: 100 });
worker.on('error', (error) => console.error(error));
process.on('SIGTERM', () => process.exit(0));
