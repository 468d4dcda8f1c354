// Native nodes beside the Worker: processes of `keyreeve serve` whose store is the register behind an isolate.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DEADLINE_MS, environment } from "./world.mjs";

/** A folder for files with secrets, which only their owner may read. */
export class Folder {
  path = mkdtempSync(join(tmpdir(), "keyreeve-native-"));

  /** Writes a file and says how a configuration refers to it. */
  secret(name, text) {
    writeFileSync(join(this.path, name), text, { mode: 0o600 });
    return `file:${join(this.path, name)}`;
  }

  remove() {
    rmSync(this.path, { recursive: true, force: true });
  }
}

export class Native {
  /** What it wrote, line by line. */
  log = [];

  /** Starts a node and waits until it listens. config: a whole keyreeve.toml. */
  static async start(folder, name, config) {
    const native = new Native();
    const file = folder.secret(`${name}.toml`, `${config}\n[[listener]]\nbind = "127.0.0.1:0"\n`).slice("file:".length);
    native.child = spawn(environment("KEYREEVE_BIN"), ["serve", "--node", name, "-c", file], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, KEYREEVE_API_KEY: "" },
    });
    native.ended = new Promise((resolve) => native.child.on("close", resolve));
    createInterface({ input: native.child.stderr }).on("line", (line) => native.log.push(line));
    const listening = new Promise((resolve) => createInterface({ input: native.child.stdout }).on("line", resolve));
    const line = await Promise.race([listening, native.ended]);
    native.url = /^listening on (http:.*)$/.exec(line)?.[1];
    if (!native.url) throw new Error(`${name} does not listen: ${native.log.join("\n")}`);
    return native;
  }

  /** Asks it, as `World.ask` asks an isolate. */
  async ask(path, init = {}) {
    const started = performance.now();
    const answer = await fetch(new URL(path, this.url), { signal: AbortSignal.timeout(DEADLINE_MS), ...init });
    const text = await answer.text();
    const isJson = /json/.test(answer.headers.get("content-type") ?? "");
    const json = isJson ? JSON.parse(text) : undefined;
    return { status: answer.status, headers: answer.headers, text, json, ms: performance.now() - started };
  }

  /** SIGKILL, where it stands. */
  async kill() {
    this.child.kill("SIGKILL");
    await this.ended;
  }
}
