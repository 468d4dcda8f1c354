// What leaves the Worker, by its three doors, and what comes back: bounded, in time, or told as what it may have done.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { StrictServer } from "./mtls.mjs";
import { Upstream } from "./upstream.mjs";
import { World, environment, until } from "./world.mjs";

let world, upstream, mtls;
const seen = [];

before(async () => {
  upstream = await Upstream.start(answer);
  mtls = await StrictServer.start((name, url) => `hello ${name} at ${url}`);
  const renewal = `export default { async fetch(request) {
    return new Response(JSON.stringify({ url: request.url, method: request.method, body: await request.text() }), { status: 201 });
  } }`;
  world = await World.start({
    isolates: 1,
    build: environment("KEYREEVE_WORKER_TESTING"),
    objects: {},
    workers: [{ name: "renewal", modules: [{ type: "ESModule", path: "renewal.mjs", contents: renewal }] }],
    bindings: { serviceBindings: { RENEWAL: "renewal", CERT: mtls.service } },
  });
});
after(async () => {
  await world?.stop();
  await upstream?.stop();
  await mtls?.stop();
});

async function answer(request, body) {
  seen.push({ method: request.method, url: request.url, headers: request.headers, body });
  switch (request.url.split("?")[0]) {
    case "/moved":
      return { status: 302, headers: { location: `${upstream.url}/elsewhere` } };
    case "/large":
      return { text: "x".repeat(100_000) };
    case "/hang":
      return new Promise(() => {});
    case "/hang-up":
      return undefined;
    default:
      return { status: 200, headers: { "x-kind": "token" }, text: `said ${body}` };
  }
}

const send = (query) => world.ask(0, `/testing/leaf/fetch?${new URLSearchParams(query)}`);

test("a request goes out once as it is, and the whole answer comes back", async () => {
  seen.length = 0;
  const answer = await send({ method: "POST", url: `${upstream.url}/mint?a=b`, body: "please", header: "Bearer secret" });
  assert.match(answer.text, /^200 .*x-kind=token.* said please$/);
  assert.equal(seen.length, 1);
  const [{ method, url, headers, body }] = seen;
  assert.deepEqual([method, url, body], ["POST", "/mint?a=b", "please"]);
  assert.equal(headers.authorization, "Bearer secret");
  assert.match(headers["user-agent"], /^keyreeve\//);
});

test("a redirect is an answer, and is not followed", async () => {
  seen.length = 0;
  assert.match((await send({ url: `${upstream.url}/moved` })).text, /^302 .*location=/);
  assert.equal(seen.length, 1);
});

test("an answer above the limit is refused, one at the limit is read", async () => {
  const large = (max) => send({ url: `${upstream.url}/large`, max });
  assert.match((await large(100_000)).text, /^200 /);
  assert.match((await large(99_999)).text, /^TooLarge\(99999\)/);
});

test("an upstream that hangs is cut off at the deadline, and hears of it", async () => {
  // The end of the event would close the connection as well, so the event goes on.
  const [linger_ms, closed_within_ms] = [3000, 1500];
  const asked = send({ url: `${upstream.url}/hang`, ms: 300, linger_ms });
  await until("the request is there", () => upstream.inside === 1);
  await until("the connection is closed", () => upstream.inside === 0, closed_within_ms);
  assert.match((await asked).text, /^NoAnswer\("none came before the deadline"\) after 3\d\dms$/);
});

test("a connection that is lost may have been acted on", async () => {
  assert.match((await send({ method: "POST", url: `${upstream.url}/hang-up`, body: "x" })).text, /^NoAnswer\(/);
});

// If a later runtime tells these apart, `fetch.rs` may say NotSent, and a mint that was never asked for is in doubt no more.
test("the runtime has one word for a connection that was never made, and no address", async () => {
  for (const url of ["http://127.0.0.1:1/?token=hunter2", "https://nowhere.invalid/?token=hunter2", upstream.url.replace("http", "https")]) {
    const { text } = await send({ url });
    assert.match(text, /^NoAnswer\("(Network connection lost\.|internal error; reference = \w+)"\)/, url);
  }
});

test("what the platform refuses to send was certainly not sent, and no URL is repeated", async () => {
  for (const query of [
    { url: "not a URL ?token=hunter2" },
    { url: "ftp://127.0.0.1/?token=hunter2" },
    { url: `${upstream.url}/?token=hunter2`, header: "two\nlines" },
    { url: `${upstream.url}/?token=hunter2`, method: "GET", body: "x" },
  ]) {
    const { text } = await send(query);
    assert.match(text, /^NotSent\(/, JSON.stringify(query));
    assert.doesNotMatch(text, /hunter2/);
  }
});

test("another Worker is asked by its binding", async () => {
  const answer = await send({ method: "POST", url: "service:RENEWAL/v1/token?a=b", body: "please" });
  const [status] = answer.text.split(" ", 1);
  assert.equal(status, "201");
  const told = JSON.parse(answer.text.slice(answer.text.indexOf("{")));
  assert.deepEqual(told, { url: "https://service.invalid/v1/token?a=b", method: "POST", body: "please" });
});

test("a client certificate is shown to the service that asks for one", async () => {
  const url = "https://localhost/token";
  assert.match((await send({ url, via: "CERT" })).text, /^200 .*hello keyreeve at \/token$/);
});

test("a door that is not there is named", async () => {
  const missing = "the binding `NOWHERE` is missing\\nhint: bind a service under this name";
  for (const query of [{ url: "service:NOWHERE/" }, { url: `${upstream.url}/`, via: "NOWHERE" }]) {
    assert.ok((await send(query)).text.startsWith(`NotSent("${missing}")`), JSON.stringify(query));
  }
});
