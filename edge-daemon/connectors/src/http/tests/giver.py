"""Gives records as a service of somebody else would. The path says how; the records are the lines of the file `data`."""

import csv
import hashlib
import io
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


def records():
    lines = open("data").read().splitlines() if os.path.exists("data") else []
    return [json.loads(line) for line in lines if line]


class Giver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body="", headers=None):
        body = body if isinstance(body, bytes) else body.encode()
        with open("requests", "a") as file:
            file.write(json.dumps([self.path, status, self.headers["Authorization"]]) + "\n")
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 304:
            self.wfile.write(body)

    def do_GET(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        _, way, *rest = url.path.split("/")
        size = int(query.get("size", 100))
        every = records() if way != "raw" else []
        if way == "after":
            found = [record for record in every if record["id"] > int(query["id"])]
            return self.answer(200, json.dumps({"data": {"orders": found[:size]}}, indent=1))
        if way == "from":
            found = [record for record in every if record["t"] >= query["t"]]
            return self.answer(200, json.dumps(found))
        if way == "token":
            at = int(query["c"] or 0)
            found = every[at : at + size]
            cursor = str(at + size) if at + size < len(every) else None
            headers = {"X-Cursor": cursor} if cursor else {}
            return self.answer(200, json.dumps({"items": found, "cursor": cursor}), headers)
        if way == "pages":
            at = int(query.get("at", 0))
            more = at + size < len(every)
            link = f"?at={at + size}&size={size}"
            headers = {"Link": f'<{link}>; rel="next"'} if more else {}
            body = {"items": every[at : at + size], "next": self.path.split("?")[0] + link if more else None}
            return self.answer(200, json.dumps(body), headers)
        if way == "list":
            body = json.dumps(every)
            tag = '"' + hashlib.sha256(body.encode()).hexdigest() + '"'
            if self.headers["If-None-Match"] == tag:
                return self.answer(304, headers={"ETag": tag})
            return self.answer(200, body, {"ETag": tag})
        if way == "plain":
            return self.answer(200, json.dumps(every))
        if way == "csv":
            out = io.StringIO()
            writer = csv.DictWriter(out, every[0].keys())
            writer.writeheader()
            writer.writerows(every)
            return self.answer(200, out.getvalue())
        if way == "raw":
            return self.answer(200, open("data", "rb").read())
        if way == "status":
            return self.answer(int(rest[0]), "not now", {"Retry-After": rest[1]} if len(rest) > 1 else {})
        if way == "moved":
            return self.answer(302, headers={"Location": "/list"})
        if way == "elsewhere":
            return self.answer(200, "[]", {"Link": '<http://example.org/>; rel="next"'})
        if way == "circle":
            return self.answer(200, "[]", {"Link": "<>; rel=next"})
        if way == "slow":
            time.sleep(30)
        return self.answer(200, "<html>")


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Giver)
server.daemon_threads = True
print("listening")
server.serve_forever()
