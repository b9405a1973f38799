'use strict';

// A todo app's backend as one writes it in an afternoon: Express, ws, everything in memory. It
// speaks the plain protocol (PROTOCOL.md, §4 and §5) and knows nothing of cursors, numbers or acks.
//
// The flags make it clumsier:
//
//   --token T           only this token is let in
//   --no-pong           pings are not answered
//   --no-subscribed     subscriptions are not confirmed
//   --no-version        records show no version
//   --no-updated-at     records show no time
//   --naive-timestamps  times have no offset
//   --id-field F        records call their id F by HTTP
//   --bare-array        a query answers a bare array
//   --newest-first      a query shows what was changed last first, so that rows move between pages
//   --echo              who writes by WebSocket gets the change back, too
//   --no-409            a PATCH ignores `baseVersion`
//   --ws-relay-only     what comes by WebSocket is passed on, but not stored
//   --ws-only           there are no HTTP calls
//   --http-only         there is no WebSocket
//   --cut-every N       every Nth message cuts its connection, in turns before and after it was
//                       looked at
//
// It prints {"port": …} and ends when its input ends. A line `cut` on the input cuts all
// connections; `stats` prints what was counted.

const http = require('http');
const readline = require('readline');
const { parseArgs } = require('util');
const express = require('express');
const { WebSocketServer } = require('ws');

const { values: flags } = parseArgs({
  options: {
    token: { type: 'string' },
    'no-pong': { type: 'boolean' },
    'no-subscribed': { type: 'boolean' },
    'no-version': { type: 'boolean' },
    'no-updated-at': { type: 'boolean' },
    'naive-timestamps': { type: 'boolean' },
    'id-field': { type: 'string', default: 'recordId' },
    'bare-array': { type: 'boolean' },
    'newest-first': { type: 'boolean' },
    echo: { type: 'boolean' },
    'no-409': { type: 'boolean' },
    'ws-relay-only': { type: 'boolean' },
    'ws-only': { type: 'boolean' },
    'http-only': { type: 'boolean' },
    'cut-every': { type: 'string' },
  },
});
const cutEvery = Number(flags['cut-every'] || 0);

const stats = { requests: 0, messages: 0, writes: 0, connections: 0, cuts: 0 };

// ---------------------------------------------------------------- the data

const collections = new Map();

function rowsOf(name) {
  if (!collections.has(name)) collections.set(name, new Map());
  return collections.get(name);
}

function showTime(date) {
  const text = date.toISOString();
  return flags['naive-timestamps'] ? text.replace('Z', '') : text;
}

