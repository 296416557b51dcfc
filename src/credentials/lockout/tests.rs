use std::{
    collections::HashMap,
    error::Error,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use ring::digest;

use super::{
    Decision::{Allowed, BudgetSpent, Held, Latched},
    state_error::StateError,
    *,
};

const FILE: &str = "lockout.json";
const TEMPORARY: &str = "lockout.json.tmp";
const ATTEMPTS_FILE: &str = "attempts.json";
const ATTEMPTS_TEMPORARY: &str = "attempts.json.tmp";
const LOCK: &str = "lockout.lock";

/// A wall-clock time.
const NOW: Duration = Duration::from_secs(1_800_000_000);

/// A path that does not exist yet, in a directory that is removed after the test.
fn state_dir() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    (parent, dir)
}

fn open(dir: &Path) -> Lockout {
    Lockout::open(Some(dir)).unwrap()
}

fn in_memory() -> Lockout {
    Lockout::open(None).unwrap()
}

fn fingerprint(lockout: &Lockout, id: &str, secret: &str) -> Fingerprint {
    lockout.fingerprint("oauth2", "api.finicity.com", &id.into(), &secret.into(), b"app-key")
}

/// Records rejections of `secrets` of `id`, one after another.
fn reject(lockout: &mut Lockout, id: &str, secrets: &[&str]) {
    for secret in secrets {
        let fingerprint = fingerprint(lockout, id, secret);
        assert_eq!(lockout.decide(&fingerprint), Allowed, "{secret}");
        lockout.record_rejection(&fingerprint).unwrap();
    }
}

/// Records that the vendor accepted `fingerprint` by a request sent now.
fn record_success(lockout: &mut Lockout, fingerprint: &Fingerprint) -> Result<(), PersistError> {
    let baseline = lockout.baseline(fingerprint, Duration::MAX);
    lockout.record_success(fingerprint, &baseline)
}

