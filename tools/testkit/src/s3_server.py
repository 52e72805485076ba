"""S3 as moto plays it. Signatures are checked by botocore first, and a control path says what is stored."""

import base64
import json
import sys
import threading
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

PORT, BUCKET, REGION = int(sys.argv[1]), "plant", "eu-central-1"
# Certificate, key and authority, if it is to be spoken to with TLS.
CERT, KEY, CA = sys.argv[2:5] if len(sys.argv) > 2 else (None, None, None)
PLACE = f"https://localhost:{PORT}" if CERT else f"http://127.0.0.1:{PORT}"
KEYS = {"tester": "a secret/with+signs"}
CONTROL = "/-control/"
moto = DomainDispatcherApplication(create_backend_app)
# How many of the next requests whose query has this text are answered with 503.
ills = {}
requests = []


def refusal(code, message, status):
    text = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return status, text.encode()


def checked(environ):
    """What is wrong with a request's signature."""
    query = environ["QUERY_STRING"]
    given = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
    key = given.get("X-Amz-Credential", "").split("/")
    if key[0] not in KEYS:
        return refusal("InvalidAccessKeyId", "The key you provided does not exist in our records.", "403 Forbidden")
    if key[2] != REGION:
        return refusal("AuthorizationQueryParametersError", f"expecting '{REGION}'", "400 Bad Request")
    rest = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    url = f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}{environ['RAW_URI'].split('?')[0]}?{rest}"
    headers = {}
    for name in given["X-Amz-SignedHeaders"].split(";"):
        headers[name] = environ["HTTP_" + name.upper().replace("-", "_")]
    request = AWSRequest(environ["REQUEST_METHOD"], url, headers)
    request.context["timestamp"] = given["X-Amz-Date"]
    auth = S3SigV4QueryAuth(Credentials(key[0], KEYS[key[0]]), "s3", REGION)
    canonical = auth.canonical_request(request)
    if auth.signature(auth.string_to_sign(request, canonical), request) != given["X-Amz-Signature"]:
        return refusal("SignatureDoesNotMatch", "The signature we calculated does not match.", "403 Forbidden")
    return None


def control(environ):
    bucket = next(backend["aws"].buckets[BUCKET] for backend in s3_backends.values() if BUCKET in backend["aws"].buckets)
    wish = environ["PATH_INFO"][len(CONTROL):]
    if wish == "objects":
        return {key.name: base64.b64encode(key.value).decode() for key in bucket.keys.values()}
    if wish == "uploads":
        return [upload.key_name for upload in bucket.multiparts.values()]
    if wish == "requests":
        return requests
    for text, times in parse_qs(environ["QUERY_STRING"]).items():
        ills[text] = int(times[0])
    return None


def app(environ, start_response):
    environ.setdefault("RAW_URI", environ.get("REQUEST_URI", environ["PATH_INFO"]))
    if environ["PATH_INFO"].startswith(CONTROL):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(control(environ)).encode()]
    if environ.get("HTTP_AUTHORIZATION"):
        return moto(environ, start_response)
    wrong = checked(environ)
    line = environ["REQUEST_METHOD"] + " " + environ["RAW_URI"]
    path, _, query = line.partition("?")
    requests.append(path + "?" + "&".join(part for part in query.split("&") if not part.startswith("X-Amz-")))
    if wrong is None:
        for text, times in ills.items():
            if times > 0 and text in line:
                ills[text] -= 1
                wrong = refusal("SlowDown", "Please reduce your request rate.", "503 Service Unavailable")
                break
    if wrong is not None:
        # The body is taken, or the connection could not be used again.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, body = wrong
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]
    return moto(environ, start_response)


class Handler(WSGIRequestHandler):
    """Logs what a store is asked, and not what a test asks."""

    def log_request(self, *args):
        if CONTROL not in self.path:
            super().log_request(*args)


server = make_server(
    "127.0.0.1", PORT, app, threaded=True, request_handler=Handler, ssl_context=(CERT, KEY) if CERT else None
)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = boto3.client(
    "s3",
    endpoint_url=PLACE,
    verify=CA,
    region_name=REGION,
    aws_access_key_id="tester",
    aws_secret_access_key=KEYS["tester"],
)
client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
print("ready", flush=True)
threading.Event().wait()