/** A client's time without offset is UTC. */
function readTime(text) {
  return new Date(/(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : text + 'Z');
}

/** What of a row is shown beside its id and data. */
function extras(row) {
  const shown = {};
  if (!flags['no-version']) shown.version = row.version;
  if (!flags['no-updated-at']) shown.updatedAt = showTime(row.updatedAt);
  return shown;
}

function store(name, id, data) {
  stats.writes += 1;
  const before = rowsOf(name).get(id);
  const version = (before ? before.version : 0) + 1;
  const row = { id, data, version, updatedAt: new Date() };
  rowsOf(name).set(id, row);
  return row;
}

// ---------------------------------------------------------------- the WebSocket

const sockets = new Set();

function send(socket, message) {
  if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
}

/** Tells everyone who has subscribed, but the one whose change it is. */
function broadcast(author, message) {
  for (const socket of sockets) {
    if (socket.subscriptions.has(message.collection) && (socket !== author || flags.echo)) {
      send(socket, message);
    }
  }
}

function announce(author, type, name, id, data, row, user) {
  const metadata = {};
  if (row && !flags['no-version']) metadata.version = row.version;
  if (user) metadata.userId = user;
  const timestamp = showTime(row ? row.updatedAt : new Date());
  broadcast(author, { type, collection: name, recordId: id, data, timestamp, metadata });
}

function refuse(socket, code, error, about = {}) {
  send(socket, { type: 'error', code, error, ...about });
}

function onMessage(socket, message) {
  const { type, collection, recordId, data } = message;
  if (type === 'auth') {
    const token = (data && data.token) || message.token;
    if (flags.token && token !== flags.token) return refuse(socket, 'AUTH_FAILED', 'wrong token');
    socket.user = token;
    return send(socket, { type: 'authenticated' });
  }
  if (flags.token && !socket.user) return refuse(socket, 'AUTH_FAILED', 'say who you are first');
  const about = { collection, recordId };
  switch (type) {
    case 'ping':
      if (!flags['no-pong']) send(socket, { type: 'pong', timestamp: showTime(new Date()) });
      return undefined;
    case 'subscribe': {
      socket.subscriptions.add(collection);
      const metadata = { recordCount: rowsOf(collection).size };
      if (!flags['no-subscribed']) send(socket, { type: 'subscribed', collection, metadata });
      return undefined;
    }
    case 'unsubscribe':
      socket.subscriptions.delete(collection);
      return send(socket, { type: 'unsubscribed', collection });
    case 'sync': {
      const records = [...rowsOf(collection).values()].map((row) => ({
        id: row.id, data: row.data, ...extras(row),
      }));
      return send(socket, { type: 'sync', collection, data: { records } });
    }
    case 'insert': {
      const row = flags['ws-relay-only'] ? null : store(collection, recordId, data);
      return announce(socket, 'insert', collection, recordId, data, row, socket.user);
    }
    case 'update': {
      if (flags['ws-relay-only']) {
        return announce(socket, 'update', collection, recordId, data, null, socket.user);
      }
      const before = rowsOf(collection).get(recordId);
      if (!before) return refuse(socket, 'RECORD_NOT_FOUND', 'no such record', about);
      const row = store(collection, recordId, { ...before.data, ...data });
      return announce(socket, 'update', collection, recordId, data, row, socket.user);
    }
    case 'delete': {
      if (!flags['ws-relay-only']) {
        if (!rowsOf(collection).delete(recordId)) {
          return refuse(socket, 'RECORD_NOT_FOUND', 'no such record', about);
        }
        stats.writes += 1;
      }
      return announce(socket, 'delete', collection, recordId, undefined, null, socket.user);
    }
    default:
      return refuse(socket, 'INVALID_MESSAGE', `unknown type ${type}`);
  }
}

function cut(socket) {
  stats.cuts += 1;
  socket.terminate();
}

function onFrame(socket, frame) {
  stats.messages += 1;
  const toCut = cutEvery > 0 && stats.messages % cutEvery === 0;
  const unseen = toCut && (stats.messages / cutEvery) % 2 === 1;
  if (!unseen) {
    let message;
    try {
      message = JSON.parse(frame);
    } catch (e) {
      refuse(socket, 'INVALID_MESSAGE', 'that is not JSON');
    }
    if (message) onMessage(socket, message);
  }
  if (toCut) cut(socket);
}

function onConnection(socket, request) {
  stats.connections += 1;
  socket.subscriptions = new Set();
  socket.user = tokenOf(request);
  sockets.add(socket);
  socket.on('message', (frame) => onFrame(socket, frame));
  socket.on('close', () => sockets.delete(socket));
  socket.on('error', () => socket.terminate());
}

// ---------------------------------------------------------------- HTTP

function tokenOf(request) {
  const header = request.headers.authorization || '';
  const query = new URL(request.url, 'http://localhost').searchParams;
  return header.replace(/^Bearer\s+/i, '') || query.get('token');
}

const app = express();
app.disable('x-powered-by');
app.use((request, response, next) => {
  stats.requests += 1;
  if (flags['ws-only']) return response.status(404).send('Not found');
  request.user = tokenOf(request);
  if (flags.token && request.user !== flags.token) {
    return response.status(401).json({ error: 'who are you?', code: 'AUTH_FAILED' });
  }
  return next();
});
app.use(express.json({ limit: '1mb' }));

const answerOf = (row) => ({ [flags['id-field']]: row.id, ...extras(row) });
const recordOf = (row) => ({ [flags['id-field']]: row.id, data: row.data, ...extras(row) });

app.post('/sync/:collection', (request, response) => {
  const { recordId, data } = request.body;
  if (!recordId || typeof data !== 'object') {
    return response.status(400).json({ error: 'recordId and data, please' });
  }
  const { collection } = request.params;
  const row = store(collection, recordId, data);
  announce(null, 'insert', collection, recordId, data, row, request.user);
  return response.json(answerOf(row));
});

app.patch('/sync/:collection/:id', (request, response) => {
  const { collection, id } = request.params;
  const { delta, baseVersion } = request.body;
  const before = rowsOf(collection).get(id);
  if (!before) return response.status(404).json({ error: 'no such record', code: 'RECORD_NOT_FOUND' });
  if (!flags['no-409'] && baseVersion !== undefined && baseVersion < before.version) {
    return response.status(409).json({ error: 'it has changed', code: 'CONFLICT', record: recordOf(before) });
  }
  const row = store(collection, id, { ...before.data, ...delta });
  announce(null, 'update', collection, id, delta, row, request.user);
  return response.json(answerOf(row));
});

app.delete('/sync/:collection/:id', (request, response) => {
  const { collection, id } = request.params;
  if (rowsOf(collection).delete(id)) {
    stats.writes += 1;
    announce(null, 'delete', collection, id, undefined, null, request.user);
  }
  return response.status(204).end();
});

app.get('/sync/:collection', (request, response) => {
  let rows = [...rowsOf(request.params.collection).values()];
  const { since, limit, offset } = request.query;
  if (since) {
    const time = readTime(since);
    rows = rows.filter((row) => row.updatedAt > time);
  }
  if (flags['newest-first']) rows.sort((a, b) => b.updatedAt - a.updatedAt);
  const first = Number(offset || 0);
  rows = rows.slice(first, limit === undefined ? undefined : first + Number(limit));
  const records = rows.map(recordOf);
  response.json(flags['bare-array'] ? records : { records });
});

// ---------------------------------------------------------------- up and down

const server = http.createServer(app);
if (!flags['http-only']) {
  const wss = new WebSocketServer({ noServer: true });
  wss.on('connection', onConnection);
  server.on('upgrade', (request, socket, head) => {
    const token = tokenOf(request);
    if (flags.token && token && token !== flags.token) {
      return socket.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n');
    }
    return wss.handleUpgrade(request, socket, head, (ws) => wss.emit('connection', ws, request));
  });
}
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});

const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => {
  if (line === 'cut') [...sockets].forEach(cut);
  if (line === 'stats') console.log(JSON.stringify(stats));
});
input.on('close', () => process.exit(0));
