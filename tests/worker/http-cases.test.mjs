// The HTTP API is one: the list of http-cases.mjs, asked of a native node and of a Worker.
import assert from "node:assert/strict";
import { createHash, generateKeyPairSync } from "node:crypto";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { SECRETS } from "./credential.mjs";
import { CALLERS, CASES, JWKS } from "./http-cases.mjs";
import { Folder, Native } from "./native.mjs";
import { Upstream } from "./upstream.mjs";
import { DEADLINE_MS, World, until } from "./world.mjs";

const APPLE_KEY = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" });
// What a connection has, and no answer of ours.
const TRANSPORT = ["connection", "date", "keep-alive", "transfer-encoding"];

const homes = {};
const tags = {};
const ending = [];
before(async () => {
  const folder = new Folder();
  ending.push(() => folder.remove());
  const keys = { seal: folder.secret("seal.key", SECRETS.SEAL_KEY), apple: folder.secret("apple.p8", APPLE_KEY), jwks: folder.secret("jwks.json", JWKS) };
  const native = await Native.start(folder, "durable-object", configured(await service(), `sqlite:${folder.path}/state.db`, keys));
  ending.push(() => native.kill());
  homes.native = native.url;
  const config = configured(await service(), "do:KEYREEVE", { seal: "binding:SEAL_KEY", apple: "binding:APPLE_KEY", jwks: "binding:JWKS" });
  const world = await World.start({ isolates: 1, config, secrets: { ...SECRETS, APPLE_KEY, JWKS } });
  ending.push(() => world.stop());
  homes.worker = world.url(0).href;
});
after(async () => {
  for (const one of ending.reverse()) await one();
});

/** Who mints: by path, each counting for itself. `/broken` says no, and the first answer of `/doubted` is lost. */
async function service() {
  const counts = {};
  const upstream = await Upstream.start(({ url }) => {
    if (url === "/broken") return { status: 403, text: "no" };
    if (url === "/doubted" && !counts.lost) return void (counts.lost = true);
    const number = (counts[url] = (counts[url] ?? 0) + 1);
    const body = { token: `token-number-${number}`, id: `id-${number}`, secret: `secret-${number}`, expires_in: 3600 };
    return { text: JSON.stringify(body) };
  });
  ending.push(() => upstream.stop());
  return upstream.url;
}

function configured(service, store, { seal, apple, jwks }) {
  const callers = Object.entries(CALLERS).map(([name, { can, credentials }]) => `
[caller.${name}]
key_sha256 = "${createHash("sha256").update(`key-${name}`).digest("hex")}"
can = ${JSON.stringify(can)}
${credentials.length > 0 ? `credentials = ${JSON.stringify(credentials)}` : ""}`);
  const http = (name, path, map, more) => `
[credential.${name}]
source = "http"
url = "${service}${path}"
map = ${map}
${more}`;
  const token = `{ token = "/token", expires_in = "/expires_in" }`;
  const fields = `{ fields = { AccessKeyId = "/id", SecretAccessKey = "/secret" }, expires_in = "/expires_in" }`;
  const at_once = `mode = "lease"\nlife = { min_interval = "100ms", spread = "0s", jitter = "0s" }`;
  return `
store.url = "${store}"
seal.keys = ["${seal}"]
${callers.join("\n")}
${http("up", "/up", token, at_once)}
${http('"acme/lake"', "/lake", fields, at_once)}
${http("unasked", "/unasked", token, at_once)}
${http("calm", "/calm", token, `mode = "exclusive"\nfirst_mint = "now"`)}
${http("doubted", "/doubted", token, `${at_once}\non_doubt = "reauth"`)}
${http("broken", "/broken", token, at_once)}
[credential.slotted]
source = "apns"
mode = "slot"
key = "${apple}"
params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
[verifier.outside]
issuer = "https://issuer.example"
audience = "orders"
keys = ["${jwks}"]
[gate.orders]
kind = "auth"
[[policy]]
who = "verifier:outside[permissions has 'orders:write']"
can = "POST /orders/*"
on = "gate:orders"
[[policy]]
who = "verifier:outside"
can = "GET /orders/**"
on = "gate:orders"
`;
}

