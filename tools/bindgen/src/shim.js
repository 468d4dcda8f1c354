// What Cloudflare's runtime calls. tools/bindgen appends a line for each export of the wasm, and scripts/build-worker
// bundles it with the glue that wasm-bindgen generates.
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";
import * as glue from "./glue.js";

// The crate `worker` counts in it how often the wasm has been instantiated: after an abort (a stack overflow, memory at
// its end) the glue starts it anew at the next call.
const state = glue.__worker_init_state();

// An abort happens in a task of its own, so the promises of those in flight would stay open for ever.
const inFlight = new Set();
addEventListener("error", ({ error }) => {
  if (!(error instanceof WebAssembly.RuntimeError)) return;
  console.error(`the wasm has aborted: ${error.message}`);
  for (const end of inFlight) end(error);
});

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

export default class Entrypoint extends WorkerEntrypoint {}

// A panic is a rejection here. The log has it already; a stranger learns that it happened, and nothing else.
function serve(inner) {
  Entrypoint.prototype.fetch = async function fetch(request) {
    try {
      return await unlessAborted(inner(request, this.env, this.ctx));
    } catch (error) {
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
  };
}

// An event of the platform: `scheduled`, `queue`.
function handle(name, inner) {
  Entrypoint.prototype[name] = function (event) {
    return unlessAborted(inner(event, this.env, this.ctx));
  };
}

// What other Workers call over a service binding: `env.KEYREEVE.token("push")` is `rpc_token(env, ctx, "push")`.
function offer(name, inner) {
  Entrypoint.prototype[name] = function (...values) {
    return unlessAborted(inner(this.env, this.ctx, ...values));
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
          return unlessAborted(this.#current()[name](...values));
        };
      }
    }
  }
  return Outer;
}

