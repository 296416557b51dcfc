//! Errors in `[webhook]` that prevent startup.

use crate::support::{
    WEBHOOK_SECRET,
    process::{Process, program, serve_command},
    upstream::{Reply, Upstream},
};

/// The output and the exit code of `check` with `variables`.
fn check(variables: &[(&str, &str)]) -> (String, Option<i32>) {
    let mut command = program();
    command.arg("check").envs(variables.iter().copied());
    let mut process = Process::start(command);
    let code = process.wait().code();
    (process.output(), code)
}

const PARTNER: [(&str, &str); 3] = [
    ("FINICITY_PARTNER_ID", "2445583946651"),
    ("FINICITY_PARTNER_SECRET", "a-secret-of-a-test-1!"),
    ("FINICITY_APP_KEY", "an-app-key-of-a-test"),
];
const OAUTH2: [(&str, &str); 3] = [
    ("FINICITY_CLIENT_ID", "a-client-of-a-test"),
    ("FINICITY_CLIENT_SECRET", "a-secret-of-a-test-1!"),
    ("FINICITY_APP_KEY", "an-app-key-of-a-test"),
];
const LISTEN: (&str, &str) = ("FINICITY__WEBHOOK__LISTEN", "127.0.0.1:3467");
const FORWARD_TO: (&str, &str) = ("FINICITY__WEBHOOK__FORWARD_TO", "http://127.0.0.1:8080/webhooks");

#[test]
fn a_webhook_listener_needs_a_local_service_and_a_secret() {
    for (credentials, variables, expected) in [
        (&PARTNER, vec![LISTEN, FORWARD_TO], None),
        (&PARTNER, vec![FORWARD_TO], None),
        (&OAUTH2, vec![LISTEN, FORWARD_TO, ("FINICITY_WEBHOOK_SECRET", WEBHOOK_SECRET)], None),
        (&PARTNER, vec![LISTEN], Some("webhook.forward_to")),
        (
            &PARTNER,
            vec![LISTEN, ("FINICITY__WEBHOOK__FORWARD_TO", "http://10.0.0.1/")],
            Some("must be a service on this machine"),
        ),
        (&PARTNER, vec![("FINICITY__WEBHOOK__LISTEN", "0.0.0.0:3467"), FORWARD_TO], Some("listen.allow_remote")),
        (
            &PARTNER,
            vec![("FINICITY__WEBHOOK__LISTEN", "0.0.0.0:3467"), FORWARD_TO, ("FINICITY__LISTEN__ALLOW_REMOTE", "true")],
            None,
        ),
        (&PARTNER, vec![("FINICITY__WEBHOOK__LISTEN", "127.0.0.1:3465"), FORWARD_TO], Some("is already used by")),
        (&PARTNER, vec![("FINICITY__WEBHOOK__LISTEN", "canary"), FORWARD_TO], Some("webhook.listen")),
        (&PARTNER, vec![("FINICITY__WEBHOOK__SIGNATURE_HEADER", "Host")], Some("webhook.signature_header")),
        (&PARTNER, vec![("FINICITY__WEBHOOK__TIMEOUT", "0s")], Some("webhook.timeout")),
        (&OAUTH2, vec![LISTEN, FORWARD_TO], Some("set FINICITY_WEBHOOK_SECRET")),
        (
            &OAUTH2,
            vec![LISTEN, FORWARD_TO, ("FINICITY_WEBHOOK_SECRET_PREVIOUS", WEBHOOK_SECRET)],
            Some("set FINICITY_WEBHOOK_SECRET"),
        ),
        (&PARTNER, vec![("FINICITY_WEBHOOK_SECRET", " spoiled")], Some("FINICITY_WEBHOOK_SECRET begins or ends")),
        (&PARTNER, vec![("FINICITY_WEBHOK_SECRET", WEBHOOK_SECRET)], Some("FINICITY_WEBHOOK_SECRET")),
    ] {
        let (output, code) = check(&[&credentials[..], &variables].concat());
        match expected {
            None => {
                assert_eq!(code, Some(0), "{variables:?}\n{output}");
                let listens = variables.iter().any(|(name, _)| *name == LISTEN.0);
                assert_eq!(output.contains("forwarded to http://127.0.0.1:8080"), listens, "{output}");
            }
            Some(text) => assert!(code == Some(78) && output.contains(text), "{variables:?}\n{output}"),
        }
    }
}

#[test]
fn serve_rejects_the_configuration_that_check_rejects() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut process = Process::start(serve_command(&upstream, &[LISTEN, FORWARD_TO]));
    assert_eq!(process.wait().code(), Some(78));
    assert!(process.output().contains("FINICITY_WEBHOOK_SECRET"), "{}", process.output());
}