#[track_caller]
fn check(lockout: &Lockout, id: &str, secret: &str, expected: Decision) {
    assert_eq!(lockout.decide(&fingerprint(lockout, id, secret)), expected, "{id} {secret}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// An error with its sources, as operators see it.
fn error_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn one_rejection_latches_exactly_what_was_rejected() {
    let mut lockout = in_memory();
    reject(&mut lockout, "id", &["wrong"]);
    check(&lockout, "id", "wrong", Latched);
    check(&lockout, "id", "changed", Allowed);
    check(&lockout, "other", "wrong", Allowed);
    assert_eq!(lockout.rejections(&fingerprint(&lockout, "id", "changed")), 1);
}

#[test]
fn a_fingerprint_covers_each_part_of_a_token_request() {
    let lockout = in_memory();
    let fingerprint_of =
        |scheme, host, id: &str, secret: &str, key| lockout.fingerprint(scheme, host, &id.into(), &secret.into(), key);
    let one = fingerprint_of("oauth2", "host", "id", "secret", b"key");
    assert_eq!(one, fingerprint_of("oauth2", "HOST", "id", "secret", b"key"), "host names are case-insensitive");
    let same_account = [
        fingerprint_of("oauth2", "host", "id", "changed", b"key"),
        fingerprint_of("oauth2", "host", "id", "secret", b"changed"),
    ];
    let other_account = [
        fingerprint_of("partner", "host", "id", "secret", b"key"),
        fingerprint_of("oauth2", "changed", "id", "secret", b"key"),
        fingerprint_of("oauth2", "host", "changed", "secret", b"key"),
        // The same bytes, split differently.
        fingerprint_of("oauth2", "hosti", "d", "secret", b"key"),
        fingerprint_of("oauth2host", "", "id", "secret", b"key"),
    ];
    assert!(same_account.iter().all(|other| other.credentials != one.credentials && other.account == one.account));
    assert!(other_account.iter().all(|other| other.credentials != one.credentials && other.account != one.account));
    assert_ne!(fingerprint_of("oauth2", "host", "id", "secretk", b"ey").credentials, one.credentials);
    assert_ne!(
        fingerprint(&in_memory(), "id", "secret"),
        fingerprint(&in_memory(), "id", "secret"),
        "each key has its own hashes"
    );
}

#[test]
fn after_three_rejections_nothing_is_tried_for_the_id() {
    let mut lockout = in_memory();
    reject(&mut lockout, "id", &["a", "b", "c"]);
    check(&lockout, "id", "a", BudgetSpent);
    check(&lockout, "id", "right", BudgetSpent);
    check(&lockout, "other", "right", Allowed);
}

#[test]
fn a_reset_allows_one_more_try_and_its_rejection_counts() {
    let mut lockout = in_memory();
    let wrong = fingerprint(&lockout, "id", "wrong");
    for _ in 0..2 {
        reject(&mut lockout, "id", &["wrong"]);
        assert_eq!(lockout.reset(&wrong, false, NOW).unwrap(), Allowed);
    }
    reject(&mut lockout, "id", &["wrong"]);
    assert_eq!(lockout.rejections(&wrong), 3);
    assert_eq!(lockout.reset(&wrong, false, NOW).unwrap(), BudgetSpent);
    check(&lockout, "id", "wrong", BudgetSpent);
}

#[test]
fn an_override_grants_exactly_one_further_rejection() {
    let mut lockout = in_memory();
    reject(&mut lockout, "id", &["a", "b", "c"]);
    let first = fingerprint(&lockout, "id", "a");
    for _ in 0..2 {
        assert_eq!(lockout.reset(&first, true, NOW).unwrap(), Allowed);
    }
    check(&lockout, "id", "b", Latched);
    reject(&mut lockout, "id", &["a"]);
    check(&lockout, "id", "a", BudgetSpent);
    check(&lockout, "id", "d", BudgetSpent);
}

#[test]
fn an_override_of_a_budget_that_is_not_spent_adds_nothing_to_it() {
    let mut lockout = in_memory();
    reject(&mut lockout, "id", &["a"]);
    let first = fingerprint(&lockout, "id", "a");
    assert_eq!(lockout.reset(&first, true, NOW).unwrap(), Allowed);
    reject(&mut lockout, "id", &["b", "c"]);
    check(&lockout, "id", "a", BudgetSpent);
}

#[test]
fn a_success_resets_the_budget_but_not_the_latches_of_others() {
    let mut lockout = in_memory();
    reject(&mut lockout, "id", &["a", "b"]);
    let accepted = fingerprint(&lockout, "id", "right");
    record_success(&mut lockout, &accepted).unwrap();
    assert_eq!(lockout.rejections(&fingerprint(&lockout, "id", "right")), 0);
    check(&lockout, "id", "a", Latched);
    reject(&mut lockout, "id", &["c", "d"]);
    check(&lockout, "id", "right", Allowed);
    reject(&mut lockout, "id", &["e"]);
    check(&lockout, "id", "right", BudgetSpent);
}

#[test]
fn a_rejection_of_a_latched_fingerprint_counts() {
    let mut lockout = in_memory();
    let fingerprint = fingerprint(&lockout, "id", "wrong");
    for count in 1..=7 {
        lockout.record_rejection(&fingerprint).unwrap();
        assert_eq!(lockout.rejections(&fingerprint), count);
    }
    assert_eq!(lockout.reset(&fingerprint, true, NOW).unwrap(), Allowed);
    lockout.record_rejection(&fingerprint).unwrap();
    assert_eq!(lockout.decide(&fingerprint), BudgetSpent);
}

#[test]
fn n18_latch_and_budget_survive_a_restart() {
    let (_parent, dir) = state_dir();
    reject(&mut open(&dir), "id", &["a"]);
    check(&open(&dir), "id", "a", Latched);
    reject(&mut open(&dir), "id", &["b", "c"]);
    let mut lockout = open(&dir);
    check(&lockout, "id", "d", BudgetSpent);
    lockout.reset(&fingerprint(&lockout, "id", "a"), true, NOW).unwrap();
    check(&open(&dir), "id", "a", Allowed);
    let accepted = fingerprint(&lockout, "id", "a");
    record_success(&mut lockout, &accepted).unwrap();
    check(&open(&dir), "id", "a", Allowed);
    check(&open(&dir), "id", "b", Latched);
    assert!(lockout.is_persistent() && !in_memory().is_persistent());
}

#[test]
fn processes_that_share_a_directory_share_their_rejections() {
    let (_parent, dir) = state_dir();
    let (mut one, mut two) = (open(&dir), open(&dir));
    reject(&mut one, "id", &["a"]);
    check(&two, "id", "a", Latched);
    reject(&mut two, "id", &["b"]);
    reject(&mut one, "id", &["c"]);
    for lockout in [&one, &two] {
        check(lockout, "id", "d", BudgetSpent);
        assert_eq!(lockout.rejections(&fingerprint(lockout, "id", "d")), 3);
    }
    two.reset(&fingerprint(&two, "id", "a"), true, NOW).unwrap();
    check(&one, "id", "a", Allowed);
    check(&one, "id", "b", Latched);
    let accepted = fingerprint(&one, "id", "a");
    record_success(&mut one, &accepted).unwrap();
    assert_eq!(two.rejections(&fingerprint(&two, "id", "a")), 0);
}

#[test]
fn concurrent_rejections_are_all_counted() {
    let (_parent, dir) = state_dir();
    std::thread::scope(|scope| {
        for id in 0..8 {
            let dir = &dir;
            // Each thread opens the directory, so that creating the key is part of the race.
            scope.spawn(move || reject(&mut open(dir), &format!("id-{}", id / 2), &[&format!("secret-{id}")]));
        }
    });
    let lockout = open(&dir);
    for id in 0..8 {
        check(&lockout, &format!("id-{}", id / 2), &format!("secret-{id}"), Latched);
        assert_eq!(lockout.rejections(&fingerprint(&lockout, &format!("id-{}", id / 2), "")), 2);
    }
}

#[test]
fn directory_and_files_are_private_to_their_owner() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let modes = || (mode(&dir), mode(&dir.join(FILE)), mode(&dir.join(LOCK)));
    assert_eq!(modes(), (0o700, 0o600, 0o600));
    reject(&mut lockout, "id", &["wrong"]);
    assert_eq!(modes(), (0o700, 0o600, 0o600));
    assert!(!dir.join(TEMPORARY).exists());
}

#[test]
fn the_directory_holds_only_keyed_hashes_of_credentials() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let canaries = ["canary-id", "canary-secret", "canary-host", "canary-key", "canary-scheme"];
    let [id, secret, host, key, scheme] = canaries;
    let fingerprint = lockout.fingerprint(scheme, host, &id.into(), &secret.into(), key.as_bytes());
    lockout.record_rejection(&fingerprint).unwrap();

    let text = fs::read_to_string(dir.join(FILE)).unwrap();
    for canary in canaries {
        let hex = |bytes: &[u8]| format!("{:x}", base16ct::HexDisplay(bytes));
        let unkeyed = hex(digest::digest(&digest::SHA256, canary.as_bytes()).as_ref());
        for form in [canary.to_owned(), hex(canary.as_bytes()), unkeyed] {
            assert!(!text.to_ascii_lowercase().contains(&form), "{form} in {text}");
        }
    }
    let strings: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    let names = ["version", "key", "ids", "id", "rejections", "budget", "latched"];
    let hashes: Vec<&&str> = strings.iter().filter(|string| !names.contains(*string)).collect();
    assert!(hashes.iter().all(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())), "{text}");
    assert_eq!(hashes.len(), 3, "the key, the id's hash and one latch: {text}");
    assert_eq!(fs::metadata(dir.join(LOCK)).unwrap().len(), 0);
}

