// The ground that all other tests of the Worker stand on: it starts, in several isolates, for little CPU; and slot mode,
// which needs nothing but a key.
import assert from "node:assert/strict";
import { createHash, createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AUTHORIZED, KEY, TOKEN } from "./credential.mjs";
import { World, environment } from "./world.mjs";

const ISOLATES = 4;
// The platform allows a second to load the modules and to run what stands outside of functions.
const START_CPU_MS_MAX = 50;
// The first request of an isolate also reads the key and makes the site, and the runtime compiles each function of the wasm
// when it is first called.
const FIRST_CPU_MS_MAX = 150;
const RUNS = 4;
const RUNS_MAX = 16;
const apple = generateKeyPairSync("ec", { namedCurve: "P-256" });
const SLOTS = {
  // No object, no cache, no KV: no isolate asks anybody.
  objects: {},
  secrets: { APPLE_KEY: apple.privateKey.export({ type: "pkcs8", format: "pem" }) },
  config: `
[caller.app]
key_sha256 = "${createHash("sha256").update(KEY).digest("hex")}"
can = ["token"]
credentials = ["*"]
[credential.up]
source = "apns"
mode = "slot"
key = "binding:APPLE_KEY"
params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
`,
};

test("isolates that share nothing but a key compute the same token", async () => {
  const world = await World.start({ isolates: ISOLATES, ...SLOTS });
  try {
    const tokens = new Set();
    for (let at = 0; at < ISOLATES; at += 1) {
      const alive = await world.ask(at, "/livez");
      assert.equal(alive.status, 200, alive.text);
      assert.equal(alive.headers.get("content-length"), String(alive.text.length), "one buffer, with its length");
      const answer = await world.ask(at, TOKEN, AUTHORIZED);
      assert.equal(answer.status, 200, answer.text);
      tokens.add(answer.json.token);
    }
    assert.equal(tokens.size, 1);
    const [header, claims, signature] = [...tokens][0].split(".");
    const key = { key: createPublicKey(apple.publicKey.export({ type: "spki", format: "pem" })), dsaEncoding: "ieee-p1363" };
    assert.ok(verify("sha256", Buffer.from(`${header}.${claims}`), key, Buffer.from(signature, "base64url")));
  } finally {
    await world.stop();
  }
});

/** CPU that workerd has used when an isolate is there, and what the first answer takes: a token. */
async function cpu(build) {
  const world = await World.start({ ...SLOTS, isolates: 1, build });
  try {
    const startMs = world.cpuMs();
    const answer = await world.ask(0, TOKEN, AUTHORIZED);
    assert.equal(answer.status, 200, answer.text);
    return { startMs, firstMs: world.cpuMs() - startMs };
  } finally {
    await world.stop();
  }
}

test(`start-up takes no more than ${START_CPU_MS_MAX} ms of CPU`, async (t) => {
  // workerd itself takes CPU to start, so the Worker's share is what it takes beyond a Worker that does nothing.
  const nothing = mkdtempSync(join(tmpdir(), "keyreeve-nothing-"));
  try {
    writeFileSync(join(nothing, "index.js"), `export default { fetch: () => new Response("{}") };`);
    const [idle, ours] = [[], []];
    const least = (runs, what) => Math.min(...runs.map((run) => run[what]));
    let startMs, firstMs;
    // Whatever else the machine does only ever adds: the least of several runs is the nearest, and more of them nearer.
    do {
      idle.push(await cpu(nothing));
      ours.push(await cpu(environment("KEYREEVE_WORKER")));
      startMs = least(ours, "startMs") - least(idle, "startMs");
      firstMs = least(ours, "firstMs") - least(idle, "firstMs");
    } while (ours.length < RUNS || (ours.length < RUNS_MAX && (startMs > START_CPU_MS_MAX || firstMs > FIRST_CPU_MS_MAX)));
    t.diagnostic(`CPU of start-up: ${startMs.toFixed(1)} ms; of the first token in a new isolate: ${firstMs.toFixed(1)} ms`);
    assert.ok(startMs <= START_CPU_MS_MAX, `start-up: ${startMs} ms`);
    assert.ok(firstMs <= FIRST_CPU_MS_MAX, `first token: ${firstMs} ms`);
  } finally {
    rmSync(nothing, { recursive: true });
  }
});
