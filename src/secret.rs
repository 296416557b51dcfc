//! The type that holds every secret from the moment it is read.
//!
//! Deliberately absent: `Display`, `Deref`, `Serialize`, `PartialEq`. The only access is [`Secret::expose`], so that one search finds
//! every place where a secret becomes plain text, for review.

mod path;
mod plain;

use std::fmt;

use zeroize::Zeroize;

pub use path::{ShownPath, absolute};
pub use plain::is_plain;

/// A value that must never be printed. `Debug` shows `[redacted]`. The memory is overwritten on drop.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The plain value. Each call site can leak the secret, so keep call sites few and short.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn debug_output_does_not_show_the_value() {
        let secret = Secret::from("canary-value");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "[redacted] Some(\n    [redacted],\n)");
        assert_eq!(secret.expose(), "canary-value");
    }

    #[test]
    fn l11_a_secret_is_overwritten_when_it_is_dropped() {
        struct Witness<'a>(&'a Cell<bool>);

        impl Zeroize for Witness<'_> {
            fn zeroize(&mut self) {
                self.0.set(true);
            }
        }

        let overwritten = Cell::new(false);
        let secret = Secret::new(Witness(&overwritten));
        assert!(!overwritten.get());
        drop(secret);
        assert!(overwritten.get());
    }
}
