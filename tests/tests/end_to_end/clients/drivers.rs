//! Drivers of Rust: tokio-postgres and sqlx.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use interceptor_tests::World;
use interceptor_tests::postgres::{DATABASE, PORT, Version, password};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection as _, Executor as _, Row as _, ValueRef as _};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{ROLE, compare};

const PEOPLE: &str = "SELECT id, name, email, born, salary, code, tags, profile, seen, card \
                      FROM people ORDER BY id";
const SOME: &str =
    "SELECT id, email, code, tags, card, seen FROM people WHERE id >= $1 ORDER BY id";

#[test]
fn tokio_postgres_with_15() -> Result<()> {
    compare(Version::Debian, "client-tokio-15", &tokio_postgres)
}

#[test]
fn tokio_postgres_with_18() -> Result<()> {
    compare(Version::Eighteen, "client-tokio-18", &tokio_postgres)
}

#[test]
fn sqlx_with_15() -> Result<()> {
    compare(Version::Debian, "client-sqlx-15", &sqlx)
}

#[test]
fn sqlx_with_18() -> Result<()> {
    compare(Version::Eighteen, "client-sqlx-18", &sqlx)
}

/// Runs a driver on a thread of the client's namespace, where its sockets are to be.
fn inside(world: &World, work: impl AsyncFnOnce() -> Result<String> + Send) -> Result<String> {
    world.client.enter(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), work()).await? })
    })?
}

/// The bytes of a value of any type.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn uuid(raw: &[u8]) -> String {
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let at = |from, to| hex.get(from..to).unwrap_or_default();
    [at(0, 8), at(8, 12), at(12, 16), at(16, 20), at(20, 32)].join("-")
}

fn tokio_postgres(world: &World, host: &str) -> Result<String> {
    inside(world, async || {
        let mut config = tokio_postgres::Config::new();
        config
            .host(host)
            .port(PORT)
            .user(ROLE)
            .password(password(ROLE))
            .dbname(DATABASE);
        let (mut client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        let mut text = String::new();
        read_with_tokio(&client, &mut text).await?;
        write_with_tokio(&mut client, &mut text).await?;
        Ok(text)
    })
}

async fn read_with_tokio(client: &Client, text: &mut String) -> Result<()> {
    for message in client.simple_query(PEOPLE).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let cells = (0..row.len()).map(|n| row.get(n).unwrap_or_default());
            writeln!(text, "simple: {}", cells.collect::<Vec<_>>().join("|"))?;
        }
    }
    let statement = client.prepare(SOME).await?;
    for column in statement.columns() {
        writeln!(text, "column: {} {}", column.name(), column.type_())?;
    }
    for first in [1, 2] {
        for row in client.query(&statement, &[&first]).await? {
            let (id, email): (i32, &str) = (row.get(0), row.get(1));
            let (tags, card): (Vec<String>, &str) = (row.get(3), row.get(4));
            let code = uuid(&row.get::<_, Raw>(2).0);
            let seen = row.get::<_, Option<SystemTime>>(5);
            assert!(seen.is_none_or(|seen| seen > UNIX_EPOCH));
            writeln!(text, "binary: {id} {email} {code} {tags:?} {card}")?;
        }
    }
    // All are sent before the first is answered.
    let (one, two, three) = tokio::try_join!(
        client.query_one(&statement, &[&3]),
        client.query_opt(
            "SELECT email FROM people WHERE email = $1",
            &[&"ada@mail.example"]
        ),
        client.query(
            "SELECT n, email FROM people, generate_series(1, 500) AS n",
            &[]
        ),
    )?;
    let two = two.map(|row| row.get::<_, String>(0));
    writeln!(
        text,
        "joined: {} {two:?} {}",
        one.get::<_, &str>(1),
        three.len()
    )?;
    let typed = client
        .query_typed(
            "SELECT email FROM people WHERE id = $1",
            &[(&2, Type::INT4)],
        )
        .await?;
    let typed = typed.first().map(|row| row.get::<_, &str>(0));
    writeln!(text, "typed: {typed:?}")?;
    let error = client.query("SELECT 1 / $1::int", &[&0]).await.err();
    writeln!(
        text,
        "error: {:?}",
        error.and_then(|error| error.code().cloned())
    )?;
    Ok(())
}

async fn write_with_tokio(client: &mut Client, text: &mut String) -> Result<()> {
    client
        .batch_execute(
            "DROP TABLE IF EXISTS made; CREATE TABLE made (id int PRIMARY KEY, raw bytea)",
        )
        .await?;
    let insert = client.prepare("INSERT INTO made VALUES ($1, $2)").await?;
    for id in 0..5 {
        client.execute(&insert, &[&id, &vec![0, 255, 1_u8]]).await?;
    }
    let again = client
        .execute(&insert, &[&1, &Vec::<u8>::new()])
        .await
        .err();
    writeln!(
        text,
        "duplicate: {:?}",
        again.and_then(|error| error.code().cloned())
    )?;

    let mut transaction = client.transaction().await?;
    let deleted = transaction
        .execute("DELETE FROM made WHERE id < 3", &[])
        .await?;
    let savepoint = transaction.savepoint("here").await?;
    let failed = savepoint.execute("SELECT 1 / 0", &[]).await.is_err();
    savepoint.rollback().await?;
    let statement = "SELECT id, email FROM people ORDER BY id";
    let portal = transaction.bind(statement, &[]).await?;
    loop {
        let rows = transaction.query_portal(&portal, 2).await?;
        if rows.is_empty() {
            break;
        }
        let rows = rows
            .iter()
            .map(|row| (row.get::<_, i32>(0), row.get::<_, &str>(1)));
        writeln!(text, "portal: {:?}", rows.collect::<Vec<_>>())?;
    }
    transaction.rollback().await?;
    let count: i64 = client
        .query_one("SELECT count(*) FROM made", &[])
        .await?
        .get(0);
    writeln!(text, "deleted {deleted}, failed {failed}, back to {count}")?;

    let token = client.cancel_token();
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await
    };
    let (slept, sent) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), cancel);
    sent?;
    writeln!(
        text,
        "cancelled: {:?}",
        slept.err().and_then(|error| error.code().cloned())
    )?;
    Ok(client.batch_execute("DROP TABLE made").await?)
}

