// One token for every isolate in the world: cold, warm, over a renewal, and refused to strangers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AUTHORIZED, SECRETS, SHORT_LIFE, TOKEN, complaints, configured, renewals } from "./credential.mjs";
import { World, until } from "./world.mjs";

async function around(options, body) {
  const upstream = await renewals(options);
  const world = await World.start({
    isolates: options.isolates ?? 8, config: configured(upstream, options), secrets: options.secrets ?? SECRETS,
  });
  try {
    await body(world, upstream);
  } finally {
    await world.stop();
    await upstream.stop();
  }
}

test("1,000 cold callers on 8 isolates are one mint", async (t) => {
  // On a busy machine a thousand requests of one process take their time.
  await around({ delayMs: 300, more: `mode = "lease"\nwait = "9s"` }, async (world, upstream) => {
    const asked = Array.from({ length: 1000 }, (_, at) => world.ask(at % 8, TOKEN, AUTHORIZED));
    const answers = await Promise.all(asked);
    const counted = answers.reduce((count, { status, json }) => {
      const key = `${status} ${json?.token ?? json?.type}`;
      return { ...count, [key]: (count[key] ?? 0) + 1 };
    }, {});
    assert.deepEqual(counted, { "200 token-number-1": 1000 });
    assert.equal(upstream.calls, 1);
    const slowest = Math.max(...answers.map(({ ms }) => ms));
    t.diagnostic(`slowest of 1,000 cold answers: ${slowest.toFixed(0)} ms`);
    // Warm: the isolate's own memory answers.
    const warm = await world.ask(3, TOKEN, AUTHORIZED);
    assert.equal(warm.json.token, "token-number-1");
    assert.deepEqual(complaints(world), []);
  });
});

test("a renewal under traffic is seen by everybody, and nobody waits for it", async (t) => {
  const waits = [];
  await around({ lifeS: 12, more: `mode = "lease"\n${SHORT_LIFE}`, isolates: 4 }, async (world, upstream) => {
    await Promise.all([0, 1, 2, 3].map((at) => world.ask(at, TOKEN, AUTHORIZED)));
    upstream.state.delayMs = 1500;
    const seen = new Set();
    await until("three renewals seen by all isolates", async () => {
      const answers = await Promise.all([0, 1, 2, 3].map((at) => world.ask(at, TOKEN, AUTHORIZED)));
      for (const { status, json, ms } of answers) {
        assert.equal(status, 200, JSON.stringify(json));
        assert.ok(Date.parse(json.expires_at) > Date.now(), "never an expired one");
        waits.push(ms);
        seen.add(json.token);
      }
      const now = new Set(answers.map(({ json }) => json.token));
      return now.size === 1 && now.has("token-number-4");
    }, 60_000);
    assert.deepEqual([...seen], ["token-number-1", "token-number-2", "token-number-3", "token-number-4"]);
    waits.sort((a, b) => a - b);
    t.diagnostic(`${waits.length} answers over 3 renewals of 1,500 ms each: slowest ${waits.at(-1).toFixed(0)} ms`);
    assert.ok(waits.at(-1) < 1400, "nobody waited for an upstream that takes 1,500 ms");
    assert.deepEqual(complaints(world), []);
  });
});

test("the alarm renews ahead when nobody asks", async () => {
  await around({ lifeS: 12, more: `mode = "lease"\nkeep = "always"\n${SHORT_LIFE}`, isolates: 1 }, async (world, upstream) => {
    await world.ask(0, TOKEN, AUTHORIZED);
    await until("two renewals without traffic", () => upstream.calls >= 3, 30_000);
    const [first, second, third] = upstream.state.minted;
    assert.ok(second - first < 12_000 && third - second < 12_000, "each before the one before it expired");
    assert.deepEqual(complaints(world), []);
  });
});

test("cron wakes what is kept without demand, before anybody has asked", async () => {
  await around({ more: `mode = "lease"\nkeep = "always"`, isolates: 1 }, async (world, upstream) => {
    await world.scheduled(0);
    await until("a mint", () => upstream.calls === 1);
    assert.deepEqual(complaints(world), []);
  });
});

