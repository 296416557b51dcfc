use std::{
    error::Error as _,
    os::unix::fs::{PermissionsExt, symlink},
    pin::pin,
    thread,
};

use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::*;

/// A volume like the kubelet's: links into `..data`, which is a link to the newest generation.
struct Volume {
    dir: TempDir,
    generation: usize,
}

impl Volume {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in Field::ALL.map(Field::file_name) {
            symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
        }
        let mut volume = Self { dir, generation: 0 };
        volume.swap();
        volume
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn generation(&self) -> PathBuf {
        self.path().join(format!("..gen{}", self.generation))
    }

    /// Writes the next generation and swaps it in, in the kubelet's order. Each value ends in the number of the generation.
    fn swap(&mut self) {
        let old = self.generation();
        self.generation += 1;
        let new = self.generation();
        fs::create_dir(&new).unwrap();
        for name in ["client_id", "client_secret", "app_key"] {
            fs::write(new.join(name), format!("{name}-{}", self.generation)).unwrap();
        }
        let link = self.path().join("..data_tmp");
        symlink(new.file_name().unwrap(), &link).unwrap();
        fs::rename(&link, self.path().join("..data")).unwrap();
        if old.exists() {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

/// A plain directory that contains `files`.
fn plain(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

/// Checks that `files` are all files of generation `number`.
#[track_caller]
fn check_generation(files: &Files, number: usize) {
    assert_eq!(files.names().collect::<Vec<_>>(), ["app_key", "client_id", "client_secret"]);
    for name in files.names() {
        assert_eq!(files.get(name).unwrap().expose(), &format!("{name}-{number}"));
    }
}

/// Checks that `content` is read as `expected`.
#[track_caller]
fn check_value(content: &[u8], expected: &str) {
    let dir = plain(&[("client_secret", content)]);
    assert_eq!(read(dir.path()).unwrap().get("client_secret").unwrap().expose(), expected);
}

/// Checks that reading `dir` fails, and that the error names `shown_path` and `expected`, but no value.
#[track_caller]
fn check_error(dir: &Path, shown_path: &Path, expected: &str) -> ReadError {
    let error = read(dir).expect_err("must fail");
    let line = error.to_string();
    assert!(line.contains(&shown_path.display().to_string()) && line.contains(expected), "{line}");
    assert!(!format!("{line} {error:?}").contains("canary"), "{error:?}");
    error
}

#[test]
fn a_plain_directory_yields_only_known_files_that_exist() {
    let dir = plain(&[("partner_id", b"id"), ("partner_secret", b"canary"), ("README", b"x"), ("client_id.bak", b"x")]);
    fs::create_dir(dir.path().join("folder")).unwrap();
    let files = read(dir.path()).unwrap();
    assert_eq!(files.get("partner_secret").unwrap().expose(), "canary");
    assert!(files.get("client_id").is_none() && files.get("README").is_none());
    assert_eq!(format!("{files:?}"), r#"{"partner_id", "partner_secret"}"#);
    assert_eq!(read(plain(&[]).path()).unwrap().names().count(), 0);
}

#[test]
fn values_are_read_unchanged() {
    for value in ["secret\n", "secret\r\n", "one\ntwo\r\n\n", " secret ", " \t\n", ""] {
        check_value(value.as_bytes(), value);
    }
}

#[test]
fn p03_special_characters_are_kept() {
    check_value("\"!@#$%&*_-+\\\u{e9}0123".as_bytes(), "\"!@#$%&*_-+\\\u{e9}0123");
}

#[test]
fn p05_a_swap_is_detected_and_yields_the_new_generation() {
    let mut volume = Volume::new();
    let first = snapshot(volume.path());
    check_generation(&read(volume.path()).unwrap(), 1);
    assert_eq!(snapshot(volume.path()), first, "reading is no change");

    volume.swap();
    assert_ne!(snapshot(volume.path()), first);
    check_generation(&read(volume.path()).unwrap(), 2);
}

#[test]
fn p08_a_swap_during_a_read_restarts_it() {
    let mut volume = Volume::new();
    let dir = volume.path().to_owned();
    let mut attempts = 0;
    let files = read_stable(
        || snapshot(&dir),
        |snapshot| {
            attempts += 1;
            if attempts == 1 {
                // Twice; each swap removes the old generation, so the files in `snapshot` no longer exist.
                volume.swap();
                volume.swap();
            }
            read_files(&dir, snapshot)
        },
    );
    assert_eq!(attempts, 2);
    check_generation(&files.unwrap().unwrap(), 3);
}

#[test]
fn p08_fast_swaps_never_mix_generations() {
    let mut volume = Volume::new();
    let dir = volume.path().to_owned();
    let writer = thread::spawn(move || {
        for _ in 0..500 {
            volume.swap();
        }
        volume
    });
    let mut newest = 0;
    let mut reads = 0;
    while reads < 500 || !writer.is_finished() {
        reads += 1;
        match read(&dir) {
            Ok(files) => {
                let id = files.get("client_id").unwrap().expose();
                let number = id.strip_prefix("client_id-").unwrap().parse().unwrap();
                check_generation(&files, number);
                assert!(number >= newest, "generation {number} after {newest}");
                newest = number;
            }
            Err(ReadError::Changing { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let volume = writer.join().unwrap();
    check_generation(&read(&dir).unwrap(), volume.generation);
}

#[test]
fn a_read_fails_if_the_directory_keeps_changing() {
    let mut volume = Volume::new();
    let dir = volume.path().to_owned();
    let mut attempts = 0;
    let outcome = read_stable(
        || snapshot(&dir),
        |_| {
            attempts += 1;
            volume.swap();
        },
    );
    assert_eq!((outcome, attempts), (None, MAX_ATTEMPTS));
}

#[test]
fn one_file_that_changes_or_vanishes_is_a_change() {
    let dir = plain(&[("client_id", b"id"), ("client_secret", b"old"), ("other", b"")]);
    let secret = dir.path().join("client_secret");
    let first = snapshot(dir.path());
    fs::write(&secret, "newer").unwrap();
    let second = snapshot(dir.path());
    let files = read(dir.path()).unwrap();
    assert_eq!(files.get("client_secret").unwrap().expose(), "newer");
    assert_eq!(files.get("client_id").unwrap().expose(), "id");

    fs::remove_file(&secret).unwrap();
    let third = snapshot(dir.path());
    assert!(first != second && second != third && first != third);
    assert_eq!(read(dir.path()).unwrap().names().collect::<Vec<_>>(), ["client_id"]);

    fs::write(dir.path().join("other"), "changed").unwrap();
    assert_eq!(snapshot(dir.path()), third, "an unrelated file is no change");
}

#[test]
fn replacing_a_file_by_one_of_equal_length_is_a_change() {
    let dir = plain(&[("client_id", b"id-1"), ("new", b"id-2")]);
    let first = snapshot(dir.path());
    fs::rename(dir.path().join("new"), dir.path().join("client_id")).unwrap();
    assert_ne!(snapshot(dir.path()), first);
}

#[test]
fn a_missing_directory_is_an_error_and_has_a_snapshot() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("mount");
    let absent = snapshot(&dir);
    let error = check_error(&dir, &dir, "mount the Secret there");
    assert!(matches!(error, ReadError::Directory { .. }) && error.source().is_some());

    fs::create_dir(&dir).unwrap();
    assert_ne!(snapshot(&dir), absent);
    assert!(read(&dir).is_ok());
    fs::remove_dir(&dir).unwrap();
    assert_eq!(snapshot(&dir), absent);

    fs::write(&dir, "canary").unwrap();
    assert_ne!(snapshot(&dir), absent);
    assert!(matches!(check_error(&dir, &dir, "directory"), ReadError::Directory { .. }));
}

#[test]
fn a_dangling_data_link_is_an_error_of_the_directory() {
    let volume = Volume::new();
    let before = snapshot(volume.path());
    fs::remove_dir_all(volume.generation()).unwrap();
    assert_ne!(snapshot(volume.path()), before);
    assert!(matches!(check_error(volume.path(), volume.path(), "directory"), ReadError::Directory { .. }));

    let dangling = snapshot(volume.path());
    fs::remove_file(volume.path().join("..data")).unwrap();
    symlink("..elsewhere", volume.path().join("..data")).unwrap();
    assert_ne!(snapshot(volume.path()), dangling, "two swaps in a row must not look like an unchanged directory");
}

#[test]
fn a_non_file_is_an_error_and_its_replacement_a_change() {
    let dir = plain(&[("client_id", b"canary")]);
    let secret = dir.path().join("client_secret");
    let absent = snapshot(dir.path());
    symlink("nowhere", &secret).unwrap();
    let dangling = snapshot(dir.path());
    assert_ne!(dangling, absent);
    assert!(matches!(check_error(dir.path(), &secret, "is not a file"), ReadError::NotAFile { .. }));

    fs::remove_file(&secret).unwrap();
    fs::create_dir(&secret).unwrap();
    assert_ne!(snapshot(dir.path()), dangling);
    assert!(matches!(check_error(dir.path(), &secret, "is not a file"), ReadError::NotAFile { .. }));
}

#[test]
fn an_unreadable_file_is_an_error_and_a_chmod_is_a_change() {
    let dir = plain(&[("client_id", b"canary"), ("app_key", b"canary")]);
    let key = dir.path().join("app_key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    let unreadable = snapshot(dir.path());
    // Root can read it regardless of the mode.
    if File::open(&key).is_err() {
        let error = check_error(dir.path(), &key, "make it readable by the proxy's user");
        assert!(matches!(&error, ReadError::File { source, .. } if source.kind() == ErrorKind::PermissionDenied));
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    assert_ne!(snapshot(dir.path()), unreadable);
    assert!(read(dir.path()).is_ok());
}

#[test]
fn an_error_names_the_path_of_an_unusable_file() {
    let large = [b"canary".as_slice(), &[b'a'; 70 * 1024]].concat();
    let dir = plain(&[("client_id", b"id"), ("client_secret", &large)]);
    let path = dir.path().join("client_secret");
    assert!(matches!(check_error(dir.path(), &path, "larger"), ReadError::TooLarge { .. }));
    fs::write(&path, b"canary\xff\xfe").unwrap();
    assert!(matches!(check_error(dir.path(), &path, "UTF-8"), ReadError::NotUtf8 { .. }));
}

#[test]
fn an_error_names_the_path_that_the_operator_knows() {
    let volume = Volume::new();
    fs::write(volume.generation().join("app_key"), b"\xff").unwrap();
    check_error(volume.path(), &volume.path().join("app_key"), "UTF-8");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_detected_at_the_next_poll() {
    let mut volume = Volume::new();
    let dir = volume.path().to_owned();
    let previous = snapshot(&dir);
    let mut waiting = pin!(wait_for_change(&dir, &previous));
    assert!(timeout(POLL_INTERVAL * 10, &mut waiting).await.is_err(), "nothing has changed");

    volume.swap();
    let swapped = Instant::now();
    assert_eq!(waiting.await, snapshot(&dir));
    assert!(swapped.elapsed() <= POLL_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn a_change_from_before_the_wait_is_detected_immediately() {
    let mut volume = Volume::new();
    let previous = snapshot(volume.path());
    volume.swap();
    let called = Instant::now();
    assert_eq!(wait_for_change(volume.path(), &previous).await, snapshot(volume.path()));
    assert_eq!(called.elapsed(), Duration::ZERO);
}
