"""How the clients in Python print values: as those in other languages do."""

import datetime
import decimal
import json
import uuid


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat()
    if isinstance(value, (datetime.date, decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    return value


def show(what, value):
    print(f"{what}: {json.dumps(plain(value), ensure_ascii=False)}", flush=True)
