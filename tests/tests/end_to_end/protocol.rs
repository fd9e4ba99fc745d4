//! What passes the gateway is what would have passed without it.

use std::time::{Duration, Instant};

use crate::support::{block_on, driver};
use anyhow::Result;
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::wire::{Wire, cancel, extended, message, query, sync};
use interceptor_tests::world::{TARGET_V4, TARGET_V6, UNNAMED_V4};
use interceptor_tests::{From, wait_until, with_gateway};
use nix::sys::signal::Signal;

/// psql prints the same, byte for byte, with the gateway in between and without.
#[test]
fn psql_cannot_tell() -> Result<()> {
    with_gateway("proto-same", OPEN, |world, _| {
        let through = world.psql(From::Client);
        let direct = world.psql(From::Client).host(UNNAMED_V4);
        for script in [
            "SELECT 1; SELECT 2, 'two'; SELECT;",
            "",
            ";;",
            "SELECT nothing FROM orders;",
            "SELECT * FORM orders;",
            "SELECT 1 / 0;",
            "BEGIN; SELECT 1; SAVEPOINT s; SELECT 1 / 0;",
            "BEGIN;\nSELECT 1;\nROLLBACK;\nSELECT 2;",
            "SET application_name = 'x'; SHOW application_name; RESET application_name;",
            "SET client_encoding = 'LATIN1'; SELECT 'caf\\351';",
            "DO $$ BEGIN RAISE NOTICE 'noted'; END $$;",
            "\\d orders",
            "\\timing off\n\\dt",
            "\\set VERBOSITY verbose\nSELECT 'x'::integer;",
            "CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT * FROM t;",
            "PREPARE p (int) AS SELECT $1 + 1; EXECUTE p (1); DEALLOCATE p;",
            "BEGIN; DECLARE c CURSOR FOR SELECT id FROM orders ORDER BY id; FETCH 3 FROM c; COMMIT;",
            "LISTEN channel; NOTIFY channel, 'hello'; SELECT 1;",
            "EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE id = 1;",
            "SELECT repeat('x', 100000);",
            "COPY orders TO STDOUT;",
        ] {
            let (ours, theirs) = (through.script(script)?, direct.script(script)?);
            // A notification tells the process id of the server's session.
            let comparable = |text: &str| match text.find("server process with PID") {
                Some(_) => text.replace(|c: char| c.is_ascii_digit(), ""),
                None => text.to_owned(),
            };
            assert_eq!(
                comparable(&ours.stdout),
                comparable(&theirs.stdout),
                "{script}"
            );
            assert_eq!(ours.stderr, theirs.stderr, "{script}");
            assert_eq!(ours.status.code(), theirs.status.code(), "{script}");
        }
        Ok(())
    })
}

/// Drivers with server-side cursors declare them in SQL and describe them by the protocol.
#[test]
fn a_declared_cursor_can_be_described() -> Result<()> {
    with_gateway("proto-cursor", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.query("BEGIN")?;
        let declare = "DECLARE rows CURSOR FOR SELECT id, email FROM customers ORDER BY id";
        wire.send(&[extended(declare), sync()].concat())?;
        wire.until(b'Z')?;
        wire.send(&[message(b'D', b"Prows\0"), sync()].concat())?;
        let replies = wire.until(b'Z')?;
        assert_eq!(replies[0].tag, b'T', "{replies:?}");
        assert!(replies[0].text().contains("email"), "{replies:?}");
        let rows = wire.query("FETCH FORWARD 1 FROM rows")?;
        let row = rows.iter().find(|reply| reply.tag == b'D');
        assert!(
            row.is_some_and(|row| row.text().ends_with("****")),
            "{rows:?}"
        );

        // Its rows leave by FETCH only, which says that they are its rows.
        wire.send(&[message(b'E', b"rows\0\0\0\0\0"), sync()].concat())?;
        let replies = wire.until(b'Z')?;
        assert_eq!(
            replies[0].field(b'C').as_deref(),
            Some("34000"),
            "{replies:?}"
        );
        wire.query("ROLLBACK")?;
        // There is none of that name, in the server's words.
        wire.send(&[message(b'D', b"Prows\0"), sync()].concat())?;
        let replies = wire.until(b'Z')?;
        assert_eq!(
            replies[0].field(b'C').as_deref(),
            Some("34000"),
            "{replies:?}"
        );
        Ok(())
    })
}

#[test]
fn errors_keep_their_position() -> Result<()> {
    with_gateway("proto-position", SHOP, |world, _| {
        let error = world
            .psql(From::Client)
            .run("SELECT nothing FROM orders")?
            .failure()?;
        assert!(
            error.contains("LINE 1: SELECT nothing FROM orders\n               ^"),
            "{error}"
        );
        Ok(())
    })
}

#[test]
fn a_wrong_password_is_the_targets_to_refuse() -> Result<()> {
    with_gateway("proto-login", SHOP, |world, gateway| {
        let refused = world
            .psql(From::Client)
            .user("mallory")
            .run("SELECT 1")?
            .failure()?;
        assert!(
            refused.contains("password authentication failed"),
            "{refused}"
        );
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.send(&interceptor_tests::wire::startup(
            "wire",
            "no_such_database",
        ))?;
        let replies = wire.until_closed()?;
        assert!(replies.iter().any(|reply| reply.text().contains("3D000")));
        gateway.event("identity", |event| {
            event["user"] == "mallory" && event["authenticated"] == false
        })?;
        Ok(())
    })
}

