"""Modbus devices as a JSON file describes them, on a TCP port and perhaps at the end of a pair of pseudo terminals.

What it serves is encoded and framed by pymodbus and Python. Says "ready" when it listens.
"""

import asyncio
import json
import os
import ssl
import sys
import threading
import tty

from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

TYPES = {
    "u16": "UINT16",
    "i16": "INT16",
    "u32": "UINT32",
    "i32": "INT32",
    "u64": "UINT64",
    "i64": "INT64",
    "f32": "FLOAT32",
    "f64": "FLOAT64",
    "text": "STRING",
}
FUNCTIONS = {1: "coil", 2: "discrete_input", 3: "holding", 4: "input"}


def registers(kind, order, value):
    if kind in ("f32", "f64"):
        value = float(value)
    kind = getattr(ModbusClientMixin.DATATYPE, TYPES[kind])
    words = ModbusClientMixin.convert_to_registers(
        value, kind, "little" if order in ("CDAB", "DCBA") else "big"
    )
    if order in ("BADC", "DCBA"):
        words = [word >> 8 | (word & 255) << 8 for word in words]
    return words


def block(table, entries):
    data = []
    for entry in entries:
        if table in ("coil", "discrete_input"):
            address, values = entry
            data.append(SimData(address, values=values, datatype=DataType.BITS))
        else:
            address, *value = entry
            data.append(SimData(address, values=registers(*value), datatype=DataType.REGISTERS))
    if data:
        return data
    # Every table has to have something.
    if table in ("coil", "discrete_input"):
        return [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    return [SimData(60_000, values=[0], datatype=DataType.REGISTERS)]


def devices(config):
    async def take_time(*_):
        await asyncio.sleep(config.get("delay_ms", 0) / 1000)

    return [
        SimDevice(
            unit["id"],
            simdata=tuple(block(table, unit.get(table, [])) for table in FUNCTIONS.values()),
            action=take_time,
        )
        for unit in config["units"]
    ]


def tracer(config, is_rtu):
    """Lets nobody hear what is said for units and addresses that are to be silent, and writes down what was asked.

    On a serial line nobody speaks for a unit that is not there.
    """
    asked, units = {}, [unit["id"] for unit in config["units"]]

    def trace(sending, packet):
        if not sending:
            size = 8 if is_rtu else 12
            frame = packet[-size:][0 if is_rtu else 6 :]
            if len(frame) >= 6:
                unit, function = frame[0], frame[1]
                start, count = int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big")
                print("asked", unit, FUNCTIONS.get(function, function), start, count, flush=True)
                asked["mute"] = (
                    unit in config.get("silent_units", [])
                    or (is_rtu and unit not in units)
                    or any(unit == who and start <= where < start + count for who, where in config.get("silent", []))
                )
            return packet
        return b"" if asked.get("mute") else packet

    return trace


def wire(link):
    """Two terminals, joined. Returns the name of one; `link` leads to the other."""
    ends = [os.openpty(), os.openpty()]
    for _, slave in ends:
        tty.setraw(slave)

    def relay(source, target):
        while True:
            os.write(target, os.read(source, 1024))

    for source, target in ((0, 1), (1, 0)):
        threading.Thread(target=relay, args=(ends[source][0], ends[target][0]), daemon=True).start()
    if os.path.islink(link):
        os.unlink(link)
    os.symlink(os.ttyname(ends[1][1]), link)
    return os.ttyname(ends[0][1])


async def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    address = ("127.0.0.1", config["port"])
    is_rtu = config.get("framing") == "rtu"
    framing = {"framer": FramerType.RTU} if is_rtu else {}
    common = {"trace_packet": tracer(config, is_rtu), **framing}
    if "tls" in config:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config["tls"]["cert"], config["tls"]["key"])
        context.load_verify_locations(config["tls"]["ca"])
        context.verify_mode = ssl.CERT_REQUIRED
        servers = [ModbusTlsServer(devices(config), sslctx=context, address=address)]
    else:
        servers = [ModbusTcpServer(devices(config), address=address, **common)]
    if "serial" in config:
        servers.append(
            ModbusSerialServer(
                devices(config),
                port=wire(config["serial"]),
                baudrate=19200,
                trace_packet=tracer(config, True),
            )
        )
    for server in servers:
        await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
