//! What an analysis costs, by the size of a text: run it with `/usr/bin/time -v`.
use std::time::Instant;
fn main() {
    let size: usize = std::env::args()
        .nth(1)
        .and_then(|size| size.parse().ok())
        .unwrap_or(1 << 20);
    let text = format!("insert into t values {}(1)", "(1),".repeat(size / 4));
    let start = Instant::now();
    let found = interceptor_core::sql::analyze(&text);
    println!(
        "{} bytes: {:?}, ok {}",
        text.len(),
        start.elapsed(),
        found.is_ok()
    );
    let one = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345";
    let start = Instant::now();
    for _ in 0..20_000 {
        let _ = interceptor_core::sql::analyze(one);
    }
    println!("select: {:?} each", start.elapsed() / 20_000);
}