#[test]
fn debug_output_shows_eight_hash_digits_and_no_key() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    reject(&mut lockout, "canary-id", &["canary-secret"]);
    let fingerprint = fingerprint(&lockout, "canary-id", "canary-secret");
    let shown = format!("{lockout:?} {fingerprint:?}");
    assert!(!shown.contains("canary"), "{shown}");
    let text = fs::read_to_string(dir.join(FILE)).unwrap();
    for hash in text.split('"').filter(|string| string.len() == 64) {
        assert!(!shown.contains(&hash[..9]), "{hash} in {shown}");
    }
    assert_eq!(format!("{fingerprint:?}").len(), "Fingerprint(00000000)".len());
}

#[test]
fn an_invalid_state_is_an_error_and_is_not_modified() {
    let (_parent, dir) = state_dir();
    reject(&mut open(&dir), "id", &["wrong"]);
    let file = dir.join(FILE);
    let good = fs::read_to_string(&file).unwrap();
    for (bad, expected) in [
        (String::new(), "damaged"),
        ("not-quoted-canary".to_owned(), "damaged"),
        (good[..good.len() / 2].to_owned(), "damaged"),
        (good.replace("\"latched\"", "\"canary\""), "damaged"),
        (good.replace("\"key\": \"", "\"key\": \"x"), "key in the file"),
        (good.replace("\"id\": \"", "\"id\": \"x"), "damaged"),
        (good.replace("\"version\": 1", "\"version\": 2"), "version 2"),
        (" ".repeat(300_000), "larger"),
    ] {
        fs::write(&file, &bad).unwrap();
        let error_text = error_text(&Lockout::open(Some(&dir)).expect_err(expected));
        assert!(error_text.contains(expected) && error_text.contains(&file.display().to_string()), "{error_text}");
        assert!(error_text.contains("restore a good copy") && !error_text.contains("canary"), "{error_text}");
        assert_eq!(fs::read_to_string(&file).unwrap(), bad);
    }
    fs::write(&file, good).unwrap();
    check(&open(&dir), "id", "wrong", Latched);
}

