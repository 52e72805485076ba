"""Runs a file of a user's own for Mycelial: what it reads, changes or writes goes over two pipes as lines of JSON.

The daemon sends this text, then a line that says what to run. Only the standard library of Python 3.7 or later is used.
What the user's code prints goes to the daemon's log and never among the answers.

An answer begins with what it is: `{` a record, `-` a record that was left out, `?` one that cannot go on and why, `.` all is
done, `!` nothing can go on and why, `#` the code cannot run at all and why.
"""

import json
import os
import sys
import threading
import time as clock
import types
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

INT_MIN, INT_MAX = -(2**63), 2**64 - 1
EPOCH = datetime(1970, 1, 1)
EPOCH_UTC = EPOCH.replace(tzinfo=timezone.utc)
DAY_ZERO = EPOCH.toordinal()
DAY_NANOS = 86400 * 10**9
# How long answers may wait for more of them, in seconds.
FLUSH_SECONDS = 0.2
# The longest answer about one record, in bytes.
RECORD_BYTES_MAX = 64 * 1024 * 1024
# The longest text about an error, in characters.
REASON_CHARS_MAX = 500
FILE = "your code"
# Made before it is needed: then there may be no memory to make it.
OUT_OF_MEMORY = b'!"it needs more memory than it may have (memory_mib)"\n'


class Record(dict):
    """A record: its columns by name. `op` is what it does at the destination: insert, update, delete or upsert."""

    __slots__ = ("op", "collection")

    def __init__(self, *columns, op="insert", collection="", **more):
        super().__init__(*columns, **more)
        self.op = op
        self.collection = collection


class FineDateTime(datetime):
    """A datetime that knows the nanoseconds below its microseconds. What is computed from it does not."""

    nanosecond = 0


class FineTime(time):
    """A time that knows the nanoseconds below its microseconds."""

    nanosecond = 0


def moment(nanos, zone=None):
    micros, rest = divmod(nanos, 1000)
    value = EPOCH + timedelta(microseconds=micros)
    if zone is not None:
        value = value.replace(tzinfo=timezone.utc).astimezone(zone)
    if rest:
        value = FineDateTime.combine(value.date(), value.timetz())
        value.nanosecond = rest
    return value


def clock_time(nanos):
    if nanos >= DAY_NANOS:
        raise ValueError("a time after midnight's end")
    value = moment(nanos).time()
    if nanos % 1000:
        value = FineTime(value.hour, value.minute, value.second, value.microsecond)
        value.nanosecond = nanos % 1000
    return value


DECODE = {
    "decimal": Decimal,
    "bytes": bytes.fromhex,
    "date": lambda days: date.fromordinal(DAY_ZERO + days),
    "time": clock_time,
    "timestamp": moment,
    "timestamp_utc": lambda nanos: moment(nanos, timezone.utc),
    "timestamp_offset": lambda nanos, minutes: moment(nanos, timezone(timedelta(minutes=minutes))),
    "uuid": UUID,
    "json": json.loads,
    "list": lambda items: [decode(item) for item in items],
    "u64": int,
    "null": lambda: None,
}


def decode(cell):
    return DECODE[cell[0]](*cell[1:]) if type(cell) is list else cell


