"""What an application does with psycopg 3, as a transcript that is the same at every run."""

import asyncio
import datetime
import sys

import psycopg
from plain import show
from psycopg import sql
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.json import Jsonb

CONNINFO = sys.argv[1]
PEOPLE = "SELECT id, name, email, born, salary, code, tags, profile, seen, card FROM people ORDER BY id"


def failing(what, work):
    try:
        show(what, work())
    except psycopg.Error as error:
        show(what, [type(error).__name__, error.sqlstate, error.diag.message_primary])


def reading(connection):
    show("version", connection.info.parameter_status("server_version"))
    show("encoding", connection.info.encoding)
    show("rows", connection.execute(PEOPLE).fetchall())
    show("binary rows", connection.execute(PEOPLE, binary=True).fetchall())
    show("types", [(c.name, c.type_code) for c in connection.execute(PEOPLE).description])
    one = "SELECT name, email FROM people WHERE id = %s AND born > %s"
    show("parameters", connection.execute(one, (2, datetime.date(1900, 1, 1))).fetchone())
    # Past the threshold the driver prepares by itself.
    for turn in range(8):
        query = "SELECT id, email, salary FROM people WHERE id = %s"
        show("prepared", connection.execute(query, (turn % 3 + 1,)).fetchall())
    query = "SELECT code, seen FROM people WHERE email = %s"
    for address in ("ada@mail.example", "nobody@mail.example"):
        show("by email", connection.execute(query, (address,), prepare=True, binary=True).fetchall())
    with connection.cursor(row_factory=dict_row) as cursor:
        show("dictionaries", cursor.execute(PEOPLE + " LIMIT 1").fetchall())
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        show("names", cursor.execute(PEOPLE + " LIMIT 1").fetchone()._asdict())
    show("iterated", [row[0] for row in connection.execute("SELECT generate_series(1, 2000)")][-1])
    show("stream", list(connection.cursor().stream("SELECT id, email FROM people ORDER BY id")))
    with psycopg.ClientCursor(connection) as cursor:
        show("client side", cursor.execute("SELECT email FROM people WHERE id = %s", (3,)).fetchall())
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT email FROM people WHERE id = 1")
        show("two results", [cursor.fetchall(), cursor.nextset(), cursor.fetchall()])


def writing(connection):
    connection.execute("DROP TABLE IF EXISTS made")
    connection.execute("CREATE TABLE made (id int PRIMARY KEY, at timestamptz, doc jsonb, raw bytea, list int[])")
    # With masks, nobody but this session could tell what there is before.
    connection.commit()
    when = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)
    insert = "INSERT INTO made VALUES (%s, %s, %s, %s, %s)"
    with connection.cursor() as cursor:
        rows = [(n, when, Jsonb({"n": n}), bytes([n, 0, 255]), [n, None]) for n in range(20)]
        cursor.executemany(insert, rows)
        show("executemany", cursor.rowcount)
        cursor.executemany(insert + " RETURNING id", [(n, when, None, b"", []) for n in (30, 31)], returning=True)
        show("returning", [cursor.fetchone(), cursor.nextset(), cursor.fetchone()])
    show("made", connection.execute("SELECT * FROM made WHERE id IN (0, 19, 31) ORDER BY id").fetchall())
    connection.commit()
    failing("duplicate", lambda: connection.execute(insert, (1, None, None, None, None)))
    failing("aborted", lambda: connection.execute("SELECT 1"))
    connection.rollback()
    try:
        with connection.transaction():
            connection.execute("DELETE FROM made WHERE id = 30")
            try:
                with connection.transaction() as inner:
                    connection.execute("DELETE FROM made")
                    raise psycopg.Rollback(inner)
            finally:
                show("savepoint", connection.execute("SELECT count(*) FROM made").fetchone())
    finally:
        connection.rollback()
    failing("division", lambda: connection.execute("SELECT 1 / %s", (0,)).fetchall())
    connection.rollback()
    failing("unknown", lambda: connection.execute("SELECT nothing FROM people"))
    connection.rollback()
    name = sql.Identifier("made")
    connection.execute(sql.SQL("UPDATE {} SET list = %s WHERE id < %s").format(name), ([7], 5))
    show("updated", connection.execute("SELECT count(*) FROM made WHERE list = %s::int[]", ([7],)).fetchone())
    connection.commit()


