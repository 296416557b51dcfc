//! `status`: shows the state of the running proxy, as text or as JSON.

use std::{fmt::Write as _, time::Duration};

use clap::Args;

use super::{
    admin::{Access, admin_target},
    output::print,
};
use crate::{
    admin::{LockOut, Status, Token},
    config::Inputs,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the JSON response of GET /api/status
    #[arg(long)]
    json: bool,
}

/// Prints the status. Succeeds in every state of the proxy.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let (json, status) = admin_target(inputs, Access::Read)?.status().await?;
    if arguments.json {
        print(json);
    } else {
        print(described(&status).trim_end());
    }
    Ok(())
}

/// The status as text, one line for each value.
fn described(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<20}{value}");
    };
    line("version", format!("{}, up for {}", status.version, time(status.uptime_s)));
    line("upstream", status.upstream.to_string());
    let source = match &*status.credentials_description {
        // From an older proxy.
        "" => format!("the {}", status.credentials_source),
        description => description.to_owned(),
    };
    let scheme = match &*status.scheme {
        "" => "not read yet".to_owned(),
        scheme => format!("scheme {scheme}"),
    };
    line("credentials", format!("from {source}, {scheme}"));
    line("token", token(&status.token));
    line("next token request", next_request(status));
    if let Some(error) = &status.token.last_error {
        let since = if error.resolved { "; a token has been obtained since" } else { "" };
        line("last token error", format!("{} ({} ago{since}): {}", error.at, time(error.age_s), error.message));
    }
    if status.draining {
        line("shutdown", "draining".to_owned());
    }
    text + &lock_out(&status.lock_out)
}

fn token(token: &Token) -> String {
    match token.usable_for_s {
        0 if token.obtained => format!("{}; the last one was version {}", token.state, token.version),
        0 => format!("{}; none obtained since startup", token.state),
        usable => format!("{}, version {}, usable for {}", token.state, token.version, time(usable)),
    }
}

/// When the next token request is made.
pub(super) fn next_request(status: &Status) -> String {
    match status.token.next_attempt_in_s {
        Some(wait) if status.scheme.is_empty() => {
            format!("after the credentials have been read; next attempt in {}", time(wait))
        }
        None if status.scheme.is_empty() && status.token.state == "empty" => {
            "after the credentials have been read, which is in progress".to_owned()
        }
        Some(0) => "now".to_owned(),
        Some(wait) => format!("in {}", time(wait)),
        None if status.lock_out.reason.is_some() => "none until an operator acts".to_owned(),
        None if status.token.state == "quarantined" => "none until the quarantine is lifted".to_owned(),
        None => "in progress".to_owned(),
    }
}

/// The lock-out guard's state, one line for each value.
pub(super) fn lock_out(guard: &LockOut) -> String {
    let latched = if guard.latched { "latched" } else { "not latched" };
    let budget = if guard.budget_spent { "budget spent" } else { "budget not spent" };
    let rejections = match guard.rejections {
        1 => "1 rejection".to_owned(),
        rejections => format!("{rejections} rejections"),
    };
    let remembered = match &*guard.remembered_in {
        "directory" => "remembered in auth.state_dir",
        "overlay" => "remembered until the container ends (auth.state_dir is on an overlay file system)",
        _ => "remembered until the process ends (in memory only)",
    };
    let mut text = format!("{:<20}{latched}, {budget}, {rejections} counted; {remembered}\n", "lock-out");
    let attempts = match guard.unresolved_attempts {
        _ if guard.unrecorded => "suspended: attempts cannot be recorded in auth.state_dir; see the log".to_owned(),
        0 => String::new(),
        count => format!("{count} with an unknown outcome{}", if guard.held { "; held" } else { "" }),
    };
    if !attempts.is_empty() {
        let _ = writeln!(text, "{:<20}{attempts}", "attempts");
    }
    for (name, value) in
        [("new credentials", &guard.new_credentials), ("reason", &guard.reason), ("what to do", &guard.remedy)]
    {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<20}{value}");
        }
    }
    text
}

/// Formats seconds for people.
fn time(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: &str) -> Status {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_status_is_described_line_by_line() {
        let fresh = status(
            r#"{"version":"1.2.3","uptime_s":90061,"upstream":"https://h/","scheme":"oauth2","credentials_source":"directory",
                "token":{"state":"fresh","version":3,"obtained":true,"usable_for_s":60,"next_attempt_in_s":5},
                "lock_out":{"rejections":0,"remembered_in":"directory"},"a_field_of_later":1}"#,
        );
        assert_eq!(
            described(&fresh),
            "version             1.2.3, up for 1day 1h 1m 1s\n\
             upstream            https://h/\n\
             credentials         from the directory, scheme oauth2\n\
             token               fresh, version 3, usable for 1m\n\
             next token request  in 5s\n\
             lock-out            not latched, budget not spent, 0 rejections counted; remembered in auth.state_dir\n"
        );
    }

    #[test]
    fn attempts_are_shown_when_they_block_token_requests() {
        let shown = |members: &str| lock_out(&status(&format!(r#"{{"lock_out":{{{members}}}}}"#)).lock_out);
        assert!(!shown("").contains("attempts"));
        let held = shown(r#""unresolved_attempts":3,"held":true"#);
        assert!(held.contains("\nattempts            3 with an unknown outcome; held\n"), "{held}");
        let one = shown(r#""unresolved_attempts":1"#);
        assert!(one.contains("\nattempts            1 with an unknown outcome\n"), "{one}");
        assert!(shown(r#""unrecorded":true"#).contains("\nattempts            suspended"));
    }

    #[test]
    fn a_lock_out_is_shown_with_reason_and_remedy() {
        let text = described(&status(
            r#"{"token":{"state":"rejected"},"lock_out":{"latched":true,"rejections":1,"reason":"why","remedy":"how",
                "remembered_in":"memory"}}"#,
        ));
        for line in [
            "token               rejected; none obtained since startup",
            "next token request  none until an operator acts",
            "lock-out            latched, budget not spent, 1 rejection counted; remembered until the process ends (in memory only)",
            "reason              why",
            "what to do          how",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}