#[test]
fn an_error_names_the_path_of_an_inaccessible_state() {
    let (_parent, dir) = state_dir();
    fs::create_dir_all(dir.join(FILE)).unwrap();
    let unreadable = error_text(&Lockout::open(Some(&dir)).unwrap_err());
    assert!(unreadable.contains("cannot be read") && unreadable.contains(FILE), "{unreadable}");

    fs::write(dir.join("file"), "").unwrap();
    let uncreated = error_text(&Lockout::open(Some(&dir.join("file"))).unwrap_err());
    assert!(uncreated.contains("cannot be created") && uncreated.contains("auth.state_dir"), "{uncreated}");
}

#[test]
fn only_a_read_only_file_system_is_tolerated() {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    for kind in [PermissionDenied, ReadOnlyFilesystem, StorageFull] {
        for error in [StateError::Directory, StateError::Lock, StateError::Write] {
            assert_eq!(error(kind.into()).is_read_only(), kind == ReadOnlyFilesystem, "{kind}");
        }
        // An unreadable file may contain a rejection.
        assert!(!StateError::Read(kind.into()).is_read_only());
    }
}

#[test]
fn a_temporary_file_left_by_a_crash_is_harmless() {
    let (parent, dir) = state_dir();
    reject(&mut open(&dir), "id", &["a"]);
    fs::write(dir.join(TEMPORARY), "{\"version\": 1, \"ke").unwrap();
    let mut lockout = open(&dir);
    check(&lockout, "id", "a", Latched);
    reject(&mut lockout, "id", &["b"]);

    let elsewhere = parent.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir.join(TEMPORARY)).unwrap();
    reject(&mut lockout, "id", &["c"]);
    check(&open(&dir), "id", "d", BudgetSpent);
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "untouched");
}

