// What a Worker calls out to, on loopback: upstreams that a test writes itself, and the picky ones of `keyreeve picky`.
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { environment } from "./world.mjs";

/** An HTTP server of the test. It keeps score: `calls` counts requests, `inside` how many have no answer yet. */
export class Upstream {
  calls = 0;
  inside = 0;

  /** answer(request, body) returns `{ status, headers, text }`, or a promise of it, or undefined to hang up. */
  static async start(answer) {
    const upstream = new Upstream();
    upstream.answer = answer;
    upstream.server = createServer(async (request, response) => {
      upstream.calls += 1;
      upstream.inside += 1;
      response.on("close", () => (upstream.inside -= 1));
      const parts = [];
      for await (const part of request) parts.push(part);
      const said = await upstream.answer(request, Buffer.concat(parts).toString());
      if (!said) return response.destroy();
      response.writeHead(said.status ?? 200, { "content-type": "application/json", ...said.headers });
      response.end(said.text ?? "");
    });
    await new Promise((resolve) => upstream.server.listen(0, "127.0.0.1", resolve));
    upstream.url = `http://127.0.0.1:${upstream.server.address().port}`;
    return upstream;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** `keyreeve picky apns`: a fake Apple that enforces the real rules. keys: `TEAM:KEYID:PEMFILE`. more: options as they are. */
export class PickyApns {
  static async start({ keys, scale = 1, more = [] }) {
    const picky = new PickyApns();
    const options = ["picky", "apns", "--json", "--control", "127.0.0.1:0", "--scale", String(scale), ...more];
    picky.child = spawn(environment("KEYREEVE_BIN"), [...options, ...keys.flatMap((key) => ["--key", key])], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    picky.lines = createInterface({ input: picky.child.stdout })[Symbol.asyncIterator]();
    const { value } = await picky.lines.next();
    if (!value) throw new Error("`keyreeve picky apns` ended without a word");
    // url, ca_file, control
    Object.assign(picky, JSON.parse(value));
    return picky;
  }

  /** What it has counted so far. */
  async score() {
    return (await fetch(`${this.control}/score`)).json();
  }

  /** Ends it; resolves to the final score. */
  async stop() {
    this.child.kill("SIGTERM");
    const { value } = await this.lines.next();
    return value && JSON.parse(value);
  }
}
