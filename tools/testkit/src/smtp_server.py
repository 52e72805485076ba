"""A mail server, played by aiosmtpd: prints each mail it takes as a line of JSON. Arguments: port, certificate, key."""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

PORT, CERT, KEY = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "login": session.auth_data,
            "content": envelope.content.decode("utf-8"),
        }
        print("mail " + json.dumps(mail), flush=True)
        return "250 taken"


def login(server, session, envelope, mechanism, data):
    is_right = (data.login, data.password) == (b"plane", b"right horse battery")
    if not is_right:
        return AuthResult(success=False, handled=False)
    return AuthResult(success=True, auth_data=data.login.decode())


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERT, KEY)

    def talk():
        return SMTP(
            Handler(),
            hostname="localhost",
            tls_context=context,
            require_starttls=True,
            authenticator=login,
            auth_required=True,
            auth_require_tls=True,
        )

    server = await asyncio.get_running_loop().create_server(talk, "127.0.0.1", PORT)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
