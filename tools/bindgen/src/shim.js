// What Cloudflare's runtime calls. tools/bindgen appends a line for each export of the wasm, and scripts/build-worker
// bundles it with the glue that wasm-bindgen generates.
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";
import * as glue from "./glue.js";

// The crate `worker` counts in it how often the wasm has been instantiated: after an abort (a stack overflow, memory at
// its end) the glue starts it anew at the next call.
const state = glue.__worker_init_state();

// An abort mostly happens in a task of its own, so the promises of those in flight would stay open for ever.
const inFlight = new Set();
const isAbort = (error) => error instanceof WebAssembly.RuntimeError;
function endAll(error) {
  console.error(`the wasm has aborted: ${error.message}`);
  for (const end of inFlight) end(error);
  // Starts the wasm anew. The next call must not be the one to do it: its texts would be put into the memory of the old one.
  glue.__worker_init_state();
}
addEventListener("error", ({ error }) => isAbort(error) && endAll(error));

async function unlessAborted(promise) {
  let end;
  const aborted = new Promise((_, reject) => (end = reject));
  inFlight.add(end);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    inFlight.delete(end);
  }
}

// What `call` returns, at once or by a promise.
function called(call) {
  let result;
  try {
    result = call();
  } catch (error) {
    if (isAbort(error)) endAll(error);
    throw error;
  }
  return result instanceof Promise ? unlessAborted(result) : result;
}

export default class Entrypoint extends WorkerEntrypoint {}

// A panic is an exception here. The log has it already; a stranger learns that it happened, and nothing else.
function failed(error) {
  const id = crypto.randomUUID();
  console.error(`request ${id} failed: ${error}`);
  const problem = {
    type: "urn:keyreeve:problem:internal-error",
    title: "something went wrong inside",
    status: 500,
    detail: "the request was not answered",
    hint: "the log tells why under this request's id",
    instance: `urn:keyreeve:request:${id}`,
    request_id: id,
    safe_to_retry: false,
  };
  const headers = { "content-type": "application/problem+json", "cache-control": "no-store" };
  return new Response(JSON.stringify(problem), { status: 500, headers });
}

// What `now` has said so far, without the request's id, taken apart: most answers have been given before.
const said = new Map();
const SAID_MAX = 64;

// `now` takes the three texts that decide about most requests, and gives the answer as one: the request's id, the status, a
// line for each header, an empty line, the body. Nothing where it takes `inner` to answer.
function answerNow(now, request, ctx) {
  const { headers } = request;
  const text = now(ctx, request.url, headers.get("authorization"), headers.get("if-none-match"));
  if (text === undefined) return undefined;
  const rest = text.slice(ID_LENGTH);
  let answer = said.get(rest);
  if (answer === undefined) {
    answer = takenApart(rest);
    if (said.size >= SAID_MAX) said.clear();
    said.set(rest, answer);
  }
  // The response takes a copy of them.
  answer.init.headers.set("x-request-id", text.slice(0, ID_LENGTH));
  return new Response(answer.body, answer.init);
}

const ID_LENGTH = 16;

function takenApart(text) {
  const end = text.indexOf("\n\n");
  const [status, ...lines] = text.slice(0, end).split("\n");
  const headers = new Headers();
  for (const line of lines) {
    const at = line.indexOf(": ");
    headers.set(line.slice(0, at), line.slice(at + 2));
  }
  const body = text.slice(end + 2);
  // The Fetch standard forbids a body with some statuses, even an empty one.
  return { body: body === "" ? null : body, init: { status: Number(status), headers } };
}

function serve(inner, now) {
  Entrypoint.prototype.fetch = function fetch(request) {
    try {
      const answer = now && request.method === "GET" ? called(() => answerNow(now, request, this.ctx)) : undefined;
      return answer ?? unlessAborted(inner(request, this.env, this.ctx)).catch(failed);
    } catch (error) {
      return failed(error);
    }
  };
}

// An event of the platform: `scheduled`, `queue`.
function handle(name, inner) {
  Entrypoint.prototype[name] = function (event) {
    return called(() => inner(event, this.env, this.ctx));
  };
}

// What other Workers call over a service binding: `env.KEYREEVE.token("push")` is `rpc_token(env, ctx, "push")`.
function offer(name, inner) {
  Entrypoint.prototype[name] = function (...values) {
    return called(() => inner(this.env, this.ctx, ...values));
  };
}

// A Durable Object. Its Rust half lives in the wasm's memory, so it goes when the wasm is started anew.
function object(Inner) {
  class Outer extends DurableObject {
    #inner;
    #instance;

    constructor(ctx, env) {
      super(ctx, env);
      this.#current();
    }

    #current() {
      // Any call lets the glue start the wasm anew, if it has to.
      glue.__worker_init_state();
      if (this.#instance !== state.instanceId) {
        this.#inner = new Inner(this.ctx, this.env);
        this.#instance = state.instanceId;
      }
      return this.#inner;
    }

    static {
      for (const name of Object.getOwnPropertyNames(Inner.prototype)) {
        const isOurs = name !== "constructor" && name !== "free" && !name.startsWith("__");
        if (!isOurs || typeof Inner.prototype[name] !== "function") continue;
        this.prototype[name] = function (...values) {
          return called(() => this.#current()[name](...values));
        };
      }
    }
  }
  return Outer;
}

