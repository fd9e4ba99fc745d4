//! The binary `interceptor`.

use std::process::ExitCode;

use interceptor_user::cli::{self, Parts};
use interceptor_user::{gateway, kernel};

fn main() -> ExitCode {
    cli::run(&Parts {
        run: gateway::run,
        detach: |arguments| {
            Ok(kernel::detach(
                arguments.cgroup.as_deref(),
                &arguments.bpffs,
            )?)
        },
        kernel_status: |bpffs| Ok(serde_json::to_value(kernel::status(bpffs)?)?),
    })
}
