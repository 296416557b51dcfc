//! Attempts with unproven credentials are recorded before they are made, and counted until their outcome is known.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The attempt after which the token endpoint must respond, at `now`.
fn last_attempt(lockout: &Lockout, fingerprint: &Fingerprint, now: Duration) -> Option<LastAttempt> {
    let mut attempts = lockout.newest_attempts().ok()?.into_owned();
    attempts.clamp(now);
    attempts.last_attempt(fingerprint)
}

/// Begins an attempt, which the rules must permit.
#[track_caller]
fn attempt(lockout: &mut Lockout, fingerprint: &Fingerprint, now: Duration) -> Permit {
    let last = last_attempt(lockout, fingerprint, now);
    match lockout.begin(fingerprint, now, last).unwrap() {
        BeginOutcome::Recorded(permit) => permit,
        other => panic!("not permitted: {other:?}"),
    }
}

/// The outcome of `begin` for another attempt, which is not made.
fn begin_outcome(lockout: &mut Lockout, fingerprint: &Fingerprint, now: Duration, endpoint_responded: bool) -> String {
    let last = last_attempt(lockout, fingerprint, now).filter(|_| endpoint_responded);
    match lockout.begin(fingerprint, now, last).unwrap() {
        BeginOutcome::Recorded(permit) => {
            lockout.resolve(permit).unwrap();
            "permitted".to_owned()
        }
        BeginOutcome::ProbeFirst(_) => "ProbeFirst".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Makes three attempts without a response, a minute apart; returns the time of the last one.
fn lose_three(lockout: &mut Lockout, fingerprint: &Fingerprint) -> Duration {
    for minute in 0..3 {
        drop(attempt(lockout, fingerprint, NOW + minute * HOUR / 60));
    }
    NOW + 2 * HOUR / 60
}

#[test]
fn an_attempt_is_on_disk_before_it_is_made() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let fingerprint = fingerprint(&lockout, "id", "secret");
    let permit = attempt(&mut lockout, &fingerprint, NOW);
    let text = fs::read_to_string(dir.join(ATTEMPTS_FILE)).unwrap();
    assert!(text.contains("\"at_ms\": 1800000000000") && text.contains("\"version\": 1"), "{text}");
    assert_eq!(mode(&dir.join(ATTEMPTS_FILE)), 0o600);
    assert_eq!((lockout.unresolved(&fingerprint), open(&dir).unresolved(&fingerprint)), (1, 1));
    lockout.resolve(permit).unwrap();
    assert_eq!(open(&dir).unresolved(&fingerprint), 0);
}

#[test]
fn a_crash_leaves_an_attempt_that_the_next_process_counts() {
    let (_parent, dir) = state_dir();
    let mut first = open(&dir);
    let secret = fingerprint(&first, "id", "secret");
    // The process ends: its lock is released, its record remains.
    drop(attempt(&mut first, &secret, NOW));
    drop(first);
    let mut second = open(&dir);
    assert_eq!(begin_outcome(&mut second, &secret, NOW, false), "ProbeFirst");
    assert_eq!(begin_outcome(&mut second, &secret, NOW, true), "NotBefore(18s)");
    assert_eq!(begin_outcome(&mut second, &secret, NOW + Duration::from_secs(17), true), "NotBefore(1s)");
    assert_eq!(begin_outcome(&mut second, &secret, NOW + Duration::from_secs(18), true), "permitted");
    // Other credentials of the account are the same risk; those of another account are not.
    let (sibling, other) = (fingerprint(&second, "id", "changed"), fingerprint(&second, "other", "secret"));
    assert_eq!(begin_outcome(&mut second, &sibling, NOW + DAY, false), "ProbeFirst");
    assert_eq!(begin_outcome(&mut second, &other, NOW, false), "permitted");
}

#[test]
fn three_unknown_outcomes_hold_for_a_day_a_fourth_forever() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let secret = fingerprint(&lockout, "id", "secret");
    let last = lose_three(&mut lockout, &secret);
    drop(lockout);
    let mut lockout = open(&dir);
    assert_eq!(begin_outcome(&mut lockout, &secret, last, true), "Held(Some(86400s))");
    let changed = fingerprint(&lockout, "id", "changed");
    assert_eq!(begin_outcome(&mut lockout, &changed, last + HOUR, true), "Held(Some(82800s))");
    assert_eq!(begin_outcome(&mut lockout, &secret, last + DAY, false), "ProbeFirst");
    drop(attempt(&mut lockout, &secret, last + DAY));
    for later in [HOUR, 2 * DAY, 400 * DAY] {
        assert_eq!(begin_outcome(&mut open(&dir), &secret, last + DAY + later, true), "Held(None)");
    }
}