def cursors(connection):
    with connection.cursor("walk", scrollable=True, withhold=False) as cursor:
        cursor.execute("SELECT id, email, code FROM people ORDER BY id")
        show("fetch", cursor.fetchmany(2))
        cursor.scroll(-1)
        show("scrolled", cursor.fetchone())
    with connection.cursor("bytes", binary=True) as cursor:
        cursor.itersize = 2
        show("binary cursor", [row for row in cursor.execute("SELECT id, salary, seen FROM people ORDER BY id")])
    connection.commit()


def copying(connection):
    with connection.cursor() as cursor:
        with cursor.copy("COPY made (id, raw, list) FROM STDIN") as copy:
            for n in range(100, 300):
                copy.write_row((n, b"\x01\x02", [n]))
        show("copied in", cursor.rowcount)
        with cursor.copy("COPY made (id, list) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "int4[]"])
            for n in range(300, 400):
                copy.write_row((n, [n, n]))
        show("copied in binary", cursor.rowcount)
        with cursor.copy("COPY people (id, email, born) TO STDOUT") as copy:
            copy.set_types(["int4", "text", "date"])
            show("copied out", list(copy.rows()))
        with cursor.copy("COPY people (id, email, salary, tags) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "numeric", "text[]"])
            show("copied out binary", sorted(copy.rows()))
        with cursor.copy("COPY (SELECT email FROM people ORDER BY id) TO STDOUT") as copy:
            show("query copied out", list(copy.rows()))
        with cursor.copy("COPY people (id, email) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)") as copy:
            show("csv", b"".join(copy).decode())

    def broken():
        with connection.cursor() as cursor, cursor.copy("COPY made (id) FROM STDIN") as copy:
            copy.write_row(("no number",))

    failing("broken copy", broken)
    connection.rollback()


def pipelines(connection):
    with connection.pipeline() as pipeline:
        first = connection.execute("SELECT email FROM people WHERE id = %s", (1,))
        second = connection.execute("SELECT id, code FROM people ORDER BY id")
        pipeline.sync()
        third = connection.execute("SELECT salary FROM people WHERE id = %s", (3,))
        show("pipeline", [first.fetchall(), second.fetchall(), third.fetchall()])
    connection.commit()

    def broken():
        with connection.pipeline() as pipeline:
            connection.execute("SELECT 1")
            connection.execute("SELECT 1 / 0")
            connection.execute("SELECT 2")
            pipeline.sync()

    failing("broken pipeline", broken)
    connection.rollback()


def messages(connection):
    notices = []
    connection.add_notice_handler(lambda one: notices.append([one.severity, one.message_primary]))
    connection.execute("DROP TABLE IF EXISTS never_there")
    show("notices", notices)
    connection.commit()
    connection.autocommit = True
    connection.execute("LISTEN news")
    connection.execute("NOTIFY news")
    show("notified", [n.channel for n in connection.notifies(timeout=20, stop_after=1)])
    connection.execute("SET TIME ZONE 'Asia/Tokyo'")
    show("time zone", connection.info.parameter_status("TimeZone"))


async def asynchronous():
    async with await psycopg.AsyncConnection.connect(CONNINFO, autocommit=True) as connection:
        cursor = await connection.execute(PEOPLE, binary=True)
        show("async", await cursor.fetchall())
        async with connection.transaction(), connection.cursor("later") as cursor:
            await cursor.execute("SELECT id, email FROM people ORDER BY id")
            show("async cursor", [row async for row in cursor])
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT email FROM people WHERE id = %s", (n,)) for n in (1, 2)]
            show("async pipeline", [await cursor.fetchone() for cursor in cursors])
        sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.3)
        await connection.cancel_safe()
        try:
            await sleeping
        except psycopg.errors.QueryCanceled as error:
            show("cancelled", error.sqlstate)
        show("and goes on", await (await connection.execute("SELECT 1")).fetchone())


def main():
    with psycopg.connect(CONNINFO) as connection:
        for part in (reading, writing, cursors, copying, pipelines, messages):
            part(connection)
        connection.execute("DROP TABLE made")
    asyncio.run(asynchronous())


main()
