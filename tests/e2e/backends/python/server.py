"""A notes app's backend as one writes it in an afternoon: aiohttp, everything in a dictionary.

It speaks the plain protocol (PROTOCOL.md, sections 4 and 5) and knows nothing of cursors, numbers
or acks. It differs from the Node one where two developers would: times carry +00:00 and
microseconds, a POST answers 201, unknown messages are skipped in silence, errors are plain text.

It takes the flags that the Node one takes; its head says what they do.

It prints {"port": ...} and ends when its input ends. A line `cut` on the input cuts all
connections; `stats` prints what was counted.
"""

import argparse
import asyncio
import json
import sys
from datetime import datetime, timezone

from aiohttp import WSCloseCode, WSMsgType, web


def parse_flags():
    parser = argparse.ArgumentParser()
    parser.add_argument("--token")
    parser.add_argument("--id-field", default="recordId")
    parser.add_argument("--cut-every", type=int, default=0)
    for name in (
        "no-pong no-subscribed no-version no-updated-at naive-timestamps bare-array newest-first "
        "echo no-409 ws-relay-only ws-only http-only"
    ).split():
        parser.add_argument("--" + name, action="store_true")
    return parser.parse_args()


FLAGS = parse_flags()
STATS = {"requests": 0, "messages": 0, "writes": 0, "connections": 0, "cuts": 0}
COLLECTIONS = {}
CLIENTS = set()


# ---------------------------------------------------------------- the data


def now():
    return datetime.now(timezone.utc)


def show_time(time):
    if FLAGS.naive_timestamps:
        time = time.replace(tzinfo=None)
    return time.isoformat()


