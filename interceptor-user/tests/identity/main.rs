//! Who is behind a connection, and what becomes of connections that are older than the gateway: on a
//! real kernel, with a gateway, a target and two containers in namespaces of their own.
//!
//! It needs root and fails without. `ICPT_ID_VERBOSE=1` shows what each process says.
#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod processes;
mod roles;
mod sever;
mod strangers;
mod uring;
mod world;

use world::World;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--role", role @ ..] => roles::play(role),
        // What a test runner asks before it runs anything.
        words if words.contains(&"--list") => println!("identity: test"),
        _ => scenario(),
    }
}

fn scenario() {
    let world = World::new();
    sever::older_connections_end(&world);
    processes::processes_are_known(&world);
    processes::another_program_is_never_taken_for_it(&world);
    processes::io_uring_is_its_process(&world);
    processes::many_at_once(&world);
    processes::cost(&world);
    strangers::containers_are_known(&world);
    strangers::strangers_stay_unknown(&world);
    println!("identity: all steps passed");
}

fn step(name: &str) {
    println!("identity: {name}");
}
