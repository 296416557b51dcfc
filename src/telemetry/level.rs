//! Log levels, and changing them at runtime.
//!
//! Each call site of an event caches whether it is enabled, and a change of the levels invalidates these caches. So changeable levels cost a
//! request nothing.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{Level, enabled, info};
use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    reload,
};

use super::AUDIT;

/// Maximum duration of a temporary level.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// Maximum length of a list of levels.
const MAX_TEXT_BYTES: usize = 1024;

/// Maximum levels of targets, by prefix of their names. More verbose events of these targets may contain secrets. No configuration exceeds
/// these levels.
const CAPS: [(&str, LevelFilter); 3] = [
    // The AWS SDK. TRACE logs requests and responses, INFO identities, and its warnings quote lines of ~/.aws/credentials and responses of
    // STS. Nothing is lost: failures are reported as errors of the credential source.
    ("aws_", LevelFilter::OFF),
    // The Azure SDK. Its events contain URLs, header fields and identities.
    ("azure_", LevelFilter::OFF),
    ("typespec", LevelFilter::OFF),
];

/// Levels by target, with their text: `info`, or `info,finicity_proxy::token=debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    text: String,
    targets: Targets,
}

impl Levels {
    /// The filter for a subscriber.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self { text: "info".to_owned(), targets: capped(Targets::new().with_default(Level::INFO)) }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text is not a list of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be error, warn, info, debug or trace, or a list such as \"info,finicity_proxy::token=debug\"")]
pub struct ParseLevelsError;

impl FromStr for Levels {
    type Err = ParseLevelsError;

    /// A word without `=` must be a level: `Targets` alone would parse a misspelt level as the name of a module.
    fn from_str(text: &str) -> Result<Self, ParseLevelsError> {
        let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let is_target = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
        };
        let text = text.trim().replace(' ', "");
        let valid = text.split(',').all(|directive| match directive.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(directive),
        });
        if !valid || text.len() > MAX_TEXT_BYTES {
            return Err(ParseLevelsError);
        }
        let targets = text.parse().map_err(|_| ParseLevelsError)?;
        Ok(Self { text, targets: capped(targets) })
    }
}

/// Limits the levels of `targets` to [`CAPS`]. Each name of [`CAPS`] gets a level of its own, because the longest matching name decides.
fn capped(targets: Targets) -> Targets {
    let levels: Vec<(String, LevelFilter)> = targets.iter().map(|(target, level)| (target.to_owned(), level)).collect();
    let mut capped = targets;
    for (name, cap) in CAPS {
        let enclosing = levels.iter().filter(|(target, _)| name.starts_with(target.as_str()));
        let inherited = enclosing.max_by_key(|(target, _)| target.len()).map(|(_, level)| *level);
        let level = inherited.or(capped.default_level()).unwrap_or(LevelFilter::OFF);
        capped = capped.with_target(name, level.min(cap));
        for (target, level) in levels.iter().filter(|(target, _)| target.starts_with(name)) {
            capped = capped.with_target(target.as_str(), *level.min(&cap));
        }
    }
    capped
}

/// A handle to read and change the levels of the process. Cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    setting: Arc<watch::Sender<Setting>>,
    apply: Arc<dyn Fn(&Levels) + Send + Sync>,
}

/// The configured levels, and those in effect.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The levels of the configuration.
    pub configured: Levels,
    /// The levels in effect.
    pub effective: Levels,
    /// When the effective levels expire and the configured ones apply again. `None` if they do not expire.
    pub expires_at: Option<Instant>,
}

impl LogLevel {
    /// A handle without effect, for a process without logging, such as a test.
    pub fn noop(levels: Levels) -> Self {
        Self::with_apply(levels, |_| {})
    }

    /// A subscriber layer that starts with `levels`, and the handle that changes it.
    pub(super) fn layer(levels: Levels) -> (reload::Layer<Targets, Registry>, Self) {
        let (layer, handle) = reload::Layer::new(levels.targets.clone());
        // Reloading fails only if the subscriber is gone, and then there are no logs.
        let level = Self::with_apply(levels, move |levels| drop(handle.reload(levels.targets.clone())));
        (layer, level)
    }

    fn with_apply(levels: Levels, apply: impl Fn(&Levels) + Send + Sync + 'static) -> Self {
        let setting = Setting { configured: levels.clone(), effective: levels, expires_at: None };
        Self { setting: Arc::new(watch::Sender::new(setting)), apply: Arc::new(apply) }
    }

    /// The current setting.
    pub fn setting(&self) -> Setting {
        self.setting.borrow().clone()
    }

    /// Applies `levels` for `duration` (at most [`MAX_DURATION`]), or until the next change. `actor` is logged.
    pub fn set(&self, levels: Levels, duration: Option<Duration>, actor: &str) {
        let expires_at = duration.map(|duration| Instant::now() + duration.min(MAX_DURATION));
        self.change(levels, expires_at, duration, actor);
    }