def read_time(text):
    # a `+` that was not encoded has become a space
    time = datetime.fromisoformat(text.replace(" ", "+").replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def rows_of(collection):
    return COLLECTIONS.setdefault(collection, {})


def store(collection, record_id, data):
    STATS["writes"] += 1
    rows = rows_of(collection)
    version = rows[record_id]["version"] + 1 if record_id in rows else 1
    row = {"id": record_id, "data": data, "version": version, "updated_at": now()}
    rows[record_id] = row
    return row


def extras(row):
    shown = {}
    if not FLAGS.no_version:
        shown["version"] = row["version"]
    if not FLAGS.no_updated_at:
        shown["updatedAt"] = show_time(row["updated_at"])
    return shown


def shown(row, id_field):
    return {id_field: row["id"], "data": row["data"], **extras(row)}


# ---------------------------------------------------------------- the WebSocket


class Client:
    def __init__(self, socket, transport, user):
        self.socket = socket
        self.transport = transport
        self.user = user
        self.subscriptions = set()

    async def send(self, message):
        try:
            await self.socket.send_str(json.dumps(message))
        except (ConnectionError, RuntimeError):
            pass

    def cut(self):
        STATS["cuts"] += 1
        if self.transport is not None:
            self.transport.abort()


async def announce(author, kind, collection, record_id, data=None, row=None, user=None):
    message = {
        "type": kind,
        "collection": collection,
        "recordId": record_id,
        "timestamp": show_time(row["updated_at"] if row else now()),
        "metadata": {"userId": user} if user else {},
    }
    if data is not None:
        message["data"] = data
    if row and not FLAGS.no_version:
        message["metadata"]["version"] = row["version"]
    for client in list(CLIENTS):
        if collection in client.subscriptions and (client is not author or FLAGS.echo):
            await client.send(message)


async def on_message(client, message):
    kind = message.get("type")
    collection, record_id = message.get("collection"), message.get("recordId")
    data = message.get("data")
    if kind == "auth":
        token = (data or {}).get("token") or message.get("token")
        if FLAGS.token and token != FLAGS.token:
            return await client.send({"type": "error", "code": "AUTH_FAILED", "error": "wrong token"})
        client.user = token
        return await client.send({"type": "authenticated"})
    if FLAGS.token and not client.user:
        return await client.send({"type": "error", "code": "AUTH_FAILED", "error": "no token"})
    rows = rows_of(collection)
    if kind == "ping":
        if not FLAGS.no_pong:
            await client.send({"type": "pong", "timestamp": show_time(now())})
    elif kind == "subscribe":
        client.subscriptions.add(collection)
        if not FLAGS.no_subscribed:
            metadata = {"recordCount": len(rows)}
            await client.send(
                {"type": "subscribed", "collection": collection, "metadata": metadata}
            )
    elif kind == "unsubscribe":
        client.subscriptions.discard(collection)
        await client.send({"type": "unsubscribed", "collection": collection})
    elif kind == "sync":
        records = [shown(row, "id") for row in rows.values()]
        await client.send({"type": "sync", "collection": collection, "data": {"records": records}})
    elif kind in ("insert", "update", "delete"):
        row = None
        if not FLAGS.ws_relay_only:
            if kind != "insert" and record_id not in rows:
                error = {"type": "error", "code": "RECORD_NOT_FOUND", "error": "no such record"}
                return await client.send({**error, "collection": collection, "recordId": record_id})
            if kind == "delete":
                del rows[record_id]
                STATS["writes"] += 1
            else:
                old = rows[record_id]["data"] if kind == "update" else {}
                row = store(collection, record_id, {**old, **data})
        data = None if kind == "delete" else data
        await announce(client, kind, collection, record_id, data, row, client.user)
    return None


async def on_frame(client, text):
    """Returns whether the connection goes on."""
    STATS["messages"] += 1
    count, every = STATS["messages"], FLAGS.cut_every
    to_cut = every > 0 and count % every == 0
    unseen = to_cut and (count // every) % 2 == 1
    if not unseen:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if isinstance(message, dict):
            await on_message(client, message)
        else:
            error = {"type": "error", "code": "INVALID_MESSAGE", "error": "that is no JSON object"}
            await client.send(error)
    if to_cut:
        client.cut()
    return not to_cut


async def websocket(request):
    token = token_of(request)
    if FLAGS.token and token and token != FLAGS.token:
        raise web.HTTPUnauthorized(text="wrong token")
    socket = web.WebSocketResponse(heartbeat=None)
    try:
        await socket.prepare(request)
    except ConnectionError:
        return socket
    STATS["connections"] += 1
    client = Client(socket, request.transport, token)
    CLIENTS.add(client)
    try:
        async for frame in socket:
            if frame.type == WSMsgType.TEXT and not await on_frame(client, frame.data):
                break
    finally:
        CLIENTS.discard(client)
    return socket


# ---------------------------------------------------------------- HTTP


def token_of(request):
    header = request.headers.get("Authorization", "")
    if header.lower().startswith("bearer "):
        return header[7:].strip()
    return request.query.get("token")


@web.middleware
async def guard(request, handler):
    if "upgrade" in request.headers.get("Connection", "").lower():
        if FLAGS.http_only:
            raise web.HTTPNotFound(text="Not found")
        return await websocket(request)
    STATS["requests"] += 1
    if FLAGS.ws_only:
        raise web.HTTPNotFound(text="Not found")
    if FLAGS.token and token_of(request) != FLAGS.token:
        raise web.HTTPUnauthorized(text="who are you?")
    return await handler(request)


async def body_of(request):
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="a JSON object, please")
    return body


async def create(request):
    collection, body = request.match_info["collection"], await body_of(request)
    if not isinstance(body.get("recordId"), str) or not isinstance(body.get("data"), dict):
        raise web.HTTPBadRequest(text="recordId and data, please")
    row = store(collection, body["recordId"], body["data"])
    await announce(None, "insert", collection, row["id"], row["data"], row, token_of(request))
    return web.json_response({FLAGS.id_field: row["id"], **extras(row)}, status=201)


async def change(request):
    collection, record_id = request.match_info["collection"], request.match_info["id"]
    body = await body_of(request)
    old = rows_of(collection).get(record_id)
    if old is None:
        raise web.HTTPNotFound(text="no such record")
    base = body.get("baseVersion")
    if base is not None and base < old["version"] and not FLAGS.no_409:
        return web.json_response({"record": shown(old, FLAGS.id_field)}, status=409)
    delta = body.get("delta") or {}
    row = store(collection, record_id, {**old["data"], **delta})
    await announce(None, "update", collection, record_id, delta, row, token_of(request))
    return web.json_response({FLAGS.id_field: record_id, **extras(row)})


async def remove(request):
    collection, record_id = request.match_info["collection"], request.match_info["id"]
    if rows_of(collection).pop(record_id, None) is not None:
        STATS["writes"] += 1
        await announce(None, "delete", collection, record_id, user=token_of(request))
    return web.Response(status=204)


async def query(request):
    rows = list(rows_of(request.match_info["collection"]).values())
    if "since" in request.query:
        since = read_time(request.query["since"])
        rows = [row for row in rows if row["updated_at"] > since]
    if FLAGS.newest_first:
        rows.sort(key=lambda row: row["updated_at"], reverse=True)
    first = int(request.query.get("offset", 0))
    last = first + int(request.query["limit"]) if "limit" in request.query else None
    records = [shown(row, FLAGS.id_field) for row in rows[first:last]]
    return web.json_response(records if FLAGS.bare_array else {"records": records})


# ---------------------------------------------------------------- up and down


async def serve():
    app = web.Application(middlewares=[guard])
    app.router.add_post("/sync/{collection}", create)
    app.router.add_get("/sync/{collection}", query)
    app.router.add_patch("/sync/{collection}/{id}", change)
    app.router.add_delete("/sync/{collection}/{id}", remove)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(json.dumps({"port": port}), flush=True)
    await listen()
    for client in list(CLIENTS):
        await client.socket.close(code=WSCloseCode.GOING_AWAY)
    await runner.cleanup()


async def listen():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"cut":
            for client in list(CLIENTS):
                client.cut()
        elif line.strip() == b"stats":
            print(json.dumps(STATS), flush=True)


asyncio.run(serve())
