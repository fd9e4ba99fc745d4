//! Somebody undoes the kernel plane, piece by piece, or kills the gateway, while clients try the target
//! all the time: nothing gets to it that is not on record, and the watchdog puts everything back.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{is_clean, recorded_commands};
use anyhow::{Context as _, Result, anyhow, ensure};
use interceptor_tests::policies::OPEN;
use interceptor_tests::process::run;
use interceptor_tests::wire::{Wire, message};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, Gateway, Running, World, wait_until, with_world};
use libbpf_rs::libbpf_sys::{
    BPF_F_BEFORE, BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_EGRESS, BPF_TCX_INGRESS, bpf_insn,
    bpf_link_create, bpf_link_create_opts, bpf_prog_load,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
/// From its start: it runs as long as the test.
const SHELL_LIMIT: Duration = Duration::from_secs(600);

/// Clients of both kinds that try the target again and again, each time with a text of its own.
struct Attempts {
    stop: AtomicBool,
    answered: AtomicUsize,
    refused: AtomicUsize,
}

impl Attempts {
    /// Runs `work` while clients try, then shows that everything that reached the target is on record.
    fn during(
        world: &World,
        gateway: &mut Gateway<'_>,
        work: impl FnOnce(&mut Gateway<'_>, &Attempts) -> Result<()>,
    ) -> Result<()> {
        let attempts = Attempts {
            stop: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        };
        let locals = (0..2)
            .map(|shell| local(world, shell))
            .collect::<Result<Vec<_>>>()?;
        let worked = std::thread::scope(|scope| {
            for thread in 0..2 {
                let attempts = &attempts;
                scope.spawn(move || attempts.routed(world, thread));
            }
            let worked = work(gateway, &attempts);
            attempts.stop.store(true, Ordering::Relaxed);
            worked
        });
        fs::write(world.directory().join("enough"), "")?;
        let mut tried = 0;
        for local in locals {
            let said = local.wait(SHELL_LIMIT)?.stdout;
            tried += said.trim().parse::<usize>().context(said)?;
        }
        worked?;
        println!(
            "routed clients: {} answered, {} refused; local clients: {tried} attempts",
            attempts.answered.load(Ordering::Relaxed),
            attempts.refused.load(Ordering::Relaxed)
        );
        ensure!(attempts.answered.load(Ordering::Relaxed) > 50 && tried > 20);
        nothing_slipped_by(world, gateway)
    }

    /// Waits for so many more answers.
    fn go_on(&self, count: usize) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("clients are answered", LIMIT, || {
            Ok(self.answered.load(Ordering::Relaxed) >= before + count)
        })
    }

    fn routed(&self, world: &World, thread: usize) {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let attempt = || -> Result<()> {
                let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
                wire.limit(Duration::from_secs(2))?;
                wire.log_in()?;
                wire.query(&format!("SELECT 'probe routed {thread} {number}'"))?;
                wire.send(&message(b'X', b""))
            };
            match attempt() {
                Ok(()) => self.answered.fetch_add(1, Ordering::Relaxed),
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(2));
                    self.refused.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }
}

/// A shell on the gateway host that starts one psql after the other.
fn local(world: &World, number: usize) -> Result<Running> {
    let script = format!(
        "i=0; while [ ! -e {directory}/enough ]; do i=$((i+1)); \
         psql -X -q -h {TARGET_V4} -U wire shop -c \"SELECT 'probe local {number} $i'\" >/dev/null 2>&1; \
         done; echo $i",
        directory = world.directory().display()
    );
    let mut shell = world.command(From::Local, "sh")?;
    shell
        .args(["-c", &script])
        .env("PGCONNECT_TIMEOUT", "2")
        .current_dir("/");
    Running::spawn(shell, "")
}

/// Every probe that the server has seen is on record, once; and no client's own address was seen.
fn nothing_slipped_by(world: &World, gateway: &Gateway<'_>) -> Result<()> {
    let recorded = recorded_commands(gateway)?;
    let log = world.postgres.network_log()?;
    let mut seen = 0;
    for line in log.lines() {
        ensure!(
            !line.contains("10.77.1.2"),
            "it was reached directly: {line}"
        );
        if let Some((_, text)) = line.split_once("statement: ")
            && text.contains("probe")
        {
            ensure!(recorded.get(text) == Some(&1), "not on record once: {line}");
            seen += 1;
        }
    }
    println!("the target has seen {seen} probes, all on record once");
    ensure!(seen > 50, "{seen} probes are no test");
    is_clean(gateway)
}

#[test]
fn killed_and_restarted_nothing_slips_by() -> Result<()> {
    with_world("drift-kill", |world| {
        let policies = world.write_policy(OPEN)?;
        let mut gateway = Gateway::start(world, &policies)?;
        Attempts::during(world, &mut gateway, |gateway, attempts| {
            for _ in 0..5 {
                attempts.go_on(15)?;
                gateway.kill()?;
                std::thread::sleep(Duration::from_millis(300));
                gateway.restart()?;
            }
            attempts.go_on(15)
        })
    })
}

/// What somebody does to the plane, and what the status then names.
struct Deed {
    named: &'static str,
    detail: &'static str,
    act: fn(&World, &Value) -> Result<Option<OwnedFd>>,
    /// The gateway hears of it from the kernel, and does not wait for its watchdog.
    is_announced: bool,
}

const DEEDS: [Deed; 12] = [
    Deed {
        named: "link connect4",
        detail: "it is detached",
        act: |world, status| detach(world, status, "connect4"),
        is_announced: false,
    },
    Deed {
        named: "link sock_create",
        detail: "it is detached",
        act: |world, status| detach(world, status, "sock_create"),
        is_announced: false,
    },
    Deed {
        named: "link egress_",
        detail: "it is detached",
        act: |world, status| detach(world, status, &device_pin(status, "egress", "target0")?),
        is_announced: false,
    },
    Deed {
        named: "link ingress_",
        detail: "it is detached",
        act: |world, status| detach(world, status, &device_pin(status, "ingress", "client0")?),
        is_announced: false,
    },
    Deed {
        named: "link connect6",
        detail: "it is gone",
        act: |world, _| {
            fs::remove_file(world.bpffs().join("links/connect6"))?;
            Ok(None)
        },
        is_announced: false,
    },
    Deed {
        named: "order of egress_",
        detail: "runs before ours",
        act: |world, _| foreign(world, "target0", BPF_TCX_EGRESS).map(Some),
        is_announced: false,
    },
    Deed {
        named: "order of ingress_",
        detail: "runs before ours",
        act: |world, _| foreign(world, "client0", BPF_TCX_INGRESS).map(Some),
        is_announced: false,
    },
    Deed {
        named: "nft table",
        detail: "it is gone",
        act: |world, _| shell(world, "nft delete table inet interceptor"),
        is_announced: false,
    },
    Deed {
        named: "nft table",
        detail: "it was altered",
        act: |world, _| shell(world, "nft flush chain inet interceptor output"),
        is_announced: false,
    },
    Deed {
        named: "nft table netdev",
        detail: "it is gone",
        act: |world, _| shell(world, "nft delete table netdev interceptor"),
        is_announced: false,
    },
    Deed {
        named: "routing",
        detail: "lacks",
        act: |world, _| {
            shell(
                world,
                "ip rule del priority 150 iif lo && ip -6 rule del priority 150 iif lo",
            )
        },
        is_announced: false,
    },
    Deed {
        named: "routing",
        detail: "local routes in table 15001",
        act: |world, _| shell(world, "ip route flush table 15001"),
        is_announced: true,
    },
];

fn items<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    let items = value.pointer(pointer).and_then(Value::as_array);
    items.map(Vec::as_slice).unwrap_or_default()
}

