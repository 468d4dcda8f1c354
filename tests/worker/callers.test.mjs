// Who uses a credential of a Worker's: a Worker in JavaScript, a Worker in Rust, and a client outside.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { AUTHORIZED, KEY, SECRETS, TOKEN, complaints, configured, renewals } from "./credential.mjs";
import { World, environment, npm } from "./world.mjs";

const EXAMPLES = new URL("../../examples/", import.meta.url);
const BOUND = { serviceBindings: { KEYREEVE: "isolate-0" }, bindings: { KEYREEVE_KEY: KEY } };

let upstream, world;
before(async () => {
  upstream = await renewals();
  world = await World.start({
    isolates: 1, config: configured(upstream, { more: `mode = "lease"` }), secrets: SECRETS,
    workers: [await honoWorker(), rustWorker(), strangerWorker()],
  });
});
after(async () => {
  await world?.stop();
  await upstream?.stop();
});

/** examples/hono as wrangler would bundle it. */
async function honoWorker() {
  const esbuild = await npm("esbuild");
  const built = await esbuild.build({
    entryPoints: [new URL("hono/index.mjs", EXAMPLES).pathname],
    bundle: true, format: "esm", write: false, nodePaths: [join(environment("KEYREEVE_WORKER_NODE_DIR"), "node_modules")],
  });
  const modules = [{ type: "ESModule", path: "index.mjs", contents: built.outputFiles[0].text }];
  return { name: "hono", compatibilityDate: "2026-04-01", modules, ...BOUND };
}

/** examples/rust-worker, built by scripts/build-worker --example. */
function rustWorker() {
  const folder = environment("KEYREEVE_WORKER_EXAMPLE");
  const modules = [
    { type: "ESModule", path: "index.js", contents: readFileSync(join(folder, "index.js"), "utf8") },
    { type: "CompiledWasm", path: "keyreeve.wasm", contents: readFileSync(join(folder, "keyreeve.wasm")) },
  ];
  return { name: "rust", compatibilityDate: "2026-04-01", modules, ...BOUND };
}

/** A Worker with the binding and without a key: what it is told. */
function strangerWorker() {
  const script = `
export default {
  async fetch(request, env) {
    const [, key, name, minTtl] = new URL(request.url).pathname.split("/");
    try {
      return Response.json(await env.KEYREEVE.token(key, name, minTtl));
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
  },
};`;
  const modules = [{ type: "ESModule", path: "index.mjs", contents: script }];
  return { name: "stranger", compatibilityDate: "2026-04-01", modules, serviceBindings: BOUND.serviceBindings };
}

const ask = async (name, path) => {
  const answer = await (await world.worker(name)).fetch(`https://caller.example${path}`);
  return { status: answer.status, text: await answer.text() };
};

test("a Worker in JavaScript takes the credential over RPC", async () => {
  const { status, text } = await ask("hono", "/push");
  assert.equal(status, 200, text);
  assert.equal(JSON.parse(text).has, "token-number");
});

test("a Worker in Rust takes it over a service fetch", async () => {
  const { status, text } = await ask("rust", "/");
  assert.equal(status, 200, text);
  assert.match(text, /^token-number until 20/);
});

test("a client outside takes it with an API key", async () => {
  const { status, json } = await world.ask(0, TOKEN, AUTHORIZED);
  assert.deepEqual([status, json.token], [200, "token-number-1"]);
});

test("a binding makes nobody a caller: RPC has the checks of HTTP", async () => {
  assert.match((await ask("stranger", "/wrong/up")).text, /^Error: unauthenticated: /);
  assert.match((await ask("stranger", `/${KEY}/nothing`)).text, /^Error: not-found: /);
  assert.match((await ask("stranger", `/${KEY}/UP`)).text, /^Error: malformed-request: /);
  assert.match((await ask("stranger", `/${KEY}/up/2h`)).text, /^Error: life-too-short: /);
  assert.equal(JSON.parse((await ask("stranger", `/${KEY}/up/1m`)).text).token, "token-number-1");
});

test("all of them were one mint", () => {
  assert.equal(upstream.calls, 1);
  assert.deepEqual(complaints(world), []);
});
