// What the Worker costs in workerd, beside small Workers of JavaScript in the same run.
//   tests/worker/run --node bench/worker.mjs [--rounds N] [--requests N]
// CPU is that of the workerd process, as the kernel's scheduler counts it (schedstat); the load comes from this process. Rounds
// alternate, medians are printed. Calls of objects are counted at the object: a subclass of it writes a line for each.
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { AUTHORIZED, KEY, SECRETS, TOKEN, configured, renewals } from "../tests/worker/credential.mjs";
import { CONNECTIONS, constant, load } from "../tests/worker/load.mjs";
import { World, environment, npm, until } from "../tests/worker/world.mjs";

const { values: options } = parseArgs({ options: { rounds: { type: "string", default: "7" }, requests: { type: "string", default: "6000" } } });
const ROUNDS = Number(options.rounds);
const REQUESTS = Number(options.requests);
/** Credentials that a cold isolate finds in the cache, one after the other. */
const COLD = 400;

const folder = mkdtempSync(join(tmpdir(), "keyreeve-bench-"));
const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
const us = (ms, times) => (ms * 1000) / times;
const say = (...cells) => console.log(cells.join(" "));
const row = (name, ...cells) => say(name.padEnd(44), ...cells.map((cell) => String(cell).padStart(12)));

/** A Worker of JavaScript alone. */
function script(name, text) {
  mkdirSync(join(folder, name));
  writeFileSync(join(folder, name, "index.js"), text);
  return join(folder, name);
}

// The shape of multistore's credential cache: a Map by name, an expiry with a margin, a fresh JSON body for each answer.
const memory = (fields) => `const held = new Map();
const mint = async (name) => ({ ...${JSON.stringify(fields)}, name, expires_at_ms: Date.now() + 3_600_000 });
export default {
  async fetch(request) {
    const [, , , name] = new URL(request.url).pathname.split("/");
    if (!request.headers.get("authorization")?.startsWith("Bearer ")) return new Response("", { status: 401 });
    let one = held.get(name);
    if (!one || one.expires_at_ms - 60_000 < Date.now()) {
      one = await mint(name);
      held.set(name, one);
    }
    return Response.json(one, { headers: { "cache-control": "private, max-age=60" } });
  },
};
`;

// What one look into the cache costs where nothing is sealed, checked or decoded.
const matching = (body) => `export default {
  async fetch(request) {
    const key = "https://cache.invalid" + new URL(request.url).pathname;
    const found = await caches.default.match(key);
    if (found) return new Response(await found.text(), { headers: { "content-type": "application/json" } });
    await caches.default.put(key, new Response(${JSON.stringify(body)}, { headers: { "cache-control": "max-age=3600" } }));
    return new Response("{}");
  },
};
`;

/** The Worker with an object that says what it is asked. */
async function counting() {
  const build = environment("KEYREEVE_WORKER");
  const { buildSync } = await npm("esbuild");
  mkdirSync(join(folder, "counting"));
  copyFileSync(join(build, "keyreeve.wasm"), join(folder, "counting", "keyreeve.wasm"));
  buildSync({
    stdin: {
      contents: `import { Keyreeve as Real } from "./index.js";
export * from "./index.js";
export { default } from "./index.js";
export class Counting extends Real {
  fetch(request) { console.log("object-call", new URL(request.url).pathname); return super.fetch(request); }
}`,
      resolveDir: build,
    },
    bundle: true, format: "esm", external: ["./keyreeve.wasm", "cloudflare:*"], outfile: join(folder, "counting", "index.js"),
  });
  return join(folder, "counting");
}

async function warm(upstream) {
  const worlds = [];
  try {
    const ours = await World.start({ isolates: 1, config: configured(upstream), secrets: SECRETS });
    worlds.push(ours);
    const answer = await ours.ask(0, TOKEN, AUTHORIZED);
    const candidates = [["keyreeve, warm GET token", ours]];
    for (const [name, text] of [["constant of the same size, JavaScript", constant(answer.text)], ["Map with expiry, JavaScript", memory(answer.json)]]) {
      worlds.push(await World.start({ isolates: 1, build: script(name, text), objects: {} }));
      candidates.push([name, worlds.at(-1)]);
    }
    const measured = candidates.map(() => ({ cpu: [], perSecond: [] }));
    // The first round warms the machine code up, and is thrown away.
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const [at, [, world]] of candidates.entries()) {
        const before = world.cpuMs();
        const ms = await load(world.url(0), Array(REQUESTS).fill(TOKEN));
        if (round === 0) continue;
        measured[at].cpu.push(us(world.cpuMs() - before, REQUESTS));
        measured[at].perSecond.push((REQUESTS * 1000) / ms);
      }
    }
    say(`\nwarm, ${CONNECTIONS} connections, ${answer.text.length} bytes of JSON, median of ${ROUNDS} rounds of ${REQUESTS}`);
    row("", "us CPU", "times", "requests/s");
    const base = median(measured[1].cpu);
    for (const [at, [name]] of candidates.entries()) {
      const cpu = median(measured[at].cpu);
      row(name, cpu.toFixed(0), (cpu / base).toFixed(2), median(measured[at].perSecond).toFixed(0));
    }
  } finally {
    for (const world of worlds) await world.stop();
  }
}

// A Worker that takes a token over its binding and answers with a constant; beside it the same binding to a constant.
const caller = (key) => `
export default {
  async fetch(request, env) {
    if (new URL(request.url).pathname === "/rpc") {
      if (!(await env.KEYREEVE.token(${JSON.stringify(key)}, "up")).token) throw new Error("no token");
    } else {
      const answer = await env.KEYREEVE.fetch("https://keyreeve.invalid${TOKEN}", { headers: { authorization: "Bearer ${key}" } });
      if (!(await answer.json()).token) throw new Error("no token");
    }
    return new Response("{}");
  },
};`;
const entrypoint = (fields) => `import { WorkerEntrypoint } from "cloudflare:workers";
const fields = ${JSON.stringify(fields)};
export default class extends WorkerEntrypoint {
  token() { return fields; }
  fetch() { return Response.json(fields); }
}`;

