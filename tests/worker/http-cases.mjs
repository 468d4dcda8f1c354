// What the HTTP API answers, as one list for both homes: http-cases.test.mjs asks a native node and a Worker the same, in this
// order, and compares the answers with the list and with each other.
//
// A case: says, as (a caller of CALLERS, nobody by default), method (GET), path, headers (ETAG stands for the last one that came), body (JSON as text), status, problem (the last part
// of its type), json (members that the body has), header (headers that it has), until (asked again until it is so), isTimed
// (the homes may differ, because one is asked a moment later).
// worker: what differs there on purpose, with `because` (isBare: without our headers). Everything else is alike to the byte, but for moments and ids.

import { generateKeyPairSync, sign } from "node:crypto";

const REPORT = "/v1/credentials/up/report";
const RESOLVE = "/v1/credentials/up/resolve";
const RENEW = "/v1/credentials/up/renew";
const TOKEN = "/v1/credentials/up/token";
const FIRST = /^"g1-[0-9a-f]+"$/;
const ALL = ["list", "token", "report", "renew", "resolve", "history", "events", "metrics", "verify"];

/** Callers by name; the key of each is `key-NAME`. */
export const CALLERS = {
  ops: { can: ALL, credentials: ["*"] },
  worker: { can: ["list", "token", "report"], credentials: ["up", "acme/*"] },
  elsewhere: { can: ALL, credentials: ["else*", "u"] },
  idle: { can: ["metrics"], credentials: [] },
};

const LOST = { because: "each HTTP client has words of its own for a lost connection" };

const get = (path, status, more = {}) => ({ says: `GET ${path}`, as: "ops", path, status, ...more });
const post = (path, body, status, more = {}) => ({
  says: `POST ${path} ${String(body).slice(0, 60)}`, as: "ops", method: "POST", path, body, status,
  headers: { "content-type": "application/json" }, ...more,
});
const refused = (path, as, status, problem) => ({ says: `${path} as ${as ?? "nobody"}`, as, path, status, problem });

const probes = [
  get("/livez", 200, { as: undefined, json: { status: "alive" } }),
  get("/livez", 200, { method: "HEAD", says: "HEAD /livez" }),
  get("/readyz", 200, { as: undefined, json: { status: "ready" } }),
  get("/readyz", 200, { json: { status: "ready", version: String } }),
];

const tokens = [
  get(TOKEN, 200, {
    says: "a cold token", as: "worker",
    json: { name: "up", generation: 1, type: "bearer", token: "token-number-1", header: { authorization: "bearer token-number-1" }, mode: "lease" },
    header: { etag: FIRST, "cache-control": /^private, max-age=\d+$/, "content-type": "application/json", "x-content-type-options": "nosniff" },
  }),
  get(TOKEN, 200, { says: "the same, warm", as: "worker", json: { token: "token-number-1" }, header: { etag: FIRST } }),
  get(TOKEN, 200, { says: "the scheme in any case", as: undefined, headers: { authorization: "BEARER  key-worker" } }),
  get(`${TOKEN}?min_ttl=5m`, 200),
  get(`${TOKEN}?min_ttl=%36%30s`, 200),
  get(`${TOKEN}?min_ttl=2h`, 409, { problem: "life-too-short" }),
  ...["ETAG", "W/ETAG", "*", '"g0", ETAG'].map((tag) =>
    get(TOKEN, 304, { says: `If-None-Match: ${tag}`, headers: { "if-none-match": tag }, header: { etag: FIRST } })),
  ...['"g1"', '"g2"', "g1", ""].map((tag) => get(TOKEN, 200, { says: `If-None-Match: ${tag || "nothing"}`, headers: { "if-none-match": tag } })),
  get(TOKEN, 200, { method: "HEAD", says: "HEAD of a token", header: { etag: FIRST, "content-length": /^\d+$/ } }),
  get(TOKEN, 200, { says: "an id from outside is not taken", headers: { "x-request-id": "0123456789abcdef" } }),
  get("/v1/credentials/acme%2Flake/token", 200, {
    as: "worker", json: { name: "acme/lake", fields: { AccessKeyId: "id-1", SecretAccessKey: "secret-1" }, type: "fields" },
  }),
  get("/v1/credentials/acme/lake/token", 200, { as: "worker", json: { name: "acme/lake" } }),
  get("/v1/credentials/%61cme%2flake/token", 200, { as: "worker", json: { name: "acme/lake" } }),
  get("/v1/credentials/slotted/token", 200, { json: { mode: "slot", token: /^[\w-]+\.[\w-]+\.[\w-]+$/ } }),
];