test("no route is open without a key, and a stranger learns nothing", async () => {
  await around({ more: `mode = "lease"`, isolates: 1 }, async (world, upstream) => {
    const paths = ["", "/up", "/up/token", "/up/history", "/nothing", "/nothing/token"].map((path) => `/v1/credentials${path}`);
    for (const path of paths) {
      for (const headers of [{}, { authorization: "Bearer wrong" }]) {
        const { status, json } = await world.ask(0, path, { headers });
        assert.deepEqual([status, json.type], [401, "urn:keyreeve:problem:unauthenticated"], path);
      }
    }
    for (const path of ["/up/report", "/up/renew", "/up/resolve"]) {
      const { status } = await world.ask(0, `/v1/credentials${path}`, { method: "POST", body: "{}" });
      assert.equal(status, 401, path);
    }
    assert.equal((await world.ask(0, "/v1/register", { method: "POST", body: "x" })).status, 404);
    assert.equal((await world.ask(0, "/record?min_ttl=0")).status, 404);
    assert.equal(upstream.calls, 0);
  });
});

test("a list is true on an isolate that has seen nothing, and after every object was thrown away", async () => {
  await around({ more: `mode = "lease"`, isolates: 2 }, async (world) => {
    const listed = async (at) => {
      const { status, json, text } = await world.ask(at, "/v1/credentials", AUTHORIZED);
      assert.equal(status, 200, text);
      return json.credentials.map(({ name, status, generation, is_wanted, error }) => ({ name, status, generation, is_wanted, error }));
    };
    assert.deepEqual(await listed(1), [{ name: "up", status: null, generation: null, is_wanted: false, error: null }]);
    await world.ask(0, TOKEN, AUTHORIZED);
    const held = [{ name: "up", status: "ready", generation: 1, is_wanted: true, error: null }];
    assert.deepEqual(await listed(1), held);
    await world.restart();
    assert.deepEqual(await listed(1), held, "by what the object has stored");
    assert.deepEqual(complaints(world), []);
  });
});

test("reports renew once for all isolates; a stale one is ignored", async () => {
  await around({ more: `mode = "lease"\n${SHORT_LIFE.replace("12s", "20m").replace("8s", "5m")}`, isolates: 2, lifeS: 1200 }, async (world, upstream) => {
    const { json } = await world.ask(0, TOKEN, AUTHORIZED);
    await world.ask(1, TOKEN, AUTHORIZED);
    const report = (at) =>
      world.ask(at, "/v1/credentials/up/report", {
        method: "POST",
        headers: { ...AUTHORIZED.headers, "content-type": "application/json" },
        body: JSON.stringify({ generation: json.generation, upstream_status: 401 }),
      });
    const results = [await report(0), await report(1)];
    assert.ok(results.every(({ status }) => status === 202), JSON.stringify(results));
    for (const at of [0, 1]) {
      await until(`the next token on isolate ${at}`, async () => (await world.ask(at, TOKEN, AUTHORIZED)).json.generation === 2);
    }
    assert.equal(upstream.calls, 2);
    assert.equal((await report(0)).json.result, "ignored-stale");
  });
});

test("slot mode needs a key and nothing else: every isolate computes the same bytes", async () => {
  const { generateKeyPairSync } = await import("node:crypto");
  const pem = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" });
  const config = `
[caller.app]
key_sha256 = "${(await import("node:crypto")).createHash("sha256").update("k").digest("hex")}"
can = ["token"]
credentials = ["*"]
[credential.apns]
source = "apns"
mode = "slot"
key = "binding:APNS_KEY"
params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
`;
  const world = await World.start({ isolates: 8, config, secrets: { APNS_KEY: pem }, objects: {} });
  try {
    const init = { headers: { authorization: "Bearer k" } };
    const answers = await Promise.all([...Array(64).keys()].map((at) => world.ask(at % 8, "/v1/credentials/apns/token", init)));
    assert.deepEqual(answers.map(({ status }) => status), Array(64).fill(200), answers[0].text);
    assert.equal(new Set(answers.map(({ json }) => json.token)).size, 1);
    assert.match(answers[0].json.token, /^[\w-]+\.[\w-]+\.[\w-]+$/);
    assert.deepEqual(complaints(world), []);
  } finally {
    await world.stop();
  }
});