    /// Makes `levels` the configured levels, and applies them.
    pub fn configure(&self, levels: Levels) {
        self.setting.send_modify(|setting| setting.configured = levels.clone());
        if self.setting.borrow().effective != levels || self.setting.borrow().expires_at.is_some() {
            self.change(levels, None, None, "the configuration");
        }
    }

    /// Applies the configured levels when temporary ones expire. Never completes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn expire_overrides(&self) {
        let mut changes = self.setting.subscribe();
        loop {
            let expires_at = changes.borrow_and_update().expires_at;
            let expired = async {
                match expires_at {
                    Some(expires_at) => tokio::time::sleep_until(expires_at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = changes.changed() => result.expect("this handle holds the sender"),
                () = expired => {
                    let configured = self.setting.borrow().configured.clone();
                    self.change(configured, None, None, "expiry");
                }
            }
        }
    }

    fn change(&self, levels: Levels, expires_at: Option<Instant>, duration: Option<Duration>, actor: &str) {
        let previous = self.setting.borrow().effective.clone();
        let log_change = || {
            let duration_s = duration.map(|duration| duration.as_secs());
            info!(target: AUDIT, actor, %previous, current = %levels, duration_s, "log level changed");
        };
        // Logged once: before the change if the previous levels show it, otherwise after the change.
        let logged = enabled!(target: AUDIT, Level::INFO);
        if logged {
            log_change();
        }
        (self.apply)(&levels);
        if !logged {
            log_change();
        }
        self.setting.send_modify(|setting| (setting.effective, setting.expires_at) = (levels.clone(), expires_at));
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.setting.borrow()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn levels(text: &str) -> Levels {
        text.parse().unwrap()
    }

    #[test]
    fn a_misspelt_level_is_not_parsed_as_a_module() {
        for good in ["info", "trace", "info,finicity_proxy=debug", "warn, hyper=trace", "off"] {
            assert!(good.parse::<Levels>().is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "info,x=verbose", "=info", "INFO;", "a\u{1b}b=info", "a[b]=info"] {
            assert_eq!(bad.parse::<Levels>(), Err(ParseLevelsError), "{bad}");
        }
        assert_eq!(("a".repeat(MAX_TEXT_BYTES) + "=info").parse::<Levels>(), Err(ParseLevelsError));
        assert_eq!(levels(" warn, hyper=trace").to_string(), "warn,hyper=trace");
    }

    #[test]
    fn no_level_enables_events_of_secret_store_sdks() {
        for text in [
            "trace",
            "a=trace",
            "aws=trace",
            "aws_=trace",
            "aws_smithy_runtime=trace",
            "info,aws_config::imds=debug",
            "azure_core::http=trace,typespec=trace,typespec_client_core::http=trace",
        ] {
            let levels = levels(text);
            for target in [
                "aws_config",
                "aws_config::imds::client",
                "aws_smithy_runtime::client::orchestrator",
                "aws_sigv4",
                "azure_core::http::policies",
                "azure_identity::managed_identity_credential",
                "typespec_client_core::http::policies::logging",
            ] {
                assert!(!levels.targets().would_enable(target, &Level::ERROR), "{text}: {target}");
            }
        }
        assert!(!Levels::default().targets().would_enable("aws_runtime", &Level::ERROR));
        let levels = levels("info,aws=trace,finicity_proxy=trace");
        assert!(levels.targets().would_enable("finicity_proxy::credentials::aws", &Level::TRACE));
        assert!(levels.targets().would_enable("awsome", &Level::TRACE));
        assert_eq!(levels.to_string(), "info,aws=trace,finicity_proxy=trace");
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_temporary_level_expires() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        let level = LogLevel::with_apply(levels("info"), move |levels| seen.lock().unwrap().push(levels.to_string()));
        let task = tokio::spawn({
            let level = level.clone();
            async move { level.expire_overrides().await }
        });
        let effective = || level.setting().effective.to_string();
        level.set(levels("debug"), Some(Duration::from_secs(600)), "test");
        tokio::time::sleep(Duration::from_secs(599)).await;
        assert_eq!(effective(), "debug");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((effective(), level.setting().expires_at), ("info".to_owned(), None));

        // A later setting replaces an earlier one, its expiry included.
        level.set(levels("debug"), Some(Duration::from_secs(10)), "test");
        level.set(levels("trace"), None, "test");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(effective(), "trace");
        level.configure(levels("warn"));
        assert_eq!((effective(), level.setting().configured.to_string()), ("warn".to_owned(), "warn".to_owned()));
        level.configure(levels("warn"));
        assert_eq!(*applied.lock().unwrap(), ["debug", "info", "debug", "trace", "warn"]);
        task.abort();
    }
}