const access = [
  ...["", "/up", "/up/token", "/up/history", "/nothing/token"].flatMap((rest) => [
    refused(`/v1/credentials${rest}`, undefined, 401, "unauthenticated"),
    refused(`/v1/credentials${rest}`, "nobody", 401, "unauthenticated"),
    refused(`/v1/credentials${rest}`, "idle", 403, "forbidden"),
  ]),
  ...["/up", "/up/token", "/up/history"].map((rest) => refused(`/v1/credentials${rest}`, "elsewhere", 404, "not-found")),
  ...[REPORT, RENEW, RESOLVE].flatMap((path) => [
    post(path, "{}", 401, { as: undefined, says: `${path} as nobody`, problem: "unauthenticated" }),
    post(path, "{}", 403, { as: "idle", says: `${path} as idle`, problem: "forbidden" }),
    post(path, "{}", 404, { as: "elsewhere", says: `${path} as elsewhere`, problem: "not-found" }),
  ]),
  ...["Bearer", "Bearer ", "Basic a2V5LW9wcw==", "key-ops", "Bearer key-ops extra", `Bearer ${"k".repeat(4000)}`].map((value) =>
    get(TOKEN, 401, {
      says: `Authorization: ${value.slice(0, 30)}`, as: undefined, headers: { authorization: value }, problem: "unauthenticated",
      header: { "www-authenticate": "Bearer" },
    })),
  get(TOKEN, 401, { says: "two keys", as: undefined, headers: { authorization: ["Bearer key-ops", "Bearer key-ops"] }, problem: "unauthenticated" }),
  refused("/v1/events", undefined, 401, "unauthenticated"),
  refused("/v1/events", "worker", 403, "forbidden"),
];

const states = [
  get("/v1/credentials/up", 200, { as: "worker", json: { name: "up", source: "http", mode: "lease", status: "ready", generation: 1, is_wanted: true, error: null } }),
  get("/v1/credentials", 200, {
    as: "worker",
    json: { credentials: [{ name: "acme/lake", generation: 1, status: "ready" }, { name: "up", generation: 1, status: "ready" }] },
  }),
  get("/v1/credentials?limit=1", 200, { as: "worker", json: { credentials: [{ name: "acme/lake" }], next_after: "acme/lake" } }),
  get("/v1/credentials?limit=1&after=acme%2Flake", 200, { as: "worker", json: { credentials: [{ name: "up" }] } }),
  get("/v1/credentials", 200, { as: "elsewhere", json: { credentials: [] } }),
  get("/v1/credentials", 200, { method: "HEAD", says: "HEAD of the list", as: "worker" }),
  get("/v1/credentials/up/history", 200, { json: { name: "up", status: "ready", generation: 1, epoch: 1, history: Array } }),
  get("/v1/credentials/unasked", 200, { json: { name: "unasked", generation: null } }),
  get("/v1/credentials/unasked/history", 200, { json: { name: "unasked", history: [] } }),
  get("/v1/credentials/slotted/history", 200, { json: { name: "slotted", history: [] } }),
  get("/v1/events", 200, {
    streams: true, header: { "content-type": "text/event-stream" },
    worker: { because: "an object for each credential, and nothing that hears them all", status: 501, problem: "not-implemented", streams: false },
  }),
  get("/metrics", 200, {
    header: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
    worker: { because: "an isolate counts for itself and is gone; Cloudflare counts requests", status: 404, problem: "not-found" },
  }),
];

