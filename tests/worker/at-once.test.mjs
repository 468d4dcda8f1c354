// Most requests are answered without a promise, from three texts (crates/worker/src/now.rs). Nobody can tell by the answer.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { AUTHORIZED, KEY, SECRETS, TOKEN, complaints, configured, renewals } from "./credential.mjs";
import { Upstream } from "./upstream.mjs";
import { World, environment, until } from "./world.mjs";

let upstream, world;
before(async () => {
  upstream = await renewals();
  // The build for tests says in its log which requests take the long way.
  const build = environment("KEYREEVE_WORKER_TESTING");
  world = await World.start({ isolates: 4, build, config: configured(upstream, { more: `mode = "lease"` }), secrets: SECRETS });
});
after(async () => {
  await world?.stop();
  await upstream?.stop();
});

/** Every byte of an answer that is not another each time: status line, headers in their order, body. */
function bytes(at, { method = "GET", path = TOKEN, headers = {} } = {}) {
  const url = world.url(at);
  const options = { host: url.hostname, port: url.port, method, path, agent: false, headers: { authorization: `Bearer ${KEY}`, ...headers } };
  return new Promise((resolve, reject) => {
    const sent = request(options, async (answer) => {
      const parts = [];
      for await (const part of answer) parts.push(part);
      const pairs = answer.rawHeaders.flatMap((name, place) => (place % 2 === 0 ? [[name, answer.rawHeaders[place + 1]]] : []));
      const lines = pairs.filter(([name]) => name.toLowerCase() !== "date").map((pair) => pair.join(": "));
      const still = lines.map((line) => line.replace(/(x-request-id: )[0-9a-f]{16}$/i, "$1ID").replace(/max-age=\d+/, "max-age=S"));
      resolve([`${answer.httpVersion} ${answer.statusCode} ${answer.statusMessage}`, ...still, "", Buffer.concat(parts).toString()].join("\n"));
    });
    sent.on("error", reject).end();
  });
}

/** How many requests have taken the long way so far. The log comes by a pipe: a last one marks its end. */
async function theLongWay() {
  const mark = `/mark-${Math.random()}`;
  await world.ask(0, mark);
  await until("the mark in the log", () => world.log.some((line) => line.includes(mark)));
  return world.log.filter((line) => line.includes("the long way: ") && !line.includes("/mark-")).length;
}

test("an answer at once is the one that takes the long way, to the byte", async () => {
  // The first request of an isolate takes the long way, whatever it is.
  const [first, again] = [await bytes(0), await bytes(0)];
  assert.match(first, /^1\.1 200 OK\n/);
  assert.match(first, /\nx-request-id: ID\n/i);
  assert.equal(again, first);
  const tag = first.match(/\netag: ("g1-[0-9a-f]+")\n/i)[1];
  const known = { headers: { "if-none-match": `W/${tag}` } };
  const [unchanged, stillUnchanged] = [await bytes(1, known), await bytes(1, known)];
  assert.match(unchanged, /^1\.1 304 Not Modified\n/);
  assert.equal(stillUnchanged, unchanged);
  assert.equal(await bytes(1), first);
  const live = { path: "/livez" };
  const [alive, stillAlive] = [await bytes(2, live), await bytes(2, live)];
  assert.equal(stillAlive, alive);
  assert.deepEqual(complaints(world), []);
});

test("what is there is answered at once, and the rest the long way", async () => {
  const ask = (init) => world.ask(3, init.path ?? TOKEN, { ...AUTHORIZED, ...init });
  const counted = async (init, status) => {
    const before = await theLongWay();
    assert.equal((await ask(init)).status, status, JSON.stringify(init));
    return (await theLongWay()) - before;
  };
  assert.equal(await counted({}, 200), 1, "the first of an isolate");
  assert.equal(await counted({}, 200), 0);
  assert.equal(await counted({ path: `${TOKEN}?min_ttl=5m` }, 200), 0);
  const tag = (await ask({})).headers.get("etag");
  assert.equal(await counted({ headers: { ...AUTHORIZED.headers, "if-none-match": tag } }, 304), 0);
  for (const [init, status] of [
    [{ method: "HEAD" }, 200],
    [{ headers: {} }, 401],
    [{ headers: { authorization: "Bearer wrong" } }, 401],
    [{ path: "/v1/credentials/nothing/token" }, 404],
    [{ path: `${TOKEN}?min_ttl=2h` }, 409],
    [{ path: `${TOKEN}?ttl=1s` }, 400],
    [{ method: "POST" }, 405],
    [{ path: "/v1/credentials" }, 200],
  ]) {
    assert.equal(await counted(init, status), 1, JSON.stringify(init));
  }
  const ids = new Set();
  for (let time = 0; time < 100; time += 1) ids.add((await ask({})).headers.get("x-request-id"));
  assert.equal(ids.size, 100, "an id for each");
});

test("many credentials at once are not taken for one another", async () => {
  const service = await Upstream.start(({ url }) => ({ text: JSON.stringify({ token: `token-of${url.replace("/", "-")}`, expires_in: 3600 }) }));
  const names = Array.from({ length: 80 }, (_, at) => `many-${at}`);
  const credential = (name) => `[credential.${name}]\nsource = "http"\nmode = "lease"\nurl = "${service.url}/${name}"\nmap = { token = "/token", expires_in = "/expires_in" }`;
  const config = `
seal.keys = ["binding:SEAL_KEY"]
[caller.app]
key_sha256 = "${createHash("sha256").update(KEY).digest("hex")}"
can = ["token", "list"]
credentials = ["*"]
${names.map(credential).join("\n")}`;
  const many = await World.start({ isolates: 2, config, secrets: SECRETS });
  try {
    for (let time = 0; time < 3; time += 1) {
      for (const name of names) {
        const { json, text } = await many.ask(0, `/v1/credentials/${name}/token`, AUTHORIZED);
        assert.equal(json.token, `token-of-${name}`, text);
      }
    }
    // An isolate that has seen none of them asks their objects, a page at a time.
    const listed = [];
    let path = "/v1/credentials";
    for (;;) {
      const { json } = await many.ask(1, path, AUTHORIZED);
      assert.ok(json.credentials.length <= 32, "no request asks more objects than that");
      listed.push(...json.credentials);
      if (!json.next_after) break;
      path = `/v1/credentials?after=${json.next_after}`;
    }
    assert.deepEqual(listed.map(({ name }) => name), names.toSorted());
    assert.deepEqual(new Set(listed.map(({ status, generation }) => `${status} ${generation}`)), new Set(["ready 1"]));
    assert.deepEqual(complaints(many), []);
  } finally {
    await many.stop();
    await service.stop();
  }
});