def to_json(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def nanos_since(value, epoch):
    since = value - epoch
    micros = (since.days * 86400 + since.seconds) * 1000000 + since.microseconds
    return str(micros * 1000 + getattr(value, "nanosecond", 0))


def encode_datetime(value):
    offset = value.utcoffset()
    if offset is None:
        return ["timestamp", nanos_since(value, EPOCH)]
    minutes, rest = divmod(offset, timedelta(minutes=1))
    if rest:
        raise ValueError("is a datetime whose offset has seconds")
    if minutes == 0:
        return ["timestamp_utc", nanos_since(value, EPOCH_UTC)]
    return ["timestamp_offset", nanos_since(value, EPOCH_UTC), str(minutes)]


def encode_time(value):
    if value.tzinfo is not None:
        raise ValueError("is a time with a zone; columns hold times without one")
    micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 1000000 + value.microsecond
    return ["time", str(micros * 1000 + getattr(value, "nanosecond", 0))]


def encode_decimal(value):
    if not value.is_finite():
        raise ValueError("is the decimal %s, which no column can hold" % value)
    return ["decimal", format(value, "f")]


def encode(value, inside=False):
    """A value as JSON; `inside` a list, where floats are not read with every digit."""
    if value is None or value is True or value is False or type(value) is str:
        return value
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise ValueError("is an integer beyond 64 bits: %d" % value if abs(value) < 10**40 else "is a huge integer")
        return int(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return ["f64", "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"]
        return ["f64", repr(float(value))] if inside else float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, datetime):
        return encode_datetime(value)
    if isinstance(value, date):
        return ["date", str(value.toordinal() - DAY_ZERO)]
    if isinstance(value, time):
        return encode_time(value)
    if isinstance(value, Decimal):
        return encode_decimal(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, UUID):
        return ["uuid", value.hex]
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple, dict)) for item in value):
        return ["list", [encode(item, True) for item in value]]
    if isinstance(value, (list, tuple, dict)):
        return ["json", to_json(value)]
    raise ValueError("is a %s, which no column can hold" % type(value).__name__)


def encode_record(record, json_columns, originals):
    """The line of a record. `json_columns` hold JSON whatever stands in them; what of it was not changed stays as written."""
    if not isinstance(record, dict):
        raise ValueError("a record is a dict, and this is a %s" % type(record).__name__)
    cells = {}
    for name, value in record.items():
        if type(name) is not str:
            raise ValueError("the name of a column is a text, and this is a %s: %r" % (type(name).__name__, name))
        try:
            if name in json_columns and (value is not None or name in originals):
                text = to_json(value)
                original = originals.get(name)
                if original is not None and to_json(json.loads(original)) == text:
                    text = original
                cells[name] = ["json", text]
            else:
                cells[name] = encode(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError("column '%s' %s" % (name, error)) from None
    return cells


class Channel:
    """The two pipes to the daemon. Nobody but this knows them."""

    def __init__(self, source):
        self.source = source
        self.sink = os.fdopen(os.dup(1), "wb", 64 * 1024)
        # What is printed, also by programs the user's code starts, is for the log.
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self.flushed = clock.monotonic()

    def hear(self):
        """What the daemon says next. The end of the pipe is the end of this program."""
        line = self.source.readline()
        if not line:
            os._exit(0)
        return json.loads(line.decode())

    def say(self, line):
        self.sink.write(line)
        self.sink.write(b"\n")
        now = clock.monotonic()
        if now - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self):
        self.sink.flush()
        self.flushed = clock.monotonic()

    def tell(self, sign, text):
        self.say(sign + json.dumps(text[:REASON_CHARS_MAX]).encode())
        self.flush()


def told(error):
    """An exception for a person: what it is, and the line of the user's code."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == FILE else None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == FILE:
            line = step.tb_lineno
        step = step.tb_next
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    text = "%s: %s" % (type(error).__name__, text) if text else type(error).__name__
    return text[: REASON_CHARS_MAX - 30] + (" (line %d)" % line if line else "")


def record_of(names, row, collection):
    """The record of a row, which of its columns an update leaves as they were, and JSON as it was written."""
    record, unchanged, originals = Record(op=row[0], collection=collection), [], {}
    for name, cell in zip(names, row[1:]):
        if type(cell) is list:
            kind = cell[0]
            if kind == "missing":
                continue
            if kind == "unchanged":
                unchanged.append(name)
                continue
            if kind == "json":
                originals[name] = cell[1]
            try:
                cell = DECODE[kind](*cell[1:])
            except (ValueError, OverflowError, ArithmeticError) as error:
                raise ValueError("column '%s' holds what Python cannot: %s" % (name, error)) from None
        record[name] = cell
    return record, unchanged, originals


def line_of(cells):
    line = json.dumps(cells, ensure_ascii=False, separators=(",", ":")).encode()
    if len(line) > RECORD_BYTES_MAX:
        raise ValueError("the record has %d bytes, more than a record may have" % len(line))
    return line


def transform(function, setup, channel):
    declared = set(setup["json"])
    while True:
        heading = channel.hear()
        names = heading["columns"]
        json_columns = declared.union(heading["json"])
        for _ in range(heading["rows"]):
            row = channel.hear()
            try:
                record, unchanged, originals = record_of(names, row, heading["collection"])
                record = function(record)
                if record is None:
                    channel.say(b"-")
                    continue
                cells = encode_record(record, json_columns, originals)
                for name in unchanged:
                    cells.setdefault(name, ["unchanged"])
                channel.say(line_of(cells))
            except MemoryError:
                raise
            except Exception as error:
                reason = str(error) if is_ours(error) else told(error)
                channel.say(b"?" + json.dumps(reason[:REASON_CHARS_MAX]).encode())
        channel.flush()


def is_ours(error):
    """Whether an error arose here and not in the user's code: then its text says everything."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == FILE:
            return False
        step = step.tb_next
    return True


