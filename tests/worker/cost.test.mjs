// What cryptography costs inside of the Worker: a mint and a read have to fit into the 10 ms of a free account.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { World, environment } from "./world.mjs";

const keyFile = (name) => readFileSync(new URL(`../../crates/keyreeve/tests/keyreeve/keys/${name}`, import.meta.url), "utf8");

let world;
before(async () => {
  const secrets = { EC: keyFile("p256-pkcs8.pem"), ED25519: keyFile("ed25519-pkcs8.pem"), PKCS8: keyFile("rsa2048-pkcs8.pem") };
  world = await World.start({ isolates: 1, build: environment("KEYREEVE_WORKER_TESTING"), objects: {}, secrets });
});
after(() => world?.stop());

// The limits are about five times of what a busy machine showed.
for (const [what, times, usMax] of [
  ["es256-rust", 200, 6000],
  ["es256-web", 2000, 400],
  ["eddsa-rust", 1000, 600],
  ["hs256-rust", 5000, 100],
  ["rs256-web", 200, 6000],
  ["seal-rust", 2000, 300],
  ["open-rust", 2000, 300],
]) {
  test(`${what} costs less than ${usMax} us of CPU`, async (context) => {
    await world.ask(0, `/testing/cost/${what}?times=5`);
    const before = world.cpuMs();
    const answer = await world.ask(0, `/testing/cost/${what}?times=${times}`);
    assert.equal(answer.text, String(times));
    const us = Math.round(((world.cpuMs() - before) * 1000) / times);
    context.diagnostic(`${what}: ${us} us`);
    assert.ok(us < usMax, `${us} us`);
  });
}
