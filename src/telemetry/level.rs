//! Which events are logged, and changing that while the process runs.
//!
//! Each call site of an event knows whether it is enabled and asks nobody, so a level that can change costs a request nothing;
//! after a change the call sites are told.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{Level, enabled, info};
use tracing_subscriber::{Registry, filter::Targets, reload};

use super::AUDIT;

/// The longest time that a level may be set for.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// The longest text that says levels.
const MAX_TEXT_BYTES: usize = 1024;

/// Levels by target, as they were written: `info`, or `info,finicity_proxy::token=debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    text: String,
    targets: Targets,
}

impl Levels {
    /// What to pass to a subscriber.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self { text: "info".to_owned(), targets: Targets::new().with_default(Level::INFO) }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a text of levels must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be error, warn, info, debug or trace, or a list such as \"info,finicity_proxy::token=debug\"")]
pub struct NoLevels;

impl FromStr for Levels {
    type Err = NoLevels;

    /// A bare word must be a level: `Targets` alone would take a misspelt one for the name of a module.
    fn from_str(text: &str) -> Result<Self, NoLevels> {
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
            return Err(NoLevels);
        }
        let targets = text.parse().map_err(|_| NoLevels)?;
        Ok(Self { text, targets })
    }
}

/// The levels of the process: to look at, and to change. A handle, cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    setting: Arc<watch::Sender<Setting>>,
    apply: Arc<dyn Fn(&Levels) + Send + Sync>,
}

/// Which levels there are.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Those that the configuration says.
    pub configured: Levels,
    /// Those in effect.
    pub present: Levels,
    /// When those in effect give way to the configured ones, if they do.
    pub until: Option<Instant>,
}

impl LogLevel {
    /// `levels` for a process that logs nothing, such as a test's.
    pub fn detached(levels: Levels) -> Self {
        Self::applied_by(levels, |_| {})
    }

    /// The layer of a subscriber that starts with `levels`, and the handle that changes it.
    pub(super) fn layer(levels: Levels) -> (reload::Layer<Targets, Registry>, Self) {
        let (layer, handle) = reload::Layer::new(levels.targets.clone());
        // It fails only when the subscriber is gone, and with it all logs.
        let level = Self::applied_by(levels, move |levels| drop(handle.reload(levels.targets.clone())));
        (layer, level)
    }

    fn applied_by(levels: Levels, apply: impl Fn(&Levels) + Send + Sync + 'static) -> Self {
        let setting = Setting { configured: levels.clone(), present: levels, until: None };
        Self { setting: Arc::new(watch::Sender::new(setting)), apply: Arc::new(apply) }
    }

    /// What it is now.
    pub fn setting(&self) -> Setting {
        self.setting.borrow().clone()
    }

    /// Puts `levels` into effect, for a time or until they are set again. `who` wants it.
    pub fn set(&self, levels: Levels, time: Option<Duration>, who: &str) {
        let until = time.map(|time| Instant::now() + time.min(MAX_DURATION));
        self.change(levels, until, time, who);
    }

    /// Puts `levels`, which the configuration says now, into effect.
    pub fn configure(&self, levels: Levels) {
        self.setting.send_modify(|setting| setting.configured = levels.clone());
        if self.setting.borrow().present != levels || self.setting.borrow().until.is_some() {
            self.change(levels, None, None, "the configuration");
        }
    }

    /// Lets levels that were set for a time end with it. Never ends itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn keep_time(&self) {
        let mut news = self.setting.subscribe();
        loop {
            let until = news.borrow_and_update().until;
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = news.changed() => changed.expect("this handle holds the sender"),
                () = over => {
                    let configured = self.setting.borrow().configured.clone();
                    self.change(configured, None, None, "the end of its time");
                }
            }
        }
    }

    fn change(&self, levels: Levels, until: Option<Instant>, time: Option<Duration>, who: &str) {
        let before = self.setting.borrow().present.clone();
        let tell = || {
            let for_s = time.map(|time| time.as_secs());
            info!(target: AUDIT, who, %before, now = %levels, for_s, "the log level was changed");
        };
        // Under the levels of before or of now, whichever show it; it is told once.
        let told = enabled!(target: AUDIT, Level::INFO);
        if told {
            tell();
        }
        (self.apply)(&levels);
        if !told {
            tell();
        }
        self.setting.send_modify(|setting| (setting.present, setting.until) = (levels.clone(), until));
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
    fn a_misspelt_level_is_no_module() {
        for good in ["info", "trace", "info,finicity_proxy=debug", "warn, hyper=trace", "off"] {
            assert!(good.parse::<Levels>().is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "info,x=verbose", "=info", "INFO;", "a\u{1b}b=info", "a[b]=info"] {
            assert_eq!(bad.parse::<Levels>(), Err(NoLevels), "{bad}");
        }
        assert_eq!(("a".repeat(MAX_TEXT_BYTES) + "=info").parse::<Levels>(), Err(NoLevels));
        assert_eq!(levels(" warn, hyper=trace").to_string(), "warn,hyper=trace");
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_for_a_time_goes_back_and_one_without_stays() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        let level = LogLevel::applied_by(levels("info"), move |levels| seen.lock().unwrap().push(levels.to_string()));
        let keeper = tokio::spawn({
            let level = level.clone();
            async move { level.keep_time().await }
        });
        let present = || level.setting().present.to_string();
        level.set(levels("debug"), Some(Duration::from_secs(600)), "test");
        tokio::time::sleep(Duration::from_secs(599)).await;
        assert_eq!(present(), "debug");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((present(), level.setting().until), ("info".to_owned(), None));

        // A later wish takes the place of an earlier one, its time included.
        level.set(levels("debug"), Some(Duration::from_secs(10)), "test");
        level.set(levels("trace"), None, "test");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(present(), "trace");
        level.configure(levels("warn"));
        assert_eq!((present(), level.setting().configured.to_string()), ("warn".to_owned(), "warn".to_owned()));
        level.configure(levels("warn"));
        assert_eq!(*applied.lock().unwrap(), ["debug", "info", "debug", "trace", "warn"]);
        keeper.abort();
    }
}
