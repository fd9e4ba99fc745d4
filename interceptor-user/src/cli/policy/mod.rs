//! `interceptor policy`: work on policy files, and questions to them.
//!
//! Each command is a file of its own. None of them needs a gateway unless it says so.

mod analysis;
pub(super) mod arguments;
mod asker;
mod backtest;
mod check;
mod diff;
mod explain;
mod files;
mod format;
mod junit;
#[cfg(test)]
mod packs;
mod questions;
mod reload;
mod replay;
mod schema;
pub(super) mod show;
mod suite;
mod test;

use std::io::Write;

use super::CliError;
use arguments::PolicyCommand;

pub(super) fn run(command: PolicyCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check(arguments) => check::run(&arguments, out),
        PolicyCommand::Fmt(arguments) => format::run(&arguments, out),
        PolicyCommand::Reload { common } => reload::run(&common, out),
        PolicyCommand::Show(arguments) => show::run(&arguments, out),
        PolicyCommand::Test(arguments) => test::run(&arguments, out),
        PolicyCommand::Explain(arguments) => explain::run(&arguments, out),
        PolicyCommand::Backtest(arguments) => backtest::run(&arguments, out),
        PolicyCommand::Diff(arguments) => diff::run(&arguments, out),
        PolicyCommand::Schema => schema::run(out),
    }
}
