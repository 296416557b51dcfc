//! `check`: validates the configuration and what `serve` needs from this machine.

use std::time::Duration;

use super::output::print;
use crate::{
    app::{self, Checked, join_addresses, max_shutdown_time},
    config::Inputs,
    policy::{Mode, Policy},
    secret::ShownPath,
    server::Address,
};

/// The default of Kubernetes' `terminationGracePeriodSeconds`.
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Loads everything, then prints a summary and what would prevent `serve` from starting here. Creates and locks nothing, and uses no
/// network.
pub(super) async fn run(inputs: &Inputs) -> anyhow::Result<()> {
    let Checked { config, source, credentials, found, notes } = app::check(inputs).await?;
    print("the configuration is valid");
    print(format_args!("  upstream   {}", config.proxy.upstream.url));
    match credentials {
        Some(credentials) => {
            let token_path = crate::token::scheme::token_request(&credentials, &config.token).path;
            let scheme = credentials.scheme.as_str();
            print(format_args!("  token      {token_path} by scheme {scheme}, with credentials from {source}"));
        }
        None => print(format_args!("  token      with credentials from {source}, not read: `check` uses no network")),
    }
    for line in found {
        print(format_args!("  found      {line}"));
    }
    match &config.state_dir {
        Some(dir) => print(format_args!("  state      in {}", ShownPath::of_new(dir))),
        None => print("  state      in memory only: auth.state_dir is not set"),
    }
    print(format_args!("  callers    {}", join_addresses(&config.listen.proxy)));
    print(format_args!("  operators  {}", join_addresses(&config.listen.ops)));
    let admin_socket = config.admin_socket.iter().map(|socket| Address::Unix(socket.path.clone()));
    let admin: Vec<Address> = config.listen.admin.iter().cloned().chain(admin_socket).collect();
    print(format_args!("  admin      {}", join_addresses(&admin)));
    if let Some(forward_to) = config.proxy.webhook.forward_to.filter(|_| !config.listen.webhook.is_empty()) {
        print(format_args!("  webhooks   {}, forwarded to {forward_to}", join_addresses(&config.listen.webhook)));
    }
    print(format_args!("  policy     {}", policy_summary(&config.proxy.policy)));
    if let Some(per_day) = config.proxy.billable_per_day {
        print(format_args!("  billing    at most {per_day} billable calls per UTC day"));
    }
    let end = max_shutdown_time(config.shutdown);
    print(format_args!("  shutdown   takes at most {}{}", humantime::format_duration(end), beyond_grace(end)));
    for note in notes {
        print(format_args!("  note       {note}"));
    }
    Ok(())
}

/// The effect of the policy, and its rules that match no operation.
fn policy_summary(policy: &Policy) -> String {
    let effect = match policy.mode() {
        _ if policy.is_open() => "allows every request",
        Mode::Enforce => "enforced; run `finicity-proxy routes` to see the effect",
        Mode::Report => "only reported; run `finicity-proxy routes` to see what enforcing it would do",
    };
    let unknown = policy.unknown().iter().map(|rule| format!("; {rule} matches no known operation"));
    effect.to_owned() + &unknown.collect::<String>()
}

/// What to do when a shutdown may take longer than Kubernetes waits by default. The pod's manifest, which may set another period, is
/// not known here.
fn beyond_grace(end: Duration) -> &'static str {
    if end < GRACE_PERIOD {
        return "";
    }
    "; Kubernetes waits 30s by default: raise terminationGracePeriodSeconds, or lower shutdown.drain_delay or shutdown.drain_timeout"
}
