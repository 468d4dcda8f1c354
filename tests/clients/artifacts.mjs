// Unmodified clients of GraphQL Hive against a gate of artifacts: do they read, poll by ETag, notice what is new, and what is revoked?
// usage: node artifacts.mjs KEYREEVE
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

// The packages are found in KEYREEVE_NODE_DIR/node_modules, outside the checkout: scripts/setup puts them there.
const packages = process.env.KEYREEVE_NODE_DIR
if (!packages) throw new Error('KEYREEVE_NODE_DIR is not set: scripts/setup prints the file that sets it')
const load = createRequire(join(packages, 'package.json'))
const { createSupergraphManager } = load('@graphql-hive/apollo')
const { createCDNArtifactFetcher, createSchemaFetcher, createServicesFetcher, createSupergraphSDLFetcher } = load('@graphql-hive/core')

const PATIENCE_MS = 30_000
const TARGET = 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'
const SUPERGRAPH = 'schema @link(url: "https://specs.apollo.dev/link/v1.0") { query: Query }\ntype Query { ok: Boolean }\n'
const SERVICES = JSON.stringify([{ name: 'a', sdl: 'type Query { ok: Boolean }', url: 'http://a' }])
const quiet = { debug() {}, info() {}, warn() {}, error() {}, trace() {} }

const folder = mkdtempSync(join(tmpdir(), 'keyreeve-artifacts-'))
const key = `kr_${randomBytes(32).toString('hex')}`
writeFileSync(join(folder, 'seal.key'), randomBytes(32).toString('hex'), { mode: 0o600 })
mkdirSync(join(folder, 'objects'))
writeFileSync(
  join(folder, 'keyreeve.toml'),
  `store.url = "sqlite:${folder}/state.db"
seal.keys = ["file:${folder}/seal.key"]
[[listener]]
bind = "127.0.0.1:0"
[caller.build]
key_sha256 = "${createHash('sha256').update(key).digest('hex')}"
can = ["grant", "tokens", "publish", "artifacts"]
tokens = ["cdn/*"]
[token.cdn]
[objects.disk]
url = "file:${folder}/objects"
[gate.supergraph]
kind = "artifact"
bind = "127.0.0.1:0"
compat = "hive"
origins = ["disk"]
`,
)

const node = spawn(process.argv[2], ['serve', '--node', 'one', '-c', join(folder, 'keyreeve.toml')], {
  stdio: ['ignore', 'pipe', 'inherit'],
})
const deadline = setTimeout(() => fail('it took too long'), PATIENCE_MS)
function fail(why) {
  console.error(`error: ${why}`)
  node.kill('SIGKILL')
  process.exit(1)
}

async function api(method, path, body, kind) {
  const headers = { authorization: `Bearer ${key}`, ...(kind && { 'content-type': kind }) }
  const answer = await fetch(`${urls[0]}${path}`, { method, headers, body })
  const text = await answer.text()
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`)
  return JSON.parse(text)
}
const publish = (name, body) => api('PUT', `/v1/artifacts/supergraph/${TARGET}/${name}`, body)

async function until(what, ask) {
  const end = Date.now() + PATIENCE_MS
  for (;;) {
    if (await ask()) return
    assert.ok(Date.now() < end, `not in time: ${what}`)
    await new Promise((done) => setTimeout(done, 50))
  }
}

// What the clients are answered; they are given fetch itself otherwise.
const statuses = []
const watched = async (...asked) => {
  const answer = await fetch(...asked)
  statuses.push(answer.status)
  return answer
}

const urls = []
for await (const line of createInterface({ input: node.stdout })) {
  urls.push(line.replace('listening on ', ''))
  if (urls.length === 2) break
}
const endpoint = `${urls[1]}/artifacts/v1/${TARGET}`
await publish('supergraph', SUPERGRAPH)
await publish('services', SERVICES)
const { token, id } = await api('POST', '/v1/tokens', JSON.stringify({ target: TARGET, alias: 'gateway' }), 'application/json')

const artifact = createCDNArtifactFetcher({ endpoint: `${endpoint}/supergraph`, accessKey: token, fetch: watched, logger: quiet })
const first = await artifact.fetch()
assert.equal(first.contents, SUPERGRAPH)
assert.deepEqual(await artifact.fetch(), first)
assert.deepEqual(statuses.splice(0), [200, 304], 'the second request is answered by its ETag')
console.log('createCDNArtifactFetcher reads, and asks again by ETag')

const sdl = createSupergraphSDLFetcher({ endpoint, key: token, fetchImplementation: watched, logger: quiet })
assert.equal((await sdl()).supergraphSdl, SUPERGRAPH)
assert.equal((await sdl()).supergraphSdl, SUPERGRAPH)
assert.deepEqual(statuses.splice(0), [200, 304])
console.log('createSupergraphSDLFetcher reads, and asks again by ETag')

const services = createServicesFetcher({ endpoint, key: token, logger: quiet })
const schema = createSchemaFetcher({ endpoint, key: token, logger: quiet })
assert.equal((await services())[0].name, 'a')
assert.equal((await services())[0].name, 'a')
assert.equal((await schema()).sdl, 'type Query { ok: Boolean }')
console.log('createServicesFetcher and createSchemaFetcher read')

// As Apollo's gateway drives it.
const manager = createSupergraphManager({ endpoint, key: token, pollIntervalInMs: 200, fetchImplementation: watched })
let latest = null
const { supergraphSdl, cleanup } = await manager.initialize({ update: (text) => (latest = text) })
assert.equal(supergraphSdl, SUPERGRAPH)
await until('a poll is answered 304', () => statuses.includes(304))
const changed = `${SUPERGRAPH}# changed\n`
await publish('supergraph', changed)
await until('the change is seen', () => latest === changed)
await cleanup()
statuses.splice(0)
console.log('createSupergraphManager polls by ETag, and hands over what is new')

await api('POST', `/v1/tokens/${id}/revoke`, '{}', 'application/json')
const refused = createCDNArtifactFetcher({
  endpoint: `${endpoint}/supergraph`,
  accessKey: token,
  fetch: watched,
  logger: quiet,
  retry: false,
})
await assert.rejects(refused.fetch())
assert.ok(statuses.every((status) => status === 403), `${statuses}`)
artifact.dispose()
refused.dispose()
console.log('a revoked token is refused')

clearTimeout(deadline)
node.kill('SIGTERM')
const code = await new Promise((done) => node.once('exit', done))
rmSync(folder, { recursive: true })
assert.equal(code, 0)
process.exit(0)
