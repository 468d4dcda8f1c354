// The short form of `keyreeve demo edge`: one fault in the middle of a mint, and the score of the strict fake Apple.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

// Of seed 1 the first fault is that whoever mints is killed.
const SEED = 1;

test("whoever mints is killed: one token at a time, and no push fails", async (t) => {
  const program = fileURLToPath(new URL("demo-edge.mjs", import.meta.url));
  const child = spawn(process.execPath, [program, "--short", "--json", "--seed", String(SEED)], { stdio: ["ignore", "pipe", "pipe"] });
  t.after(() => child.kill());
  const [out, told] = [[], []];
  child.stdout.on("data", (part) => out.push(part));
  child.stderr.on("data", (part) => told.push(part));
  const code = await new Promise((resolve) => child.on("close", resolve));
  const timeline = Buffer.concat(told).toString();
  assert.equal(code, 0, timeline);
  const { is_clean: isClean, plan, acts } = JSON.parse(Buffer.concat(out).toString());
  assert.deepEqual([isClean, plan.workers.map(({ fault }) => fault), acts.length], [true, ["kill"], 1]);
  const [{ minted, allowed, signed, most_valid_at_once: atOnce, clients, real_ms: ms }] = acts;
  assert.deepEqual([minted, atOnce, clients.failed], [allowed, 1, 0], timeline);
  assert.ok(minted >= 2 && signed > minted, "the token of the mint that was killed was never seen");
  t.diagnostic(`${clients.pushes} pushes in ${(ms / 1000).toFixed(0)} s, ${signed} signed, ${minted} minted, slowest ${clients.slowest_ms} ms`);
});
