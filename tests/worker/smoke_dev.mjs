import { createHash } from "node:crypto";
import { World } from "./world.mjs";
import { Upstream } from "./upstream.mjs";
const up = await Upstream.start(() => ({ text: JSON.stringify({ token: "t-" + up.calls, expires_in: 3600 }) }));
const config = `
store.url = "do:KEYREEVE"
store.caches = ["cache", "kv:KV"]
seal.keys = ["binding:SEAL_KEY"]
[caller.app]
key_sha256 = "${createHash("sha256").update("k").digest("hex")}"
can = ["list","token","report","renew","resolve","history"]
credentials = ["*"]
[credential.up]
source = "http"
mode = "lease"
url = "${up.url}/mint"
method = "POST"
map = { token = "/token", expires_in = "/expires_in" }
`;
const world = await World.start({ isolates: 2, config, secrets: { SEAL_KEY: "ab".repeat(32) } });
const h = { headers: { authorization: "Bearer k" } };
for (const p of ["/livez", "/v1/credentials/up/token", "/v1/credentials/up/token", "/v1/credentials/up", "/v1/credentials/up/history", "/v1/credentials"]) {
  try { const a = await world.ask(0, p, h); console.log(p, a.status, a.ms.toFixed(1), a.text); } catch (e) { console.log(p, String(e)); }
}
const b = await world.ask(1, "/v1/credentials/up/token", h); console.log(b.status, b.ms, b.text);
console.log(up.calls, world.log.slice(0,12).join("\n"));
await world.stop(); await up.stop();