def read(function, setup, channel):
    json_columns = frozenset(setup["json"])
    while True:
        for found in function(channel.hear()["cursor"]):
            line = {}
            if isinstance(found, tuple) and len(found) == 2:
                found, line["cursor"] = found
            try:
                op = found.op if isinstance(found, Record) else "insert"
                if op != "insert":
                    line["op"] = str(op)
                line["record"] = encode_record(found, json_columns, {})
                text = line_of(line)
            except ValueError as error:
                text = b"?" + json.dumps([str(error)[:REASON_CHARS_MAX], repr(found)[:REASON_CHARS_MAX]]).encode()
            channel.say(text)
            # The next record may take its time, and this one need not wait for it.
            channel.flush()
        channel.tell(b".", "")


def write(function, setup, channel):
    takes_key = function.__code__.co_argcount > 1 if hasattr(function, "__code__") else False
    while True:
        heading = channel.hear()
        records, places, refused = [], [], {}
        for place in range(heading["rows"]):
            try:
                records.append(record_of(heading["columns"], channel.hear(), heading["collection"])[0])
                places.append(place)
            except ValueError as error:
                refused[place] = str(error)
        if records:
            told_back = function(records, heading["key"]) if takes_key else function(records)
            for place, reason in (told_back or {}).items():
                refused[places[place]] = str(reason)[:REASON_CHARS_MAX]
        channel.say(json.dumps(refused).encode())
        channel.flush()


ROLES = {"transform": transform, "read": read, "write": write}


def limit_memory(limit):
    try:
        import resource

        kind = resource.RLIMIT_DATA if sys.platform.startswith("linux") else resource.RLIMIT_AS
        resource.setrlimit(kind, (limit, limit))
    except (ImportError, ValueError, OSError) as error:
        print("this system has no limit for memory: %s" % error)


def die_with(parent):
    """Nobody would end this program if the daemon were killed while the user's code is busy."""
    try:
        import ctypes

        # PR_SET_PDEATHSIG, SIGKILL.
        by_kernel = sys.platform.startswith("linux") and ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        by_kernel = False
    if not by_kernel:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def watch(parent):
    while os.getppid() == parent:
        clock.sleep(1)
    os._exit(1)


def load(setup):
    """The user's function, or why there is none."""
    place = types.ModuleType("mycelial")
    place.Record = Record
    sys.modules["mycelial"] = place
    code = types.ModuleType("__your_code__")
    exec(compile(setup["code"], FILE, "exec", dont_inherit=True), code.__dict__)
    function = code.__dict__.get(setup["function"])
    if not callable(function):
        raise NameError("it has no function `%s`" % setup["function"])
    return function


def main(source):
    channel = Channel(source)
    setup = channel.hear()
    die_with(setup["parent"])
    limit_memory(setup["memory_bytes"])
    try:
        try:
            function = load(setup)
        except (SyntaxError, NameError) as error:
            channel.tell(b"#", told(error) if not is_ours(error) or isinstance(error, SyntaxError) else str(error))
            os._exit(1)
        channel.tell(b".", "")
        ROLES[setup["function"]](function, setup, channel)
    except MemoryError:
        channel.sink.write(OUT_OF_MEMORY)
        channel.flush()
    except BaseException as error:
        channel.tell(b"!", told(error))
    os._exit(1)


main(source)