/// Makes `dir` read-only. Root can still write, so directories at the temporary paths prevent that.
fn make_read_only(dir: &Path) {
    for temporary in [TEMPORARY, ATTEMPTS_TEMPORARY] {
        fs::create_dir(dir.join(temporary)).unwrap();
    }
    fs::set_permissions(dir, Permissions::from_mode(0o500)).unwrap();
}

fn make_writable(dir: &Path) {
    fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
    for temporary in [TEMPORARY, ATTEMPTS_TEMPORARY] {
        fs::remove_dir(dir.join(temporary)).unwrap();
    }
}

#[test]
fn a_read_only_directory_blocks_only_changes_that_loosen() {
    let (_parent, dir) = state_dir();
    reject(&mut open(&dir), "id", &["a"]);
    let mut lockout = open(&dir);
    make_read_only(&dir);

    let (a, b) = (fingerprint(&lockout, "id", "a"), fingerprint(&lockout, "id", "b"));
    let error_text = error_text(&lockout.record_rejection(&b).unwrap_err());
    assert!(error_text.contains("make its directory writable") && error_text.contains(FILE), "{error_text}");
    assert_eq!((lockout.decide(&b), lockout.rejections(&b)), (Latched, 2));
    lockout.reset(&a, false, NOW).unwrap_err();
    assert_eq!(lockout.decide(&a), Latched);
    let accepted = fingerprint(&lockout, "id", "right");
    record_success(&mut lockout, &accepted).unwrap_err();
    assert_eq!(lockout.rejections(&a), 2);
    assert_eq!(open(&dir).rejections(&b), 1);

    make_writable(&dir);
    lockout.reset(&a, false, NOW).unwrap();
    assert_eq!(lockout.rejections(&a), 2);
    let other = open(&dir);
    assert_eq!((other.decide(&a), other.decide(&b), other.rejections(&b)), (Allowed, Latched, 2));
}

#[test]
fn nothing_is_written_if_nothing_changes() {
    let (_parent, dir) = state_dir();
    reject(&mut open(&dir), "id", &["wrong"]);
    let mut lockout = open(&dir);
    let right = fingerprint(&lockout, "other", "right");
    record_success(&mut lockout, &right).unwrap();
    make_read_only(&dir);
    record_success(&mut lockout, &right).unwrap();
    assert_eq!(lockout.reset(&fingerprint(&lockout, "other", "right"), true, NOW).unwrap(), Allowed);
    make_writable(&dir);
}

#[test]
fn a_lock_that_is_never_released_does_not_block_forever() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    let holder = fs::File::open(dir.join(LOCK)).unwrap();
    holder.lock().unwrap();
    let wrong = fingerprint(&lockout, "id", "wrong");
    let error_text = error_text(&lockout.record_rejection(&wrong).unwrap_err());
    assert!(error_text.contains("another process holds the lock"), "{error_text}");
    assert_eq!(lockout.decide(&wrong), Latched);
    drop(holder);
    let accepted = fingerprint(&lockout, "other", "right");
    record_success(&mut lockout, &accepted).unwrap();
    check(&open(&dir), "id", "wrong", Latched);
}

#[test]
fn a_state_damaged_or_removed_at_run_time_is_not_lost() {
    let (_parent, dir) = state_dir();
    let mut lockout = open(&dir);
    reject(&mut lockout, "id", &["a"]);
    fs::write(dir.join(FILE), "damaged").unwrap();
    check(&lockout, "id", "a", Latched);
    check(&lockout, "id", "right", Allowed);
    let right = fingerprint(&lockout, "id", "right");
    assert!(error_text(&record_success(&mut lockout, &right).unwrap_err()).contains("damaged"));
    assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap(), "damaged");

    fs::remove_file(dir.join(FILE)).unwrap();
    check(&lockout, "id", "a", Latched);
    reject(&mut lockout, "id", &["b"]);
    check(&open(&dir), "id", "a", Latched);
    check(&open(&dir), "id", "b", Latched);

    fs::remove_file(dir.join(FILE)).unwrap();
    reject(&mut open(&dir), "id", &["c"]);
    let c = fingerprint(&lockout, "id", "c");
    assert!(error_text(&lockout.record_rejection(&c).unwrap_err()).contains("restart"));
    assert_eq!(lockout.decide(&c), BudgetSpent);
}

