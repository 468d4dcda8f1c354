#!/usr/bin/env node
// A container of Azure's blob storage for one test: Azurite, in memory, behind a door that can be held shut. The door gives each
// request the host name that the account has at Azure, so that signatures are those that Azure wants.
//
// azure.mjs [--container NAME]..
//
// Says {"endpoint": .., "account": .., "key": .., "containers": [..]} on a line of standard output, and then does what it is
// told, a word a line on standard input, and says `ok` after each:
//
//     hang        requests are read and never answered
//     status N    requests are answered with this status and an error in XML
//     refuse      connections are closed without a word
//     go          ends all of these
//     score       {"GET": n, ..} of requests since the last time instead of `ok`
//
// Azurite is installed by scripts/setup, which names its folder KEYREEVE_STORES_NODE_DIR. Ends when standard input ends.
import { spawn } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import http from 'node:http';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const MAIN = 'node_modules/azurite/dist/src/blob/main.js';
// A client tells by the host that it asks, 127.0.0.1 here, whether that is the account's own: at Azure it has the account's name in it.
const account = '127';
const HOST = `${account}.blob.core.windows.net`;
const key = randomBytes(64).toString('base64');

// A test runner that was started without the environment of scripts/setup looks where set-up puts things.
function installed() {
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'keyreeve');
  const folders = existsSync(cache) ? readdirSync(cache).filter((name) => name.startsWith('npm-')).map((name) => join(cache, name)) : [];
  const found = [process.env.KEYREEVE_STORES_NODE_DIR, ...folders].find((folder) => folder && existsSync(join(folder, MAIN)));
  if (!found) throw new Error('azurite is missing: scripts/setup installs it');
  return join(found, MAIN);
}

const folder = mkdtempSync(join(tmpdir(), 'keyreeve-azurite-'));
const child = spawn(
  process.execPath,
  [installed(), '--blobHost', '127.0.0.1', '--blobPort', '0', '--inMemoryPersistence', '--disableTelemetry', '--silent'],
  { env: { ...process.env, AZURITE_ACCOUNTS: `${account}:${key}` }, stdio: ['ignore', 'pipe', 'inherit'], cwd: folder },
);
function end(code) {
  child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
  process.exit(code);
}
process.on('SIGTERM', () => end(143));
child.on('exit', () => end(1));

const port = await new Promise((found) => {
  createInterface({ input: child.stdout }).on('line', (line) => {
    const listening = line.match(/listens on http:\/\/127\.0\.0\.1:(\d+)/);
    if (listening) found(Number(listening[1]));
  });
});

let fault = null;
let score = {};
const hanging = new Set();

function error(answer, status) {
  const code = status === 403 ? 'AuthorizationFailure' : 'ServerBusy';
  answer.writeHead(status, { 'content-type': 'application/xml', 'x-ms-error-code': code });
  answer.end(`<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>told to</Message></Error>`);
}

const door = http.createServer((request, answer) => {
  score[request.method] = (score[request.method] ?? 0) + 1;
  if (fault === 'hang') return hanging.add(answer);
  if (fault === 'refuse') return request.socket.destroy();
  if (fault) return error(answer, fault);
  const behind = http.request(
    { host: '127.0.0.1', port, method: request.method, path: request.url, headers: { ...request.headers, host: HOST } },
    (told) => {
      answer.writeHead(told.statusCode, told.headers);
      told.pipe(answer);
    },
  );
  behind.on('error', () => request.socket.destroy());
  request.pipe(behind);
});
await new Promise((listening) => door.listen(0, '127.0.0.1', listening));

// Shared Key: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
function create(container) {
  const told = { 'x-ms-date': new Date().toUTCString(), 'x-ms-version': '2023-11-03' };
  const text = `PUT${'\n'.repeat(12)}${Object.entries(told).map(([name, value]) => `${name}:${value}\n`).join('')}/${account}/${container}\nrestype:container`;
  const signature = createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8').digest('base64');
  const headers = { ...told, host: HOST, authorization: `SharedKey ${account}:${signature}`, 'content-length': 0 };
  return new Promise((done, failed) => {
    const request = http.request({ host: '127.0.0.1', port, method: 'PUT', path: `/${container}?restype=container`, headers }, (answer) => {
      answer.resume();
      if (answer.statusCode === 201) done();
      else failed(new Error(`the container was not made: ${answer.statusCode} ${answer.headers['x-ms-error-code']}`));
    });
    request.on('error', failed).end();
  });
}

const names = process.argv.slice(2).filter((word) => word !== '--container');
const containers = names.length ? names : ['artifacts'];
for (const container of containers) await create(container);
console.log(JSON.stringify({ endpoint: `http://127.0.0.1:${door.address().port}`, account, key, containers }));

for await (const line of createInterface({ input: process.stdin })) {
  const [word, rest] = line.split(' ');
  let said = 'ok';
  if (word === 'go') {
    fault = null;
    for (const answer of hanging) answer.destroy();
    hanging.clear();
  } else if (word === 'score') {
    said = JSON.stringify(score);
    score = {};
  } else if (word === 'status') {
    fault = Number(rest);
  } else if (word === 'hang' || word === 'refuse') {
    fault = word;
  } else {
    console.error(`no such word: ${word}`);
    end(2);
  }
  console.log(said);
}
end(0);
