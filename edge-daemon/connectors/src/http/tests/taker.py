"""Takes records as a service of somebody else would, each request once by its key. The path says what else happens."""

import json
import os
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()


def lines(name):
    return open(name).read().splitlines() if os.path.exists(name) else []


def append(name, entries):
    with open(name, "a") as file:
        file.writelines(entry + "\n" for entry in entries)


def is_told(name):
    """Whether a test wants this to happen now; it happens once."""
    if os.path.exists(name):
        os.remove(name)
        return True
    return False


class Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body="", headers=None):
        body = body.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def store(self, records):
        key = self.headers["Idempotency-Key"]
        if key not in lines("keys"):
            append("out", [json.dumps(record) for record in records])
            append("keys", [key])

    def handle_one(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        note = {"method": self.command, "path": self.path, "headers": headers, "body": body, "peer": self.client_address[1]}
        append("requests", [json.dumps(note)])
        _, way, *rest = self.path.split("?")[0].split("/")
        if way == "status":
            return self.answer(int(rest[0]), "not now\n", {"Retry-After": rest[1]} if len(rest) > 1 else {})
        if way == "moved":
            return self.answer(307, headers={"Location": "/take"})
        if way == "slow":
            time.sleep(30)
        if way == "garbage":
            self.wfile.write(b"nonsense\r\n\r\n")
            self.close_connection = True
            return None
        if way == "huge":
            return self.answer(200, "x" * 2_000_000)
        if way == "raw":
            self.store([body])
            return self.answer(204)
        records = json.loads(body) if body.startswith("[") else [json.loads(line) for line in body.splitlines()]
        if way == "hot" and any(record["t"] > 100 for record in records):
            return self.answer(400, '{"error": "too hot"}')
        if way == "outcomes":
            is_full = is_told("full")
            statuses = [422 if r["t"] > 100 else 503 if is_full and r["t"] == 50 else 201 for r in records]
            self.store([record for record, status in zip(records, statuses) if status == 201])
            told = [{"status": s, "error": "too hot"} if s == 422 else {"status": s} for s in statuses]
            return self.answer(207, json.dumps(told))
        self.store(records)
        if is_told("crash"):
            os.kill(os.getpid(), 9)
        if is_told("drop"):
            self.close_connection = True
            return None
        return self.answer(200, "taken")

    def do_POST(self):
        with LOCK:
            self.handle_one()

    do_PUT = do_PATCH = do_POST


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Taker)
server.daemon_threads = True
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening")
server.serve_forever()
