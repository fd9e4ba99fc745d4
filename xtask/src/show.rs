//! What the developer sees. Colours only on a terminal, and never under NO_COLOR.

use std::io::{IsTerminal as _, stderr, stdout};
use std::time::Duration;

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "1;31";
const GREY: &str = "90";

/// A heading on standard output.
pub(crate) fn heading(text: &str) {
    println!("\n{}", paint(BOLD, text, stdout().is_terminal()));
}

/// A program's real output, indented.
pub(crate) fn output(text: &str) {
    for line in text.trim_end().lines() {
        println!("{}", format!("      {line}").trim_end());
    }
}

/// What a program that was waiting prints now.
pub(crate) fn comes_back(text: &str) {
    println!("    psql, which waited:");
    output(text);
}

/// A command as its user would type it.
pub(crate) fn typed(line: &str) {
    println!(
        "    {}",
        paint(GREY, &format!("$ {line}"), stdout().is_terminal())
    );
}

/// The same on another machine than the reader looks at.
pub(crate) fn typed_at(place: &str, line: &str) {
    println!(
        "    {}",
        paint(GREY, &format!("{place}$ {line}"), stdout().is_terminal())
    );
}

/// Something that a step has shown to be so.
pub(crate) fn proved(text: &str) {
    println!("    {} {text}", paint(GREEN, "✓", stdout().is_terminal()));
}

/// What goes on, on standard error.
pub(crate) fn progress(text: &str) {
    eprintln!("{} {text}", paint(GREY, "…", stderr().is_terminal()));
}

/// The end of something that failed.
pub(crate) fn failed(text: &str) {
    eprintln!("{} {text}", paint(RED, "failed:", stderr().is_terminal()));
}

/// A duration as a person reads it.
pub(crate) fn duration(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(1) {
        format!("{} ms", elapsed.as_millis())
    } else {
        format!("{:.1} s", elapsed.as_secs_f64())
    }
}

fn paint(colour: &str, text: &str, terminal: bool) -> String {
    if terminal && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
