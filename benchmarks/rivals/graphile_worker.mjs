// graphile-worker: local queue of 500, completions batched, 24 jobs at a time: what its own performance page uses.
//
//     node graphile_worker.mjs prepare|drain|work DATABASE_URL [MESSAGES]
//
// Prints what contestant.py prints. Run from a folder in which graphile-worker is installed.
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const { Logger, run, runMigrations } = require("graphile-worker");
const { Pool } = require("pg");

const [action, connectionString, messages] = process.argv.slice(2);
const count = Number(messages ?? 0);
const logger = new Logger(() => () => {});
const pgPool = new Pool({ connectionString, max: 25 });
pgPool.on("error", () => {});
pgPool.on("connect", (client) => client.on("error", () => {}));
let handled = 0;
let claims = [];

if (action === "prepare") {
  await runMigrations({ pgPool, preset: { worker: { logger } } });
  await pgPool.query("INSERT INTO graphile_worker._private_tasks (identifier) VALUES ('noop') ON CONFLICT DO NOTHING");
} else {
  await work();
}
await pgPool.end();

async function work() {
  let allHandled;
  const done = new Promise((resolve) => (allHandled = resolve));
  if (!count) {
    timeClaims();
    setInterval(tell, 1000);
  }
  const beganAt = performance.now();
  const runner = await run({
    pgPool,
    noHandleSignals: true,
    taskList: {
      noop: async () => {
        if (++handled === count) {
          console.log(JSON.stringify({ rate: count / ((performance.now() - beganAt) / 1000) }));
          allHandled();
        }
      },
    },
    preset: {
      worker: {
        logger,
        pollInterval: 50,
        concurrentJobs: 24,
        maxPoolSize: 25,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  await done;
  await runner.stop();
}

function timeClaims() {
  pgPool.on("connect", (client) => {
    const query = client.query.bind(client);
    client.query = async (config, ...rest) => {
      const beganAt = performance.now();
      const found = await query(config, ...rest);
      if (String(config?.name).startsWith("get_job")) claims.push(performance.now() - beganAt);
      return found;
    };
  });
}

function tell() {
  const sorted = claims.sort((a, b) => a - b);
  claims = [];
  const claim_ms = sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
  console.log(JSON.stringify({ at: Number(process.hrtime.bigint()) / 1e9, handled, claim_ms }));
}
