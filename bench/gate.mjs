// A CDN worker in the peer's style, on Node: a file, behind a key whose bcrypt hash lies beside it. The verdict on a key is
// kept for 300 seconds, under the key itself.
//   node gate.mjs FOLDER        listens on a free port and says which
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import bcrypt from 'bcryptjs'

const root = process.argv[2]
const VERDICT_MS = 300_000
const verdicts = new Map()

async function isAllowed(target, text) {
  const kept = verdicts.get(`${target}|${text}`)
  if (kept && kept.until > Date.now()) return kept.allowed
  const [keyId, secret] = Buffer.from(text.slice(3), 'base64').toString().split(':')
  const hash = await readFile(`${root}/cdn-keys/${target}/${keyId}`, 'utf8').catch(() => null)
  const allowed = hash !== null && (await bcrypt.compare(secret, hash))
  verdicts.set(`${target}|${text}`, { allowed, until: Date.now() + VERDICT_MS })
  return allowed
}

const server = createServer(async (request, response) => {
  const [, , version, target, type] = request.url.split('/')
  const key = request.headers['x-hive-cdn-key']
  if (version !== 'v1' || !key) return response.writeHead(400, { 'content-length': 0 }).end()
  if (!(await isAllowed(target, key))) return response.writeHead(403, { 'content-length': 0 }).end()
  const body = await readFile(`${root}/artifact/${target}/${type}`).catch(() => null)
  if (body === null) return response.writeHead(404, { 'content-length': 0 }).end()
  const etag = `"${createHash('md5').update(body).digest('hex')}"`
  if (request.headers['if-none-match'] === etag) return response.writeHead(304, { etag }).end()
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': body.length, etag }).end(body)
})
server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`))
