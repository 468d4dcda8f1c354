// The platform's caches, secrets, clocks, tasks and signatures, as the leaves of the Worker show them to the core.
import assert from "node:assert/strict";
import { createPrivateKey, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { World, environment, until } from "./world.mjs";

const VALUE_BYTES_MAX = 131_072;
const keyFile = (name) => readFileSync(new URL(`../../crates/keyreeve/tests/keyreeve/keys/${name}`, import.meta.url), "utf8");
const RSA = { PKCS8: "rsa2048-pkcs8.pem", PKCS1: "rsa2048-pkcs1.pem", JWK: "rfc7515-a2.jwk" };

let world;
before(async () => {
  world = await World.start({
    isolates: 2,
    build: environment("KEYREEVE_WORKER_TESTING"),
    objects: {},
    secrets: {
      ...Object.fromEntries(Object.entries(RSA).map(([name, file]) => [name, keyFile(file)])),
      SHORT: keyFile("rsa1024-pkcs8.pem"),
      EC: keyFile("p256-pkcs8.pem"),
      PLAIN: "hunter2\n",
      EMPTY: "",
      POINTER: "PLAIN",
      MISTAKEN: "hunter3",
    },
    bindings: { secretsStoreSecrets: { STORED: { store_id: "store", secret_name: "stored" } } },
  });
});
after(() => world?.stop());

const ask = (at, leaf, query) => world.ask(at, `/testing/leaf/${leaf}?${new URLSearchParams(query)}`);

for (const kind of ["cache", "kv"]) {
  const shared = (at, query) => ask(at, "shared", { kind, ...query });

  test(`${kind}: one isolate reads what another one put, until it is deleted`, async () => {
    const key = "0123456789abcdef";
    assert.equal((await shared(0, { do: "get", key })).text, "absent");
    // KV caches "there is nothing" as well: the key that is written is another one.
    assert.equal((await shared(0, { do: "put", key: `${key}1`, value: "sealed", ttl_ms: 90_000 })).text, "put");
    assert.equal((await shared(1, { do: "get", key: `${key}1` })).text, "6 sealed");
    assert.equal((await shared(1, { do: "put", key: `${key}1`, value: "", ttl_ms: 90_000 })).text, "put");
    assert.equal((await shared(0, { do: "get", key: `${key}1` })).text, "0 ");
    assert.equal((await shared(0, { do: "delete", key: `${key}1` })).text, "deleted");
    assert.equal((await shared(1, { do: "get", key: `${key}1` })).text, "absent");
    assert.equal((await shared(1, { do: "delete", key: `${key}1` })).text, "deleted");
  });

  test(`${kind}: an entry as large as a record comes back, a larger one is not read`, async () => {
    const put = { do: "put", ttl_ms: 90_000 };
    assert.equal((await shared(0, { ...put, key: "fits", bytes: VALUE_BYTES_MAX })).text, "put");
    assert.equal((await shared(1, { do: "get", key: "fits" })).text, `${VALUE_BYTES_MAX} xxxxxxxxxxxxxxxx`);
    assert.equal((await shared(0, { ...put, key: "large", bytes: VALUE_BYTES_MAX + 1 })).text, "put");
    const answer = await shared(1, { do: "get", key: "large" });
    assert.equal(answer.text, `an entry has more than ${VALUE_BYTES_MAX} bytes`);
  });
}

test("KV is told to forget, a minute from now at the earliest", async () => {
  const [short, long] = ["ttl-short", "ttl-long"];
  await ask(0, "shared", { kind: "kv", do: "put", key: short, value: "x", ttl_ms: 1500 });
  await ask(0, "shared", { kind: "kv", do: "put", key: long, value: "x", ttl_ms: 600_500 });
  const now = Date.now() / 1000;
  const entries = await world.kvEntries();
  const left = (key) => entries.find((entry) => entry.key === `keyreeve/${key}`).expiration - now;
  assert.ok(left(short) > 50 && left(short) <= 61, `${left(short)}`);
  assert.ok(left(long) > 590 && left(long) <= 602, `${left(long)}`);
});

test("the cache keeps an entry no longer than it is told, under a URL that nobody has", async () => {
  await ask(0, "shared", { kind: "cache", do: "put", key: "A", value: "x", ttl_ms: 600_999 });
  const [entry] = (await world.cacheEntries()).filter(({ key }) => key.endsWith("/41"));
  assert.equal(entry.key, "https://cache.invalid/41");
  assert.equal(entry.headers["cache-control"], "max-age=600");
  await ask(0, "shared", { kind: "cache", do: "put", key: "soon", value: "x", ttl_ms: 1000 });
  await until("the entry is gone", async () => (await ask(1, "shared", { kind: "cache", do: "get", key: "soon" })).text === "absent");
});

test("a binding that is not there, or something else, is named in one sentence", async () => {
  const kv = async (binding) => (await ask(0, "shared", { kind: "kv", do: "get", key: "a", binding })).text;
  assert.equal(await kv("NOWHERE"), "the binding `NOWHERE` is missing\nhint: bind a KV namespace under this name");
  assert.equal(await kv("PLAIN"), "the binding `PLAIN` is not a KV namespace");
});

test("secrets are read by binding, from variables, by the name in another, and from the Secrets Store", async () => {
  const secret = async (kind, name) => (await ask(0, "secret", { kind, name })).text;
  assert.equal(await secret("binding", "PLAIN"), "hunter2", "without its line break");
  assert.equal(await secret("name-in", "POINTER"), "hunter2");
  assert.match(await secret("binding", "STORED"), /^the secret bound to `STORED` cannot be read: /);
  await (await world.secretsStore("STORED")).create("from the store");
  assert.equal(await secret("binding", "STORED"), "from the store");
  assert.equal(await secret("binding", "NOWHERE"), "the binding `NOWHERE` is missing\nhint: wrangler secret put NOWHERE");
  assert.equal(await secret("binding", "KV"), "the binding `KV` is neither a secret nor a variable");
  assert.equal(await secret("binding", "EMPTY"), "the secret `EMPTY` is empty");
  assert.equal(await secret("name-in", "MISTAKEN"), "`MISTAKEN` does not hold the name of a secret binding");
  assert.equal(await secret("file", "/etc/key"), "`file:/etc/key` cannot be read: a Worker has no files\nhint: use `binding:NAME`");
});

test("RS256 by WebCrypto is the signature that anybody else makes with the key", async () => {
  const message = "header.claims";
  for (const [key, file] of Object.entries(RSA)) {
    const text = keyFile(file);
    const own = createPrivateKey(key === "JWK" ? { key: JSON.parse(text), format: "jwk" } : text);
    const expected = sign("sha256", Buffer.from(message), own).toString("hex");
    for (let again = 0; again < 2; again += 1) {
      assert.equal((await ask(0, "rs256", { key, message, times: 3 })).text, expected, key);
    }
  }
});

test("a key that RS256 cannot use is named for what it is", async () => {
  const signed = async (key) => (await ask(0, "rs256", { key, message: "m" })).text;
  assert.equal(await signed("SHORT"), "RS256 needs a key of at least 2048 bits, found 1024");
  assert.match(await signed("EC"), /^expected an RSA private key in PEM .*, found a P-256 key in PKCS#8 PEM$/);
});

test("a sleep lasts at least as long as it should, by both clocks, and random bytes differ", async () => {
  const [mono, wall, now, random] = (await ask(0, "clock", { ms: 120 })).text.split(" ");
  assert.ok(Number(mono) >= 120 && Number(mono) < 2000, mono);
  assert.ok(Number(wall) >= 120, wall);
  assert.ok(Math.abs(Number(now) - Date.now()) < 5000, now);
  assert.notEqual((await ask(0, "clock", { ms: 1 })).text.split(" ")[3], random);
});

test("a task goes on after its event has answered, and so does a task of that task", async () => {
  const answer = await ask(0, "spawn", { key: "spawned", value: "done", ms: 300 });
  assert.equal(answer.text, "answered");
  assert.ok(answer.ms < 300, `answered after ${answer.ms} ms`);
  await until("the task has put its value", async () =>
    (await world.kvEntries()).some(({ key, text }) => key === "keyreeve/spawned" && text === "done"));
});