#[test]
fn ipv6_is_no_way_around() -> Result<()> {
    with_gateway("proto-v6", SHOP, |world, gateway| {
        for from in [From::Client, From::Local] {
            let psql = world.psql(from).host(TARGET_V6).bare();
            let row = psql
                .run("SELECT email FROM customers WHERE id = 1")?
                .success()?;
            assert_eq!(row, "****\n");
            psql.run("DROP TABLE orders")?.failure()?;
        }
        gateway.event("connection", |event| {
            let client = event["client"].as_str().unwrap_or_default();
            client.contains("fd77:1::2") && event["target_address"] == "[fd77:2::2]:5432"
        })?;
        Ok(())
    })
}

#[test]
fn copy_in() -> Result<()> {
    with_gateway("proto-copy-in", SHOP, |world, gateway| {
        let mut rows = String::from("COPY orders FROM STDIN;\n");
        for id in 1000..6000 {
            rows.push_str(&format!(
                "{id}\t1\titem {id}\t1.00\t2024-01-01 00:00:00+00\n"
            ));
        }
        rows.push_str("\\.\nSELECT count(*) FROM orders;\n");
        let output = world.psql(From::Client).bare().script(&rows)?.success()?;
        assert_eq!(output, "5060\n");
        gateway.event("outcome", |event| event["tag"] == "COPY 5000")?;
        // An error in the middle of the data ends the COPY and not the session.
        let broken = "COPY orders FROM STDIN;\nno number\t1\tx\t1\t2024-01-01\n\\.\n";
        let error = world.psql(From::Client).script(broken)?.failure()?;
        assert!(error.contains("invalid input syntax"), "{error}");
        Ok(())
    })
}

#[test]
fn a_running_query_can_be_cancelled() -> Result<()> {
    with_gateway("proto-cancel", SHOP, |world, _| {
        let start = Instant::now();
        let psql = world.psql(From::Client).start("SELECT pg_sleep(60)")?;
        wait_until("the query runs", Duration::from_secs(5), || {
            world.postgres.has_seen("pg_sleep")
        })?;
        psql.signal(Signal::SIGINT)?;
        let error = psql.wait(Duration::from_secs(10))?.failure()?;
        assert!(
            error.contains("canceling statement due to user request"),
            "{error}"
        );

        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        let hello = wire.log_in()?;
        let key = hello
            .iter()
            .find(|reply| reply.tag == b'K')
            .expect("a cancel key");
        wire.send(&query("SELECT pg_sleep(59)"))?;
        wait_until("the query runs", Duration::from_secs(5), || {
            world.postgres.has_seen("pg_sleep(59)")
        })?;
        let mut other = Wire::new(world.connect(TARGET_V4)?)?;
        other.send(&cancel(key))?;
        assert!(other.until_closed()?.is_empty());
        assert!(
            wire.until(b'Z')?
                .iter()
                .any(|reply| reply.text().contains("57014"))
        );
        assert_eq!(wire.query("SELECT 1")?.len(), 4);
        assert!(start.elapsed() < Duration::from_secs(15));
        Ok(())
    })
}

#[test]
fn a_driver_pipelines() -> Result<()> {
    with_gateway("proto-driver", SHOP, |world, _| {
        block_on(async {
            let client = driver(world, TARGET_V4, "bob").await?;
            let statement = client.prepare("SELECT $1::integer * 2").await?;
            let numbers: Vec<i32> = (0..200).collect();
            let mut tasks = Vec::new();
            let client = std::sync::Arc::new(client);
            for number in numbers {
                let (client, statement) = (std::sync::Arc::clone(&client), statement.clone());
                tasks.push(tokio::spawn(async move {
                    let row = client.query_one(&statement, &[&number]).await?;
                    Ok::<_, tokio_postgres::Error>((number, row.get::<_, i32>(0)))
                }));
            }
            for task in tasks {
                let (number, doubled) = task.await??;
                assert_eq!(doubled, number * 2);
            }
            let blob = vec![7_u8; 8 << 20];
            let row = client.query_one("SELECT $1::bytea", &[&blob]).await?;
            assert!(row.get::<_, &[u8]>(0) == blob);
            Ok(())
        })
    })
}

#[test]
fn a_pipeline_fails_where_the_server_fails_it() -> Result<()> {
    with_gateway("proto-pipeline", OPEN, |world, _| {
        let batch = [
            extended("SELECT 'one'"),
            extended("SELECT 1 / 0"),
            extended("SELECT 'never'"),
            sync(),
            extended("SELECT 'two'"),
            sync(),
        ];
        let mut answers = Vec::new();
        for host in [TARGET_V4, UNNAMED_V4] {
            let mut wire = Wire::new(world.connect(host)?)?;
            wire.log_in()?;
            wire.send(&batch.concat())?;
            answers.push([wire.until(b'Z')?, wire.until(b'Z')?].concat());
        }
        assert_eq!(answers[0], answers[1]);
        Ok(())
    })
}

#[test]
fn a_message_may_come_in_single_bytes() -> Result<()> {
    with_gateway("proto-bytes", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        for byte in [extended("SELECT email FROM customers"), sync()].concat() {
            wire.send(&[byte])?;
            std::thread::sleep(Duration::from_millis(1));
        }
        let replies = wire.until(b'Z')?;
        assert_eq!(replies.iter().filter(|reply| reply.tag == b'D').count(), 6);
        assert!(!replies.iter().any(|reply| reply.text().contains("example")));
        Ok(())
    })
}

#[test]
fn a_large_statement_passes() -> Result<()> {
    with_gateway("proto-large", SHOP, |world, _| {
        let text = "x".repeat(1 << 20);
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let replies = wire.query(&format!("SELECT length('{text}')"))?;
        let row = replies
            .iter()
            .find(|reply| reply.tag == b'D')
            .expect("a row");
        assert!(row.text().ends_with("1048576"), "{}", row.text());
        Ok(())
    })
}
