//! Runs `ip`, `nft`, `ss` and `tc`: the kernel's own interface for all that they do is netlink, and
//! these programs are its well-kept front.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Output, Stdio};

use super::KernelError;

/// A program that the plane calls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tool {
    Ip,
    Nft,
    Ss,
    Tc,
}

impl Tool {
    const fn name(self) -> &'static str {
        match self {
            Tool::Ip => "ip",
            Tool::Nft => "nft",
            Tool::Ss => "ss",
            Tool::Tc => "tc",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Tool::Ip | Tool::Ss | Tool::Tc => "iproute2",
            Tool::Nft => "nftables",
        }
    }

    /// Runs the program with `input` on its standard input; its output, whatever its exit status.
    pub(super) fn output(self, arguments: &[&str], input: &str) -> Result<Output, KernelError> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => KernelError::ToolMissing {
                tool: self.name(),
                package: self.package(),
            },
            _ => KernelError::ToolFailed {
                command: self.line(arguments),
                message: error.to_string(),
            },
        };
        let mut child = Command::new(self.name())
            .args(arguments)
            // Its messages are compared in one place; they must not be translated.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // Written by a thread: a long input and a long output would otherwise wait for each other.
        let writer = child.stdin.take().map(|mut stdin| {
            let input = input.to_owned();
            std::thread::spawn(move || stdin.write_all(input.as_bytes()))
        });
        let output = child.wait_with_output().map_err(failed)?;
        if let Some(writer) = writer {
            // A program that stops reading has failed already, and its status says so.
            let _ = writer.join();
        }
        Ok(output)
    }

    /// Runs the program and returns its standard output; a failure is an error.
    pub(super) fn run(self, arguments: &[&str], input: &str) -> Result<Vec<u8>, KernelError> {
        let output = self.output(arguments, input)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let message = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(", ");
        Err(KernelError::ToolFailed {
            command: self.line(arguments),
            message,
        })
    }

    fn line(self, arguments: &[&str]) -> String {
        format!("{} {}", self.name(), arguments.join(" "))
    }
}