fn shell(world: &World, line: &str) -> Result<Option<OwnedFd>> {
    let mut command = world.gateway_command("sh", None)?;
    command.args(["-c", line]);
    run(command, LIMIT)?.success()?;
    Ok(None)
}

fn detach(world: &World, status: &Value, pin: &str) -> Result<Option<OwnedFd>> {
    let links = items(status, "/kernel/links");
    let link = links.iter().find(|link| link["name"] == pin);
    let id = &link.with_context(|| format!("no link {pin}"))?["link_id"];
    shell(world, &format!("bpftool link detach id {id}"))
}

fn device_pin(status: &Value, direction: &str, device: &str) -> Result<String> {
    let links = items(status, "/kernel/links");
    links
        .iter()
        .filter(|link| link["place"] == device)
        .filter_map(|link| link["name"].as_str())
        .find(|name| name.starts_with(direction))
        .map(str::to_owned)
        .with_context(|| format!("nothing on {direction} of {device}"))
}

/// A program of somebody else, first in line, that lets every packet pass and ends the chain. It is
/// attached as long as the link's descriptor is open.
fn foreign(world: &World, device: &str, hook: u32) -> Result<OwnedFd> {
    let index = world
        .gateway
        .enter(|| nix::net::if_::if_nametoindex(device))??;
    // r0 = TCX_PASS; exit
    let instruction = |code: u8| bpf_insn {
        code,
        ..Default::default()
    };
    let program = [instruction(0xb7), instruction(0x95)];
    // SAFETY: name and licence end in a zero byte, and the instructions are as many as is said.
    let loaded = unsafe {
        bpf_prog_load(
            BPF_PROG_TYPE_SCHED_CLS,
            c"foreign".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as u64,
            std::ptr::null_mut(),
        )
    };
    let loaded = owned(loaded)?;
    let index = i32::try_from(index)?;
    // Devices are looked up in the namespace of the task that asks.
    world.gateway.enter(|| {
        let options = bpf_link_create_opts {
            sz: size_of::<bpf_link_create_opts>() as u64,
            flags: BPF_F_BEFORE,
            ..Default::default()
        };
        // SAFETY: the descriptor is open and the options live until the call returns.
        owned(unsafe { bpf_link_create(loaded.as_raw_fd(), index, hook, &raw const options) })
    })?
}