#[test]
fn only_an_override_ends_a_hold_and_permits_one_attempt() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let secret = fingerprint(&lockout, "id", "secret");
    let last = lose_three(&mut lockout, &secret);
    assert_eq!(lockout.reset(&secret, false, last).unwrap(), Held);
    assert_eq!(begin_outcome(&mut lockout, &secret, last + HOUR, true), "Held(Some(82800s))");
    for attempts in 4..7 {
        assert_eq!(lockout.reset(&secret, true, last).unwrap(), Allowed);
        assert_eq!(lockout.reset(&secret, true, last).unwrap(), Allowed, "a second override grants nothing more");
        assert_eq!(begin_outcome(&mut lockout, &secret, last, false), "ProbeFirst");
        drop(attempt(&mut lockout, &secret, last + HOUR));
        assert_eq!(lockout.unresolved(&secret), attempts);
        assert_eq!(begin_outcome(&mut lockout, &secret, last + 400 * DAY, true), "Held(None)");
    }
}

#[test]
fn rejections_and_unknown_outcomes_add_up() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let (first, second) = (fingerprint(&lockout, "id", "first"), fingerprint(&lockout, "id", "second"));
    for (wrong, at) in [(&first, NOW), (&second, NOW + HOUR)] {
        let permit = attempt(&mut lockout, wrong, at);
        lockout.record_rejection(wrong).unwrap();
        lockout.resolve(permit).unwrap();
    }
    let third = fingerprint(&lockout, "id", "third");
    drop(attempt(&mut lockout, &third, NOW + 2 * HOUR));
    assert_eq!(begin_outcome(&mut lockout, &third, NOW + 3 * HOUR, true), "Held(Some(82800s))");
    let permit = attempt(&mut lockout, &third, NOW + 2 * HOUR + DAY);
    lockout.record_rejection(&third).unwrap();
    lockout.resolve(permit).unwrap();
    check(&lockout, "id", "fourth", BudgetSpent);
    assert_eq!(begin_outcome(&mut lockout, &third, NOW + 100 * DAY, true), "Rejected(BudgetSpent)");
}

#[test]
fn an_override_of_a_spent_budget_permits_one_attempt() {
    let mut lockout = in_memory();
    reject(&mut lockout, "id", &["a", "b", "c"]);
    let right = fingerprint(&lockout, "id", "right");
    assert_eq!(lockout.reset(&right, true, NOW).unwrap(), Allowed);
    drop(attempt(&mut lockout, &right, NOW));
    assert_eq!(begin_outcome(&mut lockout, &right, NOW + 2 * DAY, true), "Held(None)");
    assert_eq!(lockout.reset(&right, true, NOW).unwrap(), Allowed);
    assert_eq!(begin_outcome(&mut lockout, &right, NOW + HOUR, true), "permitted");
}

#[test]
fn a_token_proves_credentials_until_change_or_rejection() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let (old, new) = (fingerprint(&lockout, "id", "old"), fingerprint(&lockout, "id", "new"));
    drop(attempt(&mut lockout, &old, NOW));
    record_success(&mut lockout, &old).unwrap();
    drop(lockout);
    let mut lockout = open(&dir);
    assert_eq!(begin_outcome(&mut lockout, &old, NOW, false), "Proven");
    assert_eq!(begin_outcome(&mut lockout, &new, NOW, false), "permitted");

    record_success(&mut lockout, &new).unwrap();
    assert_eq!(begin_outcome(&mut lockout, &new, NOW, false), "Proven");
    assert_eq!(begin_outcome(&mut lockout, &old, NOW, false), "permitted", "the credentials were replaced");

    lockout.record_rejection(&new).unwrap();
    assert_eq!(lockout.reset(&new, false, NOW).unwrap(), Allowed);
    assert_eq!(begin_outcome(&mut lockout, &new, NOW, false), "permitted", "and recorded again");
}

