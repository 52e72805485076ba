"""An OPC UA server with nodes as a JSON file describes them, played by asyncua.

Sets nodes as it is told to on a second port, a line of JSON each. Says "ready" when it listens.
"""

import asyncio
import json
import logging
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

from asyncua import Server, ua
from asyncua.common.connection import SecureConnection
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from asyncua.server.internal_session import InternalSession


class Users:
    """Lets everybody in, or those with the right password."""

    def __init__(self, users):
        self.users = users

    def get_user(self, iserver, username=None, password=None, certificate=None):
        if not self.users:
            return User(role=UserRole.Admin)
        if isinstance(password, bytes):
            password = password.decode()
        known = self.users.get(username)
        return User(role=UserRole.User) if known is not None and known == password else None


def scalar(kind, value):
    if kind in ("Float", "Double"):
        return float(value)
    if kind == "DateTime":
        return datetime.fromisoformat(value)
    if kind == "Guid":
        return uuid.UUID(value)
    if kind == "ByteString":
        return bytes.fromhex(value)
    if kind in ("NodeId", "ExpandedNodeId"):
        return ua.NodeId.from_string(value)
    if kind == "StatusCode":
        return ua.StatusCode(value)
    if kind == "QualifiedName":
        return ua.QualifiedName(*value)
    if kind == "LocalizedText":
        return ua.LocalizedText(value)
    if kind == "XmlElement":
        return ua.XmlElement(value)
    return value


def converted(kind, value):
    if isinstance(value, list) and kind != "QualifiedName":
        return [converted(kind, item) for item in value]
    return scalar(kind, value)


def data(entry):
    kind = entry["type"]
    variant = ua.Variant(converted(kind, entry["value"]), getattr(ua.VariantType, kind))
    when = entry.get("source_time")
    when = datetime.fromisoformat(when) if when else datetime.now(timezone.utc)
    return ua.DataValue(variant, StatusCode=ua.StatusCode(entry.get("status", 0)), SourceTimestamp=when)


def shorten(lifetime_ms):
    """Grants channels no longer life than this."""
    granted = SecureConnection.open

    def open_for(self, params, server):
        params.RequestedLifetime = min(params.RequestedLifetime, lifetime_ms)
        return granted(self, params, server)

    SecureConnection.open = open_for


async def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    logging.basicConfig(level=logging.WARNING)
    server = Server(user_manager=Users(config.get("users", {})))
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{config['port']}/")
    policies = [ua.SecurityPolicyType.NoSecurity]
    if security := config.get("security"):
        await server.load_certificate(security["cert"], "pem")
        await server.load_private_key(security["key"], format="pem")
        policies = [getattr(ua.SecurityPolicyType, name) for name in security["policies"]]
        if trusted := security.get("trusted"):
            store = TrustStore([Path(trusted)], [])
            await store.load()
            options = CertificateValidatorOptions.TRUSTED_VALIDATION | CertificateValidatorOptions.PEER_CLIENT
            server.set_certificate_validator(CertificateValidator(options, store))
        if lifetime_ms := security.get("lifetime_ms"):
            shorten(lifetime_ms)
    server.set_security_policy(policies)
    if config.get("users"):
        server.set_identity_tokens([ua.UserNameIdentityToken])
    await server.register_namespace("urn:mycelial:test")
    nodes = {}

    async def add(entry):
        name = ua.NodeId.from_string(entry["id"])
        value = data(entry)
        node = await server.nodes.objects.add_variable(name, f"2:{entry['id']}", value.Value)
        await node.write_value(value)
        nodes[entry["id"]] = node

    async def serve(reader, writer):
        while line := await reader.readline():
            if json.loads(line) == "sessions":
                subscriptions = server.iserver.subscription_service.subscriptions
                writer.write(f"{InternalSession._current_connections} {len(subscriptions)}\n".encode())
                await writer.drain()
                continue
            for entry in json.loads(line):
                if entry["id"] in nodes:
                    await nodes[entry["id"]].write_value(data(entry))
                else:
                    await add(entry)
            writer.write(b"done\n")
            await writer.drain()
        writer.close()

    for entry in config["nodes"]:
        await add(entry)
    async with server:
        await asyncio.start_server(serve, "127.0.0.1", config["control_port"])
        print("ready", flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