const malformed = [
  ...["/", "/v1", "/v2/credentials", "/v1/credentials/", "/v1/credentials/up/token/", "/v1/credentials/a/b/c/token", "/v1/credentials/up/tokens/x"].map((path) =>
    get(path, 404, { problem: "not-found" })),
  post("/v1/register", "x", 404, {
    problem: "not-found",
    worker: { because: "native nodes reach the register there, by signed messages; without a key for them it is not there", problem: undefined, isBare: true },
  }),
  ...["nothing", "UP", "a%2Fb%2Fc", "..%2Fetc", "%00", "%zz", "%ff", "up%252Ftoken"].map((name) =>
    get(`/v1/credentials/${name}/token`, 404, { problem: "not-found" })),
  ...["ttl=1s", "min_ttl=1s&min_ttl=2s", "min_ttl", "min_ttl=60", "min_ttl=-1s", "min_ttl=1.5s", "min_ttl=25h", "min_ttl=99999999999999999999h", "%ff=1"].map((query) =>
    get(`${TOKEN}?${query}`, 400, { problem: "malformed-request" })),
  ...["limit=0", "limit=1001", "limit=ten", "all=1"].map((query) => get(`/v1/credentials?${query}`, 400, { problem: "malformed-request" })),
  get("/v1/credentials/up?all=1", 400, { problem: "malformed-request" }),
  get("/v1/credentials/up/history?all=1", 400, { problem: "malformed-request" }),
  get(`${TOKEN}?x=${"x".repeat(2100)}`, 414, { says: "a long URL", problem: "uri-too-long" }),
  get("/v1/credentials", 431, { says: "65 headers and more", headers: many(70), problem: "headers-too-large", about: true }),
  get(TOKEN, 431, {
    says: "65 headers and more, for a token that is there", headers: many(70), problem: "headers-too-large", about: true,
    worker: { because: "there only the two headers that matter are read, and Cloudflare bounds the rest", status: 200, problem: undefined },
  }),
  ...[["PUT", TOKEN, "GET, HEAD"], ["DELETE", "/v1/credentials/up", "GET, HEAD"], ["POST", "/v1/credentials", "GET, HEAD"], ["GET", REPORT, "POST"], ["OPTIONS", "/livez", "GET, HEAD"]].map(
    ([method, path, allow]) => ({ says: `${method} ${path}`, as: "ops", method, path, status: 405, problem: "method-not-allowed", header: { allow } })),
];

const bodies = [
  ...["", "{", "null", "[]", "7", "{}", "{} {}", "{'generation':1}", '{"generation":1}', '{"genration":1,"upstream_status":403}',
    '{"generation":1,"generation":2,"upstream_status":403}', '{"generation":"1","upstream_status":403}', '{"generation":-1,"upstream_status":403}',
    '{"generation":1.5,"upstream_status":403}', '{"generation":1,"upstream_status":"403"}', `${"[".repeat(400)}${"]".repeat(400)}`,
  ].map((body) => post(REPORT, body, 400, { problem: "malformed-request" })),
  ...['{"generation":1,"upstream_status":404}', '{"generation":1,"upstream_status":403,"reason":"line\\nbreak"}', `{"generation":1,"upstream_status":403,"reason":"${"a".repeat(65)}"}`].map(
    (body) => post(REPORT, body, 422, { problem: "unprocessable" })),
  post(REPORT, '{"generation":1,"upstream_status":403}', 415, { says: "a report without a type", headers: {}, problem: "unsupported-media-type" }),
  post(REPORT, "generation=1", 415, { says: "a form", headers: { "content-type": "application/x-www-form-urlencoded" }, problem: "unsupported-media-type" }),
  post(REPORT, " ".repeat(65 * 1024), 413, { says: "a body over the limit", problem: "too-large" }),
  post(RESOLVE, "{}", 400, { problem: "malformed-request" }),
  post(RESOLVE, '{"decision":"Adopt"}', 422, { problem: "unprocessable" }),
  post(RESOLVE, '{"decision":"adopt","force":true}', 400, { problem: "malformed-request" }),
  post(RENEW, '{"now":true}', 400, { problem: "malformed-request" }),
  post(RENEW, "now", 400, { problem: "malformed-request" }),
];