mod attempts;

#[derive(Clone, Debug)]
enum Event {
    /// If the decision allows it, a process tries a secret of an id, and the vendor accepts or rejects it.
    Try {
        id: u8,
        secret: u8,
        accepts: bool,
    },
    Reset {
        id: u8,
        secret: u8,
        override_budget: bool,
    },
    Restart,
}

fn events(longest: usize) -> impl Strategy<Value = Vec<(usize, Event)>> {
    let event = prop_oneof![
        6 => (0..2u8, 0..4u8, prop::bool::weighted(0.15))
            .prop_map(|(id, secret, accepts)| Event::Try { id, secret, accepts }),
        3 => (0..2u8, 0..4u8, any::<bool>())
            .prop_map(|(id, secret, override_budget)| Event::Reset { id, secret, override_budget }),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec((0..2usize, event), 0..longest)
}

/// Applies `events` to two processes that share `dir`, or to one in memory, and checks the vendor's counts.
fn play(dir: Option<&Path>, events: Vec<(usize, Event)>) {
    let mut processes = [Lockout::open(dir).unwrap(), Lockout::open(dir).unwrap()];
    let mut since_reset: HashMap<(u8, u8), u32> = HashMap::new();
    // The vendor's count for each id, and the number of overrides since its last reset.
    let mut vendor_counts: HashMap<u8, (u32, u32)> = HashMap::new();
    for (process, event) in events {
        let lockout = &mut processes[if dir.is_some() { process } else { 0 }];
        match event {
            Event::Try { id, secret, accepts } => {
                let fingerprint = fingerprint(lockout, &id.to_string(), &secret.to_string());
                if lockout.decide(&fingerprint) != Allowed {
                    continue;
                }
                if accepts {
                    record_success(lockout, &fingerprint).unwrap();
                    vendor_counts.remove(&id);
                    continue;
                }
                lockout.record_rejection(&fingerprint).unwrap();
                let rejections = since_reset.entry((id, secret)).or_default();
                *rejections += 1;
                assert_eq!(*rejections, 1, "rejected twice without a reset");
                let (count, overrides) = vendor_counts.entry(id).or_default();
                *count += 1;
                assert!(*count <= 3 + *overrides, "{count} rejections with {overrides} overrides");
                assert_eq!(lockout.rejections(&fingerprint), *count);
            }
            Event::Reset { id, secret, override_budget } => {
                let fingerprint = fingerprint(lockout, &id.to_string(), &secret.to_string());
                let before = lockout.decide(&fingerprint);
                let after = lockout.reset(&fingerprint, override_budget, NOW).unwrap();
                if before == BudgetSpent && !override_budget {
                    assert_eq!(after, BudgetSpent);
                    continue;
                }
                assert_eq!(after, Allowed);
                since_reset.remove(&(id, secret));
                vendor_counts.entry(id).or_default().1 += u32::from(before == BudgetSpent);
            }
            Event::Restart if dir.is_some() => *lockout = open(dir.unwrap()),
            Event::Restart => {}
        }
    }
}

proptest! {
    #[test]
    fn no_rejection_repeats_without_reset_or_exceeds_the_budget(events in events(60)) {
        play(None, events);
    }
}

proptest! {
    // Each event makes several writes that wait for the disk.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_rules_hold_across_processes_and_restarts(events in events(40)) {
        let dir = tempfile::tempdir().unwrap();
        play(Some(dir.path()), events);
    }
}
