// The network operations of isomorphic-git, one a call: what to do and its arguments come on the command line.
import fs from 'node:fs'
import git from 'isomorphic-git'
import http from 'isomorphic-git/http/node'

/** It takes no credentials in the URL. */
function remote(text) {
  const url = new URL(text)
  const { username, password } = url
  url.username = url.password = ''
  const onAuth = () => (username ? { username, password } : { cancel: true })
  return { fs, http, url: url.toString(), onAuth }
}

async function origin(dir) {
  return remote(await git.getConfig({ fs, dir, path: 'remote.origin.url' }))
}

const verbs = {
  async clone(url, dir, depth) {
    await git.clone({ ...remote(url), dir, ...(depth && { depth: Number(depth) }) })
    await git.setConfig({ fs, dir, path: 'remote.origin.url', value: url })
  },
  async fetch(dir) {
    await git.fetch({ ...(await origin(dir)), dir, remote: 'origin', tags: true })
  },
  async deepen(dir, depth) {
    await git.fetch({ ...(await origin(dir)), dir, remote: 'origin', depth: Number(depth) })
  },
  async push(dir, url, flags, ...refspecs) {
    for (const refspec of refspecs) {
      const [ref, remoteRef] = refspec.split(':')
      const which = ref ? { ref, remoteRef } : { ref: remoteRef, remoteRef, delete: true }
      const result = await git.push({ ...remote(url), dir, ...which, force: flags.includes('force') })
      const refused = Object.entries(result.refs).filter(([, status]) => !status.ok)
      if (!result.ok || refused.length > 0) throw new Error(`refused: ${JSON.stringify(result)}`)
    }
  },
  async ls(url) {
    const refs = await git.listServerRefs({ ...remote(url), protocolVersion: 2 })
    for (const { ref } of refs) console.log(ref)
  },
  async version() {
    console.log(git.version())
  },
}

const [verb, ...args] = process.argv.slice(2)
await verbs[verb](...args)