fn owned(descriptor: i32) -> Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(-descriptor).into());
    }
    // SAFETY: libbpf has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The status, and its exit code.
fn status(world: &World, gateway: &Gateway<'_>) -> Result<(Value, Option<i32>)> {
    let bpffs = world.bpffs();
    let shown = gateway.cli(&["status", "--json", "--bpffs", &bpffs.to_string_lossy()])?;
    let value = serde_json::from_str(&shown.stdout)
        .with_context(|| format!("{}{}", shown.stdout, shown.stderr))?;
    Ok((value, shown.status.code()))
}

fn names(status: &Value, deed: &Deed) -> bool {
    let drift = items(status, "/drift");
    drift.iter().any(|drift| {
        let has = |field: &str, text: &str| {
            drift[field]
                .as_str()
                .is_some_and(|value| value.contains(text))
        };
        has("what", deed.named) && has("detail", deed.detail)
    })
}

#[test]
fn undone_it_is_seen_and_nothing_slips_by() -> Result<()> {
    with_world("drift-seen", |world| {
        let policies = world.write_policy(OPEN)?;
        // The watchdog does not come in this test's time: each layer is missing for a while.
        let options = ["--drain", "1s", "--watch", "1h"];
        let mut gateway = Gateway::start_with(world, &policies, &options)?;
        Attempts::during(world, &mut gateway, |gateway, attempts| {
            DEEDS
                .iter()
                .filter(|deed| !deed.is_announced)
                .try_for_each(|deed| seen_and_undone(world, gateway, deed))?;
            attempts.go_on(50)
        })
    })
}

/// One layer is away for a while, and the status says so; a restart puts it back.
fn seen_and_undone(world: &World, gateway: &mut Gateway<'_>, deed: &Deed) -> Result<()> {
    let mut before = Value::Null;
    // The watchdog looks once, at the start.
    wait_until("all is in place", LIMIT, || {
        let (now, code) = status(world, gateway)?;
        before = now;
        Ok(code == Some(0))
    })?;
    let kept = (deed.act)(world, &before)?;
    let (after, code) = status(world, gateway)?;
    ensure!(
        names(&after, deed) && code == Some(1),
        "{} {} is not in {}",
        deed.named,
        deed.detail,
        after.get("drift").unwrap_or(&Value::Null)
    );
    let bpffs = world.bpffs();
    let text = gateway.cli(&["status", "--bpffs", &bpffs.to_string_lossy()])?;
    ensure!(text.stdout.contains(deed.detail), "{}", text.stdout);
    std::thread::sleep(Duration::from_millis(300));
    gateway.terminate()?;
    gateway.wait(LIMIT)?;
    gateway.restart()?;
    drop(kept);
    Ok(())
}

#[test]
fn undone_it_is_repaired_and_recorded() -> Result<()> {
    with_world("drift-repair", |world| {
        let policies = world.write_policy(OPEN)?;
        let options = ["--drain", "1s", "--watch", "500ms"];
        let mut gateway = Gateway::start_with(world, &policies, &options)?;
        let mut kept = Vec::new();
        Attempts::during(world, &mut gateway, |gateway, attempts| {
            for deed in &DEEDS {
                let (before, _) = status(world, gateway)?;
                kept.extend((deed.act)(world, &before)?);
                let what = format!("{} ({}) is put right", deed.named, deed.detail);
                wait_until(&what, LIMIT, || {
                    let (now, code) = status(world, gateway)?;
                    Ok(code == Some(0) && !names(&now, deed))
                })?;
                gateway
                    .event("kernel-changed", |event| {
                        event["detail"].as_str().is_some_and(|text| {
                            text.contains("repaired")
                                && text.contains(deed.named)
                                && text.contains(deed.detail)
                        })
                    })
                    .map_err(|error| anyhow!("{what}: {error:#}"))?;
            }
            attempts.go_on(50)?;
            // The programs of others are still there, behind ours.
            let (now, _) = status(world, gateway)?;
            let order = now["kernel"]["devices"].as_array().context("no devices")?;
            let others: Vec<_> = order
                .iter()
                .filter(|hook| {
                    hook["order"]
                        .as_array()
                        .is_some_and(|order| order.len() == 2)
                })
                .collect();
            ensure!(others.len() == 2, "{order:#?}");
            ensure!(
                others.iter().all(|hook| hook["is_ours_first"] == true),
                "{order:#?}"
            );
            // What it repairs, it does not repair again and again.
            let repairs = |status: &Value| status["gateway"]["status"]["repairs"].as_u64();
            std::thread::sleep(Duration::from_millis(1500));
            let (later, code) = status(world, gateway)?;
            ensure!(
                code == Some(0) && repairs(&now) == repairs(&later),
                "{later:#}"
            );
            ensure!(repairs(&later) >= Some(DEEDS.len() as u64 - 1), "{later:#}");
            Ok(())
        })
    })
}
