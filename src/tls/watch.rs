//! When a file that is looked at again and again has something new to say.

use ring::digest::{SHA256, digest};

use super::Error;
use crate::error_chain;

/// What one look found, short enough to keep: a hash of the content, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Content([u8; 32]),
    Nothing(String),
}

/// Remembers what was acted on, and what the last look found.
///
/// Contents are compared, not times and numbers of files: that holds for every way to change a file, the links that Kubernetes
/// swaps included, and a list of authorities is read in less time than a system call takes to describe it.
#[derive(Debug)]
pub(super) struct Watch {
    acted_on: Found,
    last: Found,
}

impl Watch {
    /// Starts from `content`, which was acted on.
    pub(super) fn new(content: &[u8]) -> Self {
        let found = Found::of(&Ok(content));
        Self { acted_on: found.clone(), last: found }
    }

    /// Takes what a look found. Returns whether it is to be acted on: it is different from what was, and the same as the look
    /// before, so that nobody who writes the file in place is read in the middle.
    pub(super) fn look(&mut self, found: Result<&[u8], &Error>) -> bool {
        let found = Found::of(&found);
        let news = found == self.last && found != self.acted_on;
        if news {
            self.acted_on = found.clone();
        }
        self.last = found;
        news
    }

    /// Takes what a look found that is acted on whether it is new or not.
    pub(super) fn act_on(&mut self, found: Result<&[u8], &Error>) {
        self.last = Found::of(&found);
        self.acted_on = self.last.clone();
    }
}

impl Found {
    fn of(found: &Result<&[u8], &Error>) -> Self {
        match found {
            Ok(content) => {
                let hash = digest(&SHA256, content);
                Self::Content(hash.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
            }
            Err(error) => Self::Nothing(error_chain::one_line(*error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Looks at one content after the other (`None` for a file that is gone); returns at which there was something to act on.
    fn looks(contents: &[Option<&str>]) -> Vec<usize> {
        let gone = Error::NotAFile { path: Path::new("ca.pem").into() };
        let mut watch = Watch::new(b"one");
        let mut look = |content: &Option<&str>| watch.look(content.map(str::as_bytes).ok_or(&gone));
        (0..contents.len()).filter(|index| look(&contents[*index])).collect()
    }

    #[test]
    fn a_change_is_acted_on_once_and_when_it_rests() {
        let (one, two, three) = (Some("one"), Some("two"), Some("three"));
        for (contents, expected) in [
            (&[one, one][..], &[][..]),
            (&[two, two, two], &[1]),
            (&[two, three, three], &[2]),
            (&[two, one, two, one], &[]),
            (&[None, None, None], &[1]),
            (&[None, one, one], &[]),
            (&[None, None, one, one, one], &[1, 3]),
            (&[two, two, one, one], &[1, 3]),
            (&[None, None, two, two, None, None], &[1, 3, 5]),
        ] {
            assert_eq!(looks(contents), expected, "{contents:?}");
        }
    }

    #[test]
    fn what_was_acted_on_out_of_turn_is_no_news_afterwards() {
        let mut watch = Watch::new(b"one");
        watch.act_on(Ok(b"two"));
        assert!(!watch.look(Ok(b"two")) && !watch.look(Ok(b"two")));
        assert!(!watch.look(Ok(b"one")) && watch.look(Ok(b"one")));
    }
}