fn sqlx(world: &World, host: &str) -> Result<String> {
    inside(world, async || {
        let options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(PORT)
            .username(ROLE)
            .password(&password(ROLE))
            .database(DATABASE);
        let mut connection = PgConnection::connect_with(&options).await?;
        let mut text = String::new();
        read_with_sqlx(&mut connection, &mut text).await?;
        write_with_sqlx(&mut connection, &mut text).await?;
        connection.close().await?;
        Ok(text)
    })
}

async fn read_with_sqlx(connection: &mut PgConnection, text: &mut String) -> Result<()> {
    // As one simple query, in text.
    for row in connection.fetch_all(sqlx::raw_sql(PEOPLE)).await? {
        let cell = |n| -> Result<String> {
            let value = row.try_get_raw(n)?;
            let is_null = value.is_null();
            let value = (!is_null).then(|| value.as_str().map(str::to_owned));
            Ok(value
                .transpose()
                .map_err(anyhow::Error::from_boxed)?
                .unwrap_or_default())
        };
        let cells = (0..row.len()).map(cell).collect::<Result<Vec<_>>>()?;
        writeln!(text, "simple: {}", cells.join("|"))?;
    }
    // The second time from the cache of prepared statements.
    for first in [1, 2, 3] {
        let rows = sqlx::query(SOME)
            .bind(first)
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            writeln!(text, "binary: {}", people(&row)?)?;
        }
    }
    let query = sqlx::query_scalar::<_, String>("SELECT email FROM people WHERE email = $1");
    let email = query
        .bind("ada@mail.example")
        .fetch_optional(&mut *connection)
        .await?;
    writeln!(text, "optional: {email:?}")?;
    let query = sqlx::query_as::<_, (i32, String)>(
        "SELECT id, email FROM people WHERE id = ANY($1) ORDER BY id",
    );
    let rows = query
        .bind(vec![1, 3])
        .persistent(false)
        .fetch_all(&mut *connection)
        .await?;
    writeln!(text, "unnamed: {rows:?}")?;
    let error = sqlx::query("SELECT 1 / $1")
        .bind(0)
        .execute(&mut *connection)
        .await
        .err();
    writeln!(text, "error: {:?}", error.and_then(code))?;
    Ok(())
}

fn people(row: &PgRow) -> Result<String> {
    let (id, email): (i32, &str) = (row.try_get(0)?, row.try_get(1)?);
    let code = row.try_get_raw(2)?;
    let code = uuid(code.as_bytes().map_err(anyhow::Error::from_boxed)?);
    let (tags, card): (Vec<String>, &str) = (row.try_get(3)?, row.try_get(4)?);
    Ok(format!("{id} {email} {code} {tags:?} {card}"))
}

fn code(error: sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

async fn write_with_sqlx(connection: &mut PgConnection, text: &mut String) -> Result<()> {
    let create = "DROP TABLE IF EXISTS made; CREATE TABLE made (id int PRIMARY KEY, word text)";
    connection.execute(sqlx::raw_sql(create)).await?;
    let mut copy = connection.copy_in_raw("COPY made FROM STDIN").await?;
    for n in 0..200 {
        copy.send(format!("{n}\tword {n}\n").into_bytes()).await?;
    }
    writeln!(text, "copied: {}", copy.finish().await?)?;
    let mut copy = connection.copy_in_raw("COPY made FROM STDIN").await?;
    copy.send(&b"1000\tgiven up\n"[..]).await?;
    copy.abort("no more").await?;
    let insert = "INSERT INTO made VALUES ($1, $2) RETURNING id";
    for id in [500, 1] {
        let made = sqlx::query_scalar::<_, i32>(insert).bind(id).bind("word");
        let made = made.fetch_one(&mut *connection).await;
        writeln!(text, "made: {:?}", made.map_err(code))?;
    }
    let mut transaction = connection.begin().await?;
    let deleted = sqlx::query("DELETE FROM made WHERE id < $1").bind(100);
    let deleted = deleted.execute(&mut *transaction).await?.rows_affected();
    let mut inner = transaction.begin().await?;
    sqlx::query("DELETE FROM made").execute(&mut *inner).await?;
    inner.rollback().await?;
    transaction.commit().await?;
    let left = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM made");
    let left = left.fetch_one(&mut *connection).await?;
    writeln!(text, "deleted {deleted}, left {left}")?;
    connection.execute(sqlx::raw_sql("DROP TABLE made")).await?;
    Ok(())
}
