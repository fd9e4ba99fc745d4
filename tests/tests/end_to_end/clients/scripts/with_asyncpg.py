"""What an application does with asyncpg, as a transcript that is the same at every run."""

import asyncio
import datetime
import decimal
import io
import json
import sys

import asyncpg
from plain import show

URL = sys.argv[1]
PEOPLE = "SELECT id, name, email, born, salary, code, tags, profile, seen, card FROM people ORDER BY id"
WHEN = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)


def rows(records):
    return [tuple(record) for record in records]


async def failing(what, work):
    try:
        show(what, await work)
    except asyncpg.PostgresError as error:
        show(what, [type(error).__name__, error.sqlstate, error.message])


async def reading(connection):
    show("version", [connection.get_server_version().major, connection.get_settings().client_encoding])
    show("rows", rows(await connection.fetch(PEOPLE)))
    show("again from the cache", rows(await connection.fetch(PEOPLE)))
    one = "SELECT name, email FROM people WHERE id = $1 AND born > $2"
    show("parameters", tuple(await connection.fetchrow(one, 2, datetime.date(1900, 1, 1))))
    show("value", await connection.fetchval("SELECT salary FROM people WHERE email = $1", "ada@mail.example"))
    show("nobody", await connection.fetchrow("SELECT code FROM people WHERE email = $1", "nobody"))
    show("any", rows(await connection.fetch("SELECT id, email FROM people WHERE id = ANY($1::int[]) ORDER BY id", [1, 3])))
    show("script", await connection.execute("SELECT 1; SELECT email FROM people"))
    statement = await connection.prepare("SELECT id, email, seen FROM people WHERE id >= $1 ORDER BY id")
    show("attributes", [[one.name, one.type.name] for one in statement.get_attributes()])
    show("parameters of it", [one.name for one in statement.get_parameters()])
    for first in (1, 3):
        show("prepared", rows(await statement.fetch(first)))
    show("status", statement.get_statusmsg())
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    show("decoded", rows(await connection.fetch("SELECT profile, tags FROM people ORDER BY id")))


async def cursors(connection):
    async with connection.transaction():
        query = "SELECT id, email, salary FROM people ORDER BY id"
        show("iterated", [tuple(one) async for one in connection.cursor(query, prefetch=2)])
        cursor = await connection.cursor(query)
        show("fetched", tuple(await cursor.fetchrow()))
        show("skipped", await cursor.forward(1))
        show("the rest", rows(await cursor.fetch(5)))
        total = 0
        async for one in connection.cursor("SELECT generate_series(1, 5000)", prefetch=500):
            total += one[0]
        show("many", total)


async def writing(connection):
    await connection.execute("DROP TABLE IF EXISTS made")
    await connection.execute(
        "CREATE TABLE made (id int PRIMARY KEY, at timestamptz, amount numeric, raw bytea, list int[], span interval)"
    )
    insert = "INSERT INTO made VALUES ($1, $2, $3, $4, $5, $6)"
    values = [(n, WHEN, decimal.Decimal(n) / 4, bytes([n, 0]), [n, None], datetime.timedelta(days=n)) for n in range(50)]
    await connection.executemany(insert, values)
    many = await connection.fetchmany("INSERT INTO made (id) VALUES ($1) RETURNING id, at", [(60,), (61,)])
    show("fetchmany", rows(many))
    made = await connection.fetch("SELECT id, at, amount, raw, list, span::text FROM made WHERE id IN (0, 49) ORDER BY id")
    show("made", rows(made))
    await failing("duplicate", connection.execute(insert, 1, None, None, None, None, None))
    await failing("half of many", connection.executemany("INSERT INTO made (id) VALUES ($1)", [(70,), (1,), (71,)]))
    show("nothing of it", await connection.fetchval("SELECT count(*) FROM made WHERE id >= 70"))
    await failing("division", connection.fetch("SELECT 1 / $1::int", 0))
    await failing("unknown", connection.fetch("SELECT nothing FROM people"))
    transaction = connection.transaction(isolation="serializable")
    await transaction.start()
    show("deleted", await connection.execute("DELETE FROM made WHERE id < 10"))
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM made")
            raise ValueError
    except ValueError:
        show("savepoint", await connection.fetchval("SELECT count(*) FROM made"))
    await transaction.rollback()
    show("undone", await connection.fetchval("SELECT count(*) FROM made"))
    async with connection.transaction(readonly=True):
        await failing("read only", connection.execute("DELETE FROM made"))
    # The cached statement meets another table than it was prepared for.
    show("before", tuple(await connection.fetchrow("SELECT * FROM made WHERE id = 60")))
    await connection.execute("ALTER TABLE made ADD COLUMN more text DEFAULT 'more'")
    show("after", tuple(await connection.fetchrow("SELECT * FROM made WHERE id = 60")))


async def copying(connection):
    records = [(n, decimal.Decimal(n), [n]) for n in range(100, 400)]
    show("records", await connection.copy_records_to_table("made", records=records, columns=["id", "amount", "list"]))
    csv = io.BytesIO(b"id;more\n500;one\n501;two\n")
    columns = {"columns": ["id", "more"], "format": "csv", "delimiter": ";", "header": True}
    show("csv in", await connection.copy_to_table("made", source=csv, **columns))
    for how in ({"format": "text"}, {"format": "csv", "header": True, "force_quote": True}):
        out = io.BytesIO()
        await connection.copy_from_table("people", output=out, columns=["id", "email", "born", "card"], **how)
        show("table out", out.getvalue().decode())
    out = io.BytesIO()
    query = "SELECT id, email, card FROM people WHERE id <= $1 ORDER BY id"
    show("query out", [await connection.copy_from_query(query, 2, output=out), out.getvalue().decode()])
    out = io.BytesIO()
    await connection.copy_from_table("people", output=out, columns=["email", "name"], format="binary")
    show("binary out", [part for part in (b"mail.example", b"Grace") if part in out.getvalue()] != [])
    await failing("broken", connection.copy_to_table("made", source=io.BytesIO(b"no number\n"), columns=["id"]))


async def messages(connection):
    said = []
    connection.add_log_listener(lambda _, message: said.append([message.severity, message.message]))
    await connection.execute("DROP TABLE IF EXISTS never_there")
    heard = asyncio.Event()
    await connection.add_listener("news", lambda *_: heard.set())
    await connection.execute("NOTIFY news")
    await asyncio.wait_for(heard.wait(), 20)
    show("said", said)
    try:
        await connection.fetch("SELECT pg_sleep(60)", timeout=0.3)
    except asyncio.TimeoutError:
        show("cancelled", await connection.fetchval("SELECT email FROM people WHERE id = 1"))
    await connection.reset()


async def main():
    connection = await asyncpg.connect(URL)
    for part in (reading, cursors, writing, copying, messages):
        await part(connection)
    await connection.execute("DROP TABLE made")
    await connection.close()
    async with asyncpg.create_pool(URL, min_size=2, max_size=4) as pool:
        query = "SELECT email FROM people WHERE id = $1"
        show("pool", await asyncio.gather(*(pool.fetchval(query, n % 3 + 1) for n in range(12))))


asyncio.run(main())
