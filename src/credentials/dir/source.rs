//! A directory as a credential source.

use std::{fs, path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{
    read::{read, wait_for_change},
    snapshot::{Snapshot, snapshot},
};
use crate::{
    credentials::{
        field::{Field, Sourced},
        problem::Problem,
        source::{CredentialSource, NOT_SET, Values},
    },
    secret::{ShownPath, absolute},
};

/// How long the directory must be unchanged before it is read, so that a script has finished writing one file after another. Half of
/// a change would cause a failed authentication, and five of these lock the vendor account.
const QUIET_PERIOD: Duration = Duration::from_secs(1);

/// A directory of files: a mounted Secret.
#[derive(Debug)]
pub(in crate::credentials) struct DirectorySource {
    path: PathBuf,
    /// The directory before the last load, so that a change during the load is detected. `None` until the second load: the first
    /// load, at startup, takes no snapshot, so any change since then is assumed.
    last_snapshot: Option<Snapshot>,
}

impl DirectorySource {
    pub(in crate::credentials) fn new(path: PathBuf) -> Self {
        Self { path, last_snapshot: None }
    }

    fn origin(&self, field: Field) -> String {
        absolute(&self.path).join(field.file_name()).display().to_string()
    }

    fn read(&self) -> Result<Values, Problem> {
        let files = read(&self.path).map_err(|error| Problem::Source("credentials.dir", Box::new(error)))?;
        let found = |field: Field| {
            let value = files.get(field.file_name())?.clone();
            Some((field, Ok(Sourced { value, origin: self.origin(field) })))
        };
        Ok(Field::ALL.into_iter().filter_map(found).collect())
    }
}

impl CredentialSource for DirectorySource {
    fn kind(&self) -> &'static str {
        "directory"
    }

    fn description(&self) -> String {
        // A line break in the path would break the line that contains the description.
        let path = ShownPath::new(&self.path).to_string().replace(char::is_control, "\u{fffd}");
        format!("the directory {path}")
    }

    fn outline(&self) -> Vec<String> {
        let line = |field: Field| {
            let name = field.file_name();
            let state = if fs::symlink_metadata(self.path.join(name)).is_ok() { "[redacted]" } else { NOT_SET };
            format!("{name}: {state}")
        };
        Field::ALL.map(line).into()
    }

    fn load(&mut self) -> BoxFuture<'_, Result<Values, Problem>> {
        // Not on another thread: a few system calls on a local volume (tmpfs for a Secret) cost less than the hand-over.
        Box::pin(async { self.read() })
    }

    fn missing(&self, field: Field) -> Problem {
        Problem::Missing(self.origin(field), "add this file to the Secret".to_owned())
    }

    fn changed(&mut self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async {
            if let Some(snapshot) = &self.last_snapshot {
                wait_for_change(&self.path, snapshot).await;
            }
            Ok(())
        })
    }

    fn wait_until_stable(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut before = snapshot(&self.path);
            loop {
                sleep(QUIET_PERIOD).await;
                let now = snapshot(&self.path);
                if now == before {
                    self.last_snapshot = Some(now);
                    return;
                }
                before = now;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, pin::pin};

    use futures_util::FutureExt as _;
    use tokio::time::{Instant, timeout};

    use super::*;

    const POLL: Duration = Duration::from_secs(2);

    fn write(dir: &Path, secret: &str) {
        fs::write(dir.join("client_secret"), secret).unwrap();
    }

    fn secret(values: &Values) -> &str {
        values[&Field::ClientSecret].as_ref().unwrap().value.expose()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_reported_only_after_it_happens() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "one");
        let mut source = DirectorySource::new(dir.path().to_owned());
        assert_eq!(secret(&source.load().await.unwrap()), "one");
        // Without a snapshot from the first load, a change is assumed.
        assert!(source.changed().now_or_never().is_some());
        source.wait_until_stable().await;
        source.load().await.unwrap();
        assert!(timeout(POLL * 10, source.changed()).await.is_err(), "nothing has changed");

        write(dir.path(), "other");
        let written = Instant::now();
        source.changed().await.unwrap();
        assert!(written.elapsed() <= POLL);
        source.wait_until_stable().await;
        assert_eq!(secret(&source.load().await.unwrap()), "other");
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_changes_is_not_stable() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = DirectorySource::new(dir.path().to_owned());
        let begun = Instant::now();
        let mut stable = pin!(source.wait_until_stable());
        for number in 1..=3 {
            assert!(timeout(QUIET_PERIOD * 9 / 10, &mut stable).await.is_err(), "change {number}");
            write(dir.path(), &"x".repeat(number));
        }
        stable.await;
        assert!(begun.elapsed() > QUIET_PERIOD * 9 / 10 * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_a_load_is_reported_after_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "one");
        let mut source = DirectorySource::new(dir.path().to_owned());
        source.wait_until_stable().await;
        write(dir.path(), "during");
        source.load().await.unwrap();
        assert!(source.changed().now_or_never().is_some());
    }

    #[test]
    fn a_description_is_one_line_and_no_secret() {
        let source = DirectorySource::new("/canary/Secret+9b=".into());
        assert!(source.description().starts_with("the directory a path (not shown"), "{}", source.description());
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("a\nb");
        let expected = format!("the directory {}/a\u{fffd}b", dir.path().display());
        assert_eq!(DirectorySource::new(broken).description(), expected);
    }
}
