//! Many, large and slow: the gateway holds little, and nobody waits for somebody else.

use std::time::{Duration, Instant};

use anyhow::Result;
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Wire, query};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, with_gateway};

/// What the gateway may ever hold while it passes on gigabytes.
const MEMORY_KIB_MAX: u64 = 256 << 10;

#[test]
fn a_thousand_sessions() -> Result<()> {
    const SESSIONS: usize = 1000;
    with_gateway("load-sessions", SHOP, |world, gateway| {
        let mut open = Vec::new();
        for _ in 0..SESSIONS {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.log_in()?;
            open.push(wire);
        }
        assert_eq!(gateway.sessions()?.len(), SESSIONS);
        for wire in &mut open {
            wire.send(&query("SELECT email FROM customers WHERE id = 1"))?;
        }
        for wire in &mut open {
            let replies = wire.until(b'Z')?;
            let row = replies.iter().find(|reply| reply.tag == b'D');
            assert!(row.is_some_and(|row| row.text().ends_with("****")));
        }
        drop(open);
        interceptor_tests::wait_until("all sessions are gone", Duration::from_secs(20), || {
            Ok(gateway.sessions()?.is_empty())
        })
    })
}

#[test]
fn two_gigabytes_to_a_slow_client() -> Result<()> {
    const ROWS: u64 = 2048;
    with_gateway("load-large", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(Duration::from_secs(60))?;
        wire.log_in()?;
        let sql = format!("SELECT repeat('x', 1 << 20) FROM generate_series(1, {ROWS})");
        wire.send(&query(&sql))?;
        // Time enough for everything that the target can send without being read.
        std::thread::sleep(Duration::from_secs(3));
        let early = gateway.memory_peak_kib()?;
        assert!(
            early < MEMORY_KIB_MAX,
            "{early} KiB before anything was read"
        );
        // Another client works meanwhile.
        let start = Instant::now();
        world.psql(From::Client).run("SELECT 1")?.success()?;
        assert!(start.elapsed() < Duration::from_secs(3));

        let counted = wire.count_rest()?;
        assert_eq!(counted.rows, ROWS);
        assert!(counted.bytes > 2 << 30);
        let peak = gateway.memory_peak_kib()?;
        assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
        Ok(())
    })
}

#[test]
fn a_client_that_writes_before_it_reads() -> Result<()> {
    const QUERIES: usize = 20_000;
    with_gateway("load-writes", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let mut writer = wire.split()?;
        let writing = std::thread::spawn(move || -> Result<()> {
            // Far more answers than all buffers on the way hold.
            for _ in 0..QUERIES {
                writer.send(&query("SELECT repeat('y', 4000)"))?;
            }
            Ok(())
        });
        std::thread::sleep(Duration::from_secs(1));
        world.psql(From::Client).run("SELECT 1")?.success()?;
        wire.limit(Duration::from_secs(30))?;
        for _ in 0..QUERIES {
            wire.until(b'Z')?;
        }
        writing.join().expect("the writer panicked")?;
        let peak = gateway.memory_peak_kib()?;
        assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
        Ok(())
    })
}

#[test]
fn a_large_upload_to_a_busy_target() -> Result<()> {
    with_gateway("load-upload", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(Duration::from_secs(60))?;
        wire.log_in()?;
        wire.query("CREATE TEMP TABLE t (x text)")?;
        wire.send(&query("COPY t FROM STDIN"))?;
        wire.until(b'G')?;
        let line = format!("{}\n", "z".repeat(1 << 20));
        for _ in 0..256 {
            wire.send(&interceptor_tests::wire::message(b'd', line.as_bytes()))?;
        }
        wire.send(&interceptor_tests::wire::message(b'c', &[]))?;
        let replies = wire.until(b'Z')?;
        assert!(
            replies
                .iter()
                .any(|reply| reply.text().starts_with("COPY 256"))
        );
        let peak = gateway.memory_peak_kib()?;
        assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
        Ok(())
    })
}