#[test]
fn a_success_of_other_credentials_keeps_the_wrong_ones_count() {
    let mut lockout = in_memory();
    let (wrong, right, corrected) = (
        fingerprint(&lockout, "id", "wrong"),
        fingerprint(&lockout, "id", "right"),
        fingerprint(&lockout, "id", "corrected"),
    );
    let last = lose_three(&mut lockout, &wrong);
    record_success(&mut lockout, &right).unwrap();
    // The vendor has reset its count, so corrected credentials may be tried; the wrong ones keep their own count.
    assert_eq!(begin_outcome(&mut lockout, &corrected, last, false), "permitted");
    assert_eq!(begin_outcome(&mut lockout, &wrong, last + HOUR, true), "Held(Some(82800s))");
    drop(attempt(&mut lockout, &wrong, last + DAY));
    record_success(&mut lockout, &right).unwrap();
    assert_eq!(begin_outcome(&mut lockout, &wrong, last + 400 * DAY, true), "Held(None)");
}

#[test]
fn a_success_voids_only_what_preceded_its_request() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let (right, wrong) = (fingerprint(&lockout, "id", "right"), fingerprint(&lockout, "id", "wrong"));
    drop(attempt(&mut lockout, &wrong, NOW));
    reject(&mut lockout, "id", &["a"]);
    let baseline = lockout.baseline(&right, NOW + HOUR);
    drop(attempt(&mut lockout, &wrong, NOW + 2 * HOUR));
    reject(&mut lockout, "id", &["b"]);
    lockout.record_success(&right, &baseline).unwrap();
    let changed = fingerprint(&lockout, "id", "changed");
    assert_eq!((lockout.rejections(&changed), lockout.unresolved(&changed), lockout.unresolved(&wrong)), (1, 1, 2));
}

#[test]
fn a_second_process_reads_the_outcome_of_the_first() {
    let (_parent, dir) = state_dir();
    let (mut one, mut two) = (open(&dir), open(&dir));
    let secret = fingerprint(&one, "id", "secret");
    let permit = attempt(&mut one, &secret, NOW);
    assert_eq!(begin_outcome(&mut two, &secret, NOW, false), "InProgress");
    one.record_rejection(&secret).unwrap();
    one.resolve(permit).unwrap();
    assert_eq!(begin_outcome(&mut two, &secret, NOW, false), "Rejected(Latched)");

    let (mut one, mut two) = (open(&dir), open(&dir));
    let corrected = fingerprint(&one, "id", "corrected");
    let permit = attempt(&mut one, &corrected, NOW);
    record_success(&mut one, &corrected).unwrap();
    assert_eq!(begin_outcome(&mut two, &corrected, NOW, false), "Proven");
    drop(permit);
    assert_eq!(begin_outcome(&mut two, &corrected, NOW, false), "Proven");
}

#[test]
fn without_a_record_there_is_no_attempt() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let (right, secret) = (fingerprint(&lockout, "id", "right"), fingerprint(&lockout, "id", "secret"));
    record_success(&mut lockout, &right).unwrap();
    make_read_only(&dir);
    let error = error_text(&lockout.begin(&secret, NOW, None).unwrap_err());
    assert!(error.contains("make its directory writable"), "{error}");
    assert_eq!(begin_outcome(&mut lockout, &right, NOW, false), "Proven", "only unproven credentials are blocked");
    make_writable(&dir);

    fs::create_dir(dir.join(TEMPORARY)).unwrap();
    let error = error_text(&lockout.begin(&secret, NOW, None).unwrap_err());
    assert!(error.contains(FILE), "a rejection could not be recorded: {error}");
    fs::remove_dir(dir.join(TEMPORARY)).unwrap();

    fs::write(dir.join(ATTEMPTS_FILE), "{\"version\": 1, canary").unwrap();
    let error = error_text(&lockout.begin(&right, NOW, None).unwrap_err());
    assert!(error.contains("damaged at line 1") && !error.contains("canary"), "{error}");
    fs::write(dir.join(ATTEMPTS_FILE), "{\"version\": 2}").unwrap();
    assert!(error_text(&lockout.begin(&right, NOW, None).unwrap_err()).contains("version 2"));
    fs::remove_file(dir.join(ATTEMPTS_FILE)).unwrap();
    assert_eq!(begin_outcome(&mut lockout, &right, NOW, false), "permitted");
}

#[test]
fn the_rejections_keep_their_layout_for_upgrade_and_rollback() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    reject(&mut lockout, "id", &["wrong"]);
    // The state of an earlier release: rejections, but no attempts.
    let earlier = fs::read_to_string(dir.join(FILE)).unwrap();
    let members: Vec<&str> = earlier.split('"').skip(1).step_by(2).filter(|string| string.len() != 64).collect();
    assert_eq!(members, ["version", "key", "ids", "id", "rejections", "budget", "latched"], "{earlier}");
    let mut upgraded = open(&dir);
    check(&upgraded, "id", "wrong", Latched);
    let secret = fingerprint(&upgraded, "id", "secret");
    drop(attempt(&mut upgraded, &secret, NOW));
    // The attempt does not change the file that an earlier release reads.
    assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap(), earlier);
    // An earlier release adds a rejection; the attempt is still on record after the next upgrade.
    let fingerprint = fingerprint(&upgraded, "id", "another");
    upgraded.record_rejection(&fingerprint).unwrap();
    assert_eq!(open(&dir).unresolved(&secret), 1);
}