/** Sends a case as it stands, and reads the answer; of a stream only the beginning. */
function ask(home, { as, method = "GET", path, headers = {}, body, streams }) {
  const url = new URL(homes[home]);
  const sent = { ...(as ? { authorization: `Bearer key-${as}` } : {}), ...headers };
  if (sent["if-none-match"]) sent["if-none-match"] = sent["if-none-match"].replace("ETAG", tags[home]);
  if (body !== undefined) sent["content-length"] = Buffer.byteLength(body);
  const options = { host: url.hostname, port: url.port, method, path, headers: sent, agent: false, timeout: DEADLINE_MS };
  return new Promise((resolve, reject) => {
    const asked = request(options, (answer) => {
      const parts = [];
      const end = () => {
        const text = Buffer.concat(parts).toString();
        const json = /json/.test(answer.headers["content-type"] ?? "") && text !== "" ? JSON.parse(text) : undefined;
        tags[home] = answer.headers.etag ?? tags[home];
        resolve({ status: answer.statusCode, headers: answer.headers, text, json });
      };
      answer.on("data", (part) => {
        parts.push(part);
        if (streams) answer.destroy();
      });
      answer.on(streams ? "close" : "end", end);
      answer.on("error", (error) => streams || reject(error));
    });
    asked.on("error", reject).on("timeout", () => asked.destroy(new Error(`no answer to ${method} ${path}`)));
    asked.end(body);
  });
}

/** Whether `found` has what `wanted` says, a type or a pattern standing for what matches it. */
function has(found, wanted, where) {
  if (typeof wanted === "function") {
    const isIt = wanted === Array ? Array.isArray(found) : typeof found === wanted.name.toLowerCase();
    assert.ok(isIt, `${where} is ${JSON.stringify(found)}, not ${wanted.name}`);
  } else if (wanted instanceof RegExp) {
    assert.match(String(found), wanted, where);
  } else if (Array.isArray(wanted)) {
    assert.equal(found?.length, wanted.length, `${where}: ${JSON.stringify(found)}`);
    wanted.forEach((one, at) => has(found[at], one, `${where}[${at}]`));
  } else if (wanted !== null && typeof wanted === "object") {
    for (const [name, value] of Object.entries(wanted)) has(found?.[name], value, `${where}.${name}`);
  } else {
    assert.deepEqual(found, wanted, where);
  }
}

function check(answer, { status, problem, json, header = {}, isBare = false }, home) {
  const where = `${home}: ${answer.text.slice(0, 300)}`;
  assert.equal(answer.status, status, where);
  if (problem) {
    assert.equal(answer.headers["content-type"], "application/problem+json", where);
    has(answer.json, { type: `urn:keyreeve:problem:${problem}`, status, title: String, detail: String, request_id: answer.headers["x-request-id"] }, where);
  }
  if (json) has(answer.json, json, where);
  has(answer.headers, header, where);
  if (!isBare) assert.match(answer.headers["x-request-id"], /^[0-9a-f]{16}$/, where);
}

/** An answer without what is another each time. */
function still({ status, headers, text }, about) {
  const kept = Object.entries(headers).filter(([name]) => !TRANSPORT.includes(name));
  const id = headers["x-request-id"];
  let told = JSON.stringify({ status, headers: Object.fromEntries(kept.toSorted()), text }).replaceAll(id, "ID");
  told = told.replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "MOMENT").replaceAll(/max-age=\d+/g, "max-age=S");
  told = told.replaceAll(/("g\d+-)[0-9a-f]+/g, "$1MOMENT");
  told = told.replaceAll(/((?:retry_after|hold)_ms\\":|retry-after":")\d+/g, "$1N").replaceAll(/"content-length":"\d+"/g, '"content-length":"N"');
  // How many headers there were, those of the connection included.
  return JSON.parse(about ? told.replaceAll(/\d+ headers with \d+ bytes/g, "N headers") : told);
}

for (const one of CASES) {
  test(one.says, async () => {
    const asked = async (home, wanted) => {
      if (!one.until) {
        const answer = await ask(home, wanted);
        check(answer, wanted, home);
        return answer;
      }
      let why;
      return until(`${one.says} on ${home}`, async () => {
        const answer = await ask(home, wanted);
        try {
          check(answer, wanted, home);
          return answer;
        } catch (error) {
          why = error;
        }
      }).catch((error) => {
        throw why ?? error;
      });
    };
    const native = await asked("native", one);
    const worker = await asked("worker", { ...one, ...one.worker, ...(one.worker?.status ? { json: one.worker.json, header: one.worker.header } : {}) });
    if (!one.worker && !one.isTimed) assert.deepEqual(still(worker, one.about), still(native, one.about));
  });
}
