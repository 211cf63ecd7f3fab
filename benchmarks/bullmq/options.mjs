// BullMQ, tuned: ioredis, 100 jobs at once, finished jobs removed at once, no metrics, no telemetry.
import { Redis } from 'ioredis';

export const QUEUE = 'bench';
export const JOB = { removeOnComplete: true, removeOnFail: true };

export function connect() {
  // Null is what BullMQ demands of a worker's connection.
  return new Redis(process.env.BENCH_REDIS_URL, { maxRetriesPerRequest: null });
}
