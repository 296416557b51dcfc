//! The Azure identities of a process.

use super::{
    Azure, IN_USE, MACHINE, UNUSABLE, assert_shows_nothing, secret,
    server::{CLIENT, Endpoint, VAULT},
    start, upstream,
};

#[test]
fn a_service_account_exchanges_its_token_at_entra() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_workload());
    azure.put(&secret(2));
    proxy.process.wait_for_log(IN_USE);
    assert_eq!(azure.issued(), 1, "a valid vault token is not obtained again");
    let heads = azure.egress.heads();
    let expected = [format!("CONNECT {VAULT}:443 "), "CONNECT login.microsoftonline.com:443 ".to_owned()];
    assert!(heads.iter().all(|head| expected.iter().any(|start| head.starts_with(start))), "{heads:?}");
    // The first requests have no token, to obtain the challenge that names the resource.
    let received = azure.server.received();
    let is_authorized: Vec<bool> =
        received.iter().take(3).map(|request| !request.headers("authorization").is_empty()).collect();
    assert_eq!(is_authorized, [false, false, true]);
    assert!(proxy.process.logs(UNUSABLE).is_empty());
    assert_shows_nothing(&proxy);
}

#[test]
fn a_machine_identity_comes_from_instance_metadata() {
    for client in [None, Some(CLIENT)] {
        let (upstream, azure) = (upstream(), Azure::new(&secret(1), Endpoint::Imds(client)));
        let proxy = start(&upstream, &azure.variables_of_managed_identity());
        azure.put(&secret(2));
        proxy.process.wait_for_log(IN_USE);
        assert_eq!(azure.issued(), 1);
        assert_shows_nothing(&proxy);
    }
}

#[test]
fn app_service_provides_the_identity_endpoint() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), Endpoint::AppService));
    let proxy = start(&upstream, &azure.variables_of_managed_identity());
    azure.put(&secret(2));
    proxy.process.wait_for_log(IN_USE);
    assert_eq!(azure.issued(), 1);
    assert_shows_nothing(&proxy);
}

#[test]
fn a_revoked_token_is_replaced_without_a_failure() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_workload());
    // The kubelet has replaced the token in the file.
    azure.write_assertion("2");
    azure.revoke_tokens();
    azure.put(&secret(2));
    proxy.process.wait_for_log(IN_USE);
    assert_eq!(azure.issued(), 2);
    assert!(proxy.process.logs(UNUSABLE).is_empty());
    assert_shows_nothing(&proxy);
}

#[test]
fn a_token_is_replaced_before_it_expires() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    azure.issue_short_tokens();
    let proxy = start(&upstream, &azure.variables_of_managed_identity());
    azure.wait_for_authorized_requests(3);
    assert!(azure.issued() >= 3);
    assert!(proxy.process.logs(UNUSABLE).is_empty());
    assert_shows_nothing(&proxy);
}