const changes = [
  post(RESOLVE, '{"decision":"discard"}', 409, { problem: "conflict" }),
  post("/v1/credentials/slotted/renew", "{}", 409, { problem: "config-invalid" }),
  post("/v1/credentials/slotted/report", '{"generation":1,"upstream_status":403}', 202, { json: { result: "ignored-stale" } }),
  post("/v1/credentials/calm/report", '{"generation":1,"upstream_status":403}', 202, { says: "a report before anything was minted", json: { result: "ignored-stale" } }),
  get("/v1/credentials/calm/token", 200, { json: { mode: "exclusive", token: "token-number-1" } }),
  post("/v1/credentials/calm/renew", "{}", 409, { problem: "renewal-too-soon", json: { retry_after_ms: Number }, header: { "retry-after": /^\d+$/ } }),
  post("/v1/credentials/calm/report", '{"generation":1,"upstream_status":403}', 202, { json: { result: "floor-wait", retry_after_ms: Number }, header: { "retry-after": /^\d+$/ } }),
  post(REPORT, '{"generation":1,"upstream_status":401,"reason":"expired"}', 202, {
    says: "a report of what was minted a moment ago", as: "worker", json: { result: /^(renewing|floor-wait)$/ }, isTimed: true,
  }),
  get(TOKEN, 200, { says: "the next token", until: true, json: { token: "token-number-2", generation: 2 }, header: { etag: /^"g2-[0-9a-f]+"$/ } }),
  post(REPORT, '{"generation":1,"upstream_status":401}', 202, { says: "the same report, late", json: { result: "ignored-stale" } }),
  post("/v1/credentials/acme/lake/renew", "{}", 202, { until: true, json: { result: "renewing" } }),
  get("/v1/credentials/acme/lake/token", 200, { says: "the next keys", until: true, json: { generation: 2, fields: { AccessKeyId: "id-2", SecretAccessKey: "secret-2" } } }),
  post("/v1/credentials/acme%2Flake/renew", undefined, 202, { says: "a renewal without a body", headers: {}, until: true, json: { result: "renewing" } }),
  get("/v1/credentials/acme/lake/token", 200, { says: "the third keys", until: true, json: { generation: 3 } }),
  get("/v1/credentials/doubted/token", 503, { says: "a mint whose answer was lost", problem: "needs-reauth", worker: LOST }),
  get("/v1/credentials/doubted/history", 200, { json: { name: "doubted", status: "needs-reauth", intent: { generation: 1, doubt: String } }, worker: LOST }),
  post("/v1/credentials/doubted/renew", "{}", 409, { problem: "in-doubt" }),
  post("/v1/credentials/doubted/resolve", '{"decision":"discard"}', 202, { until: true, json: { result: "resolved", decision: "discard" } }),
  get("/v1/credentials/doubted/token", 200, { says: "a mint after the verdict", until: true, json: { token: "token-number-1" } }),
  get("/v1/credentials/broken/token", 503, { problem: "upstream-rejected" }),
  get("/v1/credentials/broken/history", 200, { until: true, json: { name: "broken", status: "backing-off" } }),
];

// Keys of an issuer of tokens: one that is checked in Rust on both homes, and two that the platforms check in their own ways.
const KEYS = {
  ed: { alg: "EdDSA", ...generateKeyPairSync("ed25519") },
  ec: { alg: "ES256", hash: "sha256", ...generateKeyPairSync("ec", { namedCurve: "P-256" }) },
  rsa: { alg: "RS256", hash: "sha256", ...generateKeyPairSync("rsa", { modulusLength: 2048 }) },
};

/** Their public halves, as a JWKS. */
export const JWKS = JSON.stringify({
  keys: Object.entries(KEYS).map(([kid, { alg, publicKey }]) => ({ ...publicKey.export({ format: "jwk" }), kid, alg, use: "sig" })),
});

