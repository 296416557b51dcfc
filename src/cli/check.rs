//! `check`: is the configuration one that can run?

use std::time::Duration;

use super::output::print;
use crate::{
    app::{self, Checked, join_addresses, max_shutdown_time},
    config::Inputs,
    policy::{Mode, Policy},
    secret::ShownPath,
    server::Address,
};

/// What Kubernetes gives a pod to end, unless it is told otherwise.
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Loads everything, and says what it amounts to and what would keep `serve` from starting here. Nothing is created or locked, and
/// nobody is called.
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
        print(format_args!("  billing    at most {per_day} calls that may be billed on a day of UTC"));
    }
    let end = max_shutdown_time(config.shutdown);
    print(format_args!("  stopping   takes at most {}{}", humantime::format_duration(end), beyond_grace(end)));
    for note in notes {
        print(format_args!("  note       {note}"));
    }
    Ok(())
}

/// What the policy does, and its rules that match no operation.
fn policy_summary(policy: &Policy) -> String {
    let effect = match policy.mode() {
        _ if policy.is_open() => "callers may call everything",
        Mode::Enforce => "enforced; `finicity-proxy routes` shows what comes of it",
        Mode::Report => "only reported; `finicity-proxy routes` shows what would come of it",
    };
    let unknown = policy.unknown().iter().map(|rule| format!("; {rule} holds for no operation of the catalogue"));
    effect.to_owned() + &unknown.collect::<String>()
}

/// What to do about an end that may take longer than Kubernetes waits. How long that is, only the pod's manifest knows.
fn beyond_grace(end: Duration) -> &'static str {
    if end < GRACE_PERIOD {
        return "";
    }
    "; Kubernetes waits for 30s: raise terminationGracePeriodSeconds above that, or lower shutdown.drain_delay or drain_timeout"
}
