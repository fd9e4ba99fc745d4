//! The binary `interceptor`.

use std::process::ExitCode;

use interceptor_core::mask::HashKey;
use interceptor_user::cli::{self, Parts};
use interceptor_user::{gateway, kernel, policy_files};

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
        check_policies: |directory| {
            Ok(policy_files::summary(&policy_files::load(
                directory,
                &HashKey::new([0; 32]),
            )?))
        },
    })
}