/** A token of the issuer for ten minutes, by one of its keys. */
function jwt(kid, claims = {}) {
  const { alg, hash = null, privateKey } = KEYS[kid];
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = { iss: "https://issuer.example", aud: "orders", sub: "ann", iat: now, exp: now + 600, ...claims };
  const signed = `${part({ alg, typ: "JWT", kid })}.${part(body)}`;
  return `${signed}.${sign(hash, signed, { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
}

const WRITER = { permissions: ["orders:write"] };
const pass = (says, token, [method, uri], status, more = {}) => ({
  says: `a gate: ${says}`, path: "/auth/orders", status,
  headers: { authorization: `Bearer ${token}`, "x-original-method": method, "x-original-uri": uri }, ...more,
});

const gates = [
  ...Object.keys(KEYS).flatMap((kid) => {
    const token = jwt(kid, WRITER);
    const identity = { "x-auth-subject": "ann", "x-auth-permissions": "orders:write", "x-auth-actor": "", "cache-control": "no-store" };
    const [head, payload] = token.split(".");
    const forged = `${head}.${payload}.${jwt(kid).split(".")[2]}`;
    return [
      pass(`${kid}, cold`, token, ["POST", "/orders/7"], 200, { header: identity }),
      pass(`${kid}, seen before`, token, ["POST", "/orders/7?draft=1"], 200, { header: identity }),
      pass(`${kid}, another signature`, forged, ["POST", "/orders/7"], 401, { problem: "unauthenticated" }),
    ];
  }),
  pass("a rule that lacks something", jwt("ed"), ["POST", "/orders/7"], 403, {
    problem: "forbidden", header: { "www-authenticate": 'Bearer error="insufficient_scope"' },
  }),
  pass("text is no list", jwt("ed", { permissions: "orders:write" }), ["POST", "/orders/7"], 403, { problem: "forbidden" }),
  ...["/orders/../admin", "/orders/%2e%2e/admin", "//orders/7", "/orders%2f7"].map((uri) =>
    pass(uri, jwt("ed", WRITER), ["GET", uri], 403, { problem: "forbidden" })),
  pass("a token that is over", jwt("ec", { exp: 1 }), ["GET", "/orders/7"], 401, {
    problem: "unauthenticated", header: { "www-authenticate": /error_description="the token has expired"/ },
  }),
  pass("no token of ours", "key-ops", ["GET", "/orders/7"], 401, { problem: "unauthenticated" }),
  { says: "a gate: no token", path: "/auth/orders", headers: { "x-original-method": "GET", "x-original-uri": "/" }, status: 401, problem: "unauthenticated", header: { "www-authenticate": "Bearer" } },
  { says: "a gate: asked by Envoy", method: "POST", path: "/auth/orders/orders/7?draft=1", headers: { authorization: `Bearer ${jwt("ed", WRITER)}` }, status: 200 },
  { says: "a gate: asked by two proxies", path: "/auth/orders", headers: { authorization: `Bearer ${jwt("ed")}`, "x-original-method": "GET", "x-original-uri": "/", "x-forwarded-uri": "/" }, status: 400, problem: "malformed-request" },
  { says: "a gate: another one", path: "/auth/nothing", headers: {}, status: 404, problem: "not-found" },
  post("/v1/verify", JSON.stringify({ token: jwt("ec", WRITER), on: "gate:orders", method: "POST", path: "/orders/7" }), 200, {
    says: "verify", json: { valid: true, source: "verifier:outside", key_id: "ec", claims: { sub: "ann" }, decision: { allowed: true, rule: 1 } },
  }),
  post("/v1/verify", JSON.stringify({ token: jwt("rsa", { aud: "x" }) }), 200, {
    says: "verify: for somebody else", json: { valid: false, code: "wrong_audience", reason: "audience `x`, wanted `orders`" },
  }),
  post("/v1/verify", '{"token":"x"}', 403, { says: "verify as idle", as: "idle", problem: "forbidden" }),
];

/** In this order: later cases build on what earlier ones did. */
export const CASES = [...probes, ...tokens, ...access, ...gates, ...states, ...malformed, ...bodies, ...changes];

function many(count) {
  return Object.fromEntries(Array.from({ length: count }, (_, at) => [`x-header-${at}`, "x"]));
}