async function bound(upstream) {
  const workers = [{
    name: "caller", compatibilityDate: "2026-04-01", serviceBindings: { KEYREEVE: "isolate-0" },
    modules: [{ type: "ESModule", path: "caller.mjs", contents: caller(KEY) }],
    unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
  }];
  const ours = await World.start({ isolates: 1, config: configured(upstream), secrets: SECRETS, workers });
  let plain;
  try {
    const answer = await ours.ask(0, TOKEN, AUTHORIZED);
    plain = await World.start({ isolates: 1, build: script("entrypoint", entrypoint(answer.json)), objects: {}, workers });
    const candidates = [["RPC to a constant", plain, "/rpc"], ["RPC to keyreeve", ours, "/rpc"], ["fetch of a constant", plain, "/fetch"], ["fetch of keyreeve", ours, "/fetch"]];
    const measured = candidates.map(() => []);
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const [at, [, world, path]] of candidates.entries()) {
        const url = new URL(await world.direct("caller"));
        const before = world.cpuMs();
        await load(url, Array(REQUESTS / 2).fill(path));
        if (round > 0) measured[at].push(us(world.cpuMs() - before, REQUESTS / 2));
      }
    }
    say(`\nfrom another Worker over its service binding, both isolates counted`);
    row("", "us CPU");
    for (const [at, [name]] of candidates.entries()) row(name, median(measured[at]).toFixed(0));
  } finally {
    await ours.stop();
    await plain?.stop();
  }
}

async function cold(upstream) {
  const names = Array.from({ length: COLD + 1 }, (_, at) => `up-${at}`);
  const more = names.map((name) => `[credential.${name}]\nsource = "http"\nurl = "${upstream.url}/${name}"\nmap = { token = "/token", expires_in = "/expires_in" }`);
  const path = (name) => `/v1/credentials/${name}/token`;
  const body = "x".repeat(600);
  const world = await World.start({ isolates: 2, config: configured(upstream, { caches: `["cache"]`, tail: more.join("\n") }), secrets: SECRETS });
  const plain = await World.start({ isolates: 2, build: script("matching", matching(body)), objects: {} });
  try {
    const through = async (one, at, wanted) => {
      const started = one.cpuMs();
      await load(one.url(at), wanted.map(path));
      return us(one.cpuMs() - started, wanted.length);
    };
    for (const one of [world, plain]) await through(one, 0, names);
    const entries = await until("every credential in the cache", async () => {
      const found = await world.cacheEntries();
      return found.length >= names.length && found.length;
    });
    // Start-up is not what is measured: the first answer of an isolate has it.
    for (const one of [world, plain]) await through(one, 1, names.slice(0, 1));
    const rest = names.slice(1);
    const calls = upstream.calls;
    const hit = await through(world, 1, rest);
    if (upstream.calls !== calls) throw new Error("something was minted anew");
    const again = await through(world, 1, rest);
    const baseline = await through(plain, 1, rest);
    say(`\nfirst look of a cold isolate, found in the cache (${entries} entries; Miniflare's cache is a Worker in the same process), ${COLD} credentials`);
    row("", "us CPU");
    row("keyreeve, from the cache (L2)", hit.toFixed(0));
    row("the same again, from memory (L1)", again.toFixed(0));
    row("cache.match and answer, JavaScript", baseline.toFixed(0));
    row("L2 less L1", (hit - again).toFixed(0));
    row("L2 less cache.match", (hit - baseline).toFixed(0));
  } finally {
    await world.stop();
    await plain.stop();
  }
}

async function calls(build) {
  say("\ncalls of the object");
  for (const caches of [`["cache"]`, "[]"]) {
    const upstream = await renewals({ delayMs: 100 });
    const world = await World.start({
      isolates: 4, build, config: configured(upstream, { caches }), secrets: SECRETS, objects: { KEYREEVE: "Counting" },
    });
    try {
      const counted = async () => {
        // The log comes by a pipe: a marker that is written last has all before it.
        await new Promise((resolve) => setTimeout(resolve, 300));
        return world.log.filter((line) => line.includes("object-call")).length;
      };
      const ask = async (at) => {
        const { status, text } = await world.ask(at, TOKEN, AUTHORIZED);
        if (status !== 200) throw new Error(text);
      };
      await Promise.all(Array.from({ length: 100 }, () => ask(0)));
      const mint = await counted();
      for (const at of [1, 2, 3]) await Promise.all(Array.from({ length: 100 }, () => ask(at)));
      const isolates = (await counted()) - mint;
      for (const at of [0, 1, 2, 3]) await load(world.url(at), Array(1000).fill(TOKEN));
      const warmReads = (await counted()) - mint - isolates;
      row(`caches = ${caches}`, `${mint} mint`, `${isolates} by 3 cold isolates,`, `${warmReads} by 4,000 warm reads; upstream ${upstream.calls}`);
    } finally {
      await world.stop();
      await upstream.stop();
    }
  }
}

try {
  say(`${new Date().toISOString()}, ${cpus().length} x ${cpus()[0].model.trim()}, load average ${loadavg().map((one) => one.toFixed(1)).join(" ")}`);
  const upstream = await renewals();
  try {
    await warm(upstream);
    await bound(upstream);
    await cold(upstream);
  } finally {
    await upstream.stop();
  }
  await calls(await counting());
  say(`\nload average at the end ${loadavg().map((one) => one.toFixed(1)).join(" ")}`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