#[test]
fn attempts_with_another_key_are_ignored() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let secret = fingerprint(&lockout, "id", "secret");
    drop(attempt(&mut lockout, &secret, NOW));
    fs::remove_file(dir.join(FILE)).unwrap();
    let mut lockout = open(&dir);
    let secret = fingerprint(&lockout, "id", "secret");
    assert_eq!(begin_outcome(&mut lockout, &secret, NOW, false), "permitted");
}

#[test]
fn setting_the_wall_clock_back_does_not_extend_a_hold() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let secret = fingerprint(&lockout, "id", "secret");
    let last = lose_three(&mut lockout, &secret);
    let earlier = last - 200 * DAY;
    assert_eq!(begin_outcome(&mut lockout, &secret, earlier, true), "Held(Some(86400s))");
    assert_eq!(begin_outcome(&mut open(&dir), &secret, earlier + DAY, true), "permitted");
    assert_eq!(begin_outcome(&mut open(&dir), &secret, Duration::ZERO, true), "Held(Some(86400s))");
    assert_eq!(
        begin_outcome(&mut open(&dir), &secret, earlier + HOUR, true),
        "Held(Some(82800s))",
        "an unset clock changes nothing"
    );
}

#[test]
fn the_same_rules_apply_in_memory() {
    let mut lockout = in_memory();
    let secret = fingerprint(&lockout, "id", "secret");
    let last = lose_three(&mut lockout, &secret);
    assert_eq!(begin_outcome(&mut lockout, &secret, last, true), "Held(Some(86400s))");
    record_success(&mut lockout, &secret).unwrap();
    assert_eq!(begin_outcome(&mut lockout, &secret, last, true), "Proven");
}

#[test]
fn the_attempts_file_contains_no_credential() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let fingerprint =
        lockout.fingerprint("oauth2", "canary-host", &"canary-id".into(), &"canary-secret".into(), b"canary");
    record_success(&mut lockout, &fingerprint).unwrap();
    let text = fs::read_to_string(dir.join(ATTEMPTS_FILE)).unwrap();
    let hashes: Vec<&str> = text.split('"').skip(1).step_by(2).filter(|string| string.len() == 64).collect();
    assert!(hashes.len() == 3 && !text.contains("canary"), "the key's id, the account's and one proof: {text}");
}

#[test]
fn a_reset_of_rejected_credentials_leaves_no_proof() {
    // A process may be killed between the two writes of a rejection, and an earlier release makes only the first.
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let fingerprint = fingerprint(&lockout, "id", "secret");
    record_success(&mut lockout, &fingerprint).unwrap();
    let proof = fs::read(dir.join(ATTEMPTS_FILE)).unwrap();
    for (more, override_budget) in [(&[][..], false), (&["b"][..], true)] {
        lockout.record_rejection(&fingerprint).unwrap();
        reject(&mut lockout, "id", more);
        fs::write(dir.join(ATTEMPTS_FILE), &proof).unwrap();
        let mut restarted = open(&dir);
        assert_eq!(restarted.reset(&fingerprint, override_budget, NOW).unwrap(), Allowed);
        assert_eq!(
            begin_outcome(&mut restarted, &fingerprint, NOW, false),
            "permitted",
            "and recorded, because it was rejected"
        );
        lockout = open(&dir);
    }
}

#[test]
fn a_time_from_an_unset_clock_does_not_shorten_a_hold() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let secret = fingerprint(&lockout, "id", "secret");
    // A machine without a battery-backed clock starts at the epoch and sets its clock from the network later.
    for minute in 0..3 {
        drop(attempt(&mut lockout, &secret, minute * HOUR / 60));
    }
    assert_eq!(begin_outcome(&mut lockout, &secret, NOW, true), "Held(Some(86400s))");
    assert_eq!(begin_outcome(&mut open(&dir), &secret, NOW + HOUR, true), "Held(Some(82800s))");
    assert_eq!(begin_outcome(&mut open(&dir), &secret, NOW + DAY, true), "permitted");
}
