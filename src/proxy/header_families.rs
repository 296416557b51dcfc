//! Families of request header fields that concern the caller and not the call: its network, traces, identity and credentials.
//! Patterns match the beginning or end of names, so they also cover fields that a product adds later.
//!
//! Patterns are written as in `docs/requests.md`: `x-envoy-*` matches `x-envoy` and names that begin with `x-envoy-`; `x-dynatrace*` matches
//! names that begin with `x-dynatrace`; `*-client-ip` matches `client-ip` and names that end in `-client-ip`; other patterns match one name.
//! Names are compared with each run of separators read as one `-`, because CGI and WSGI map `X_Real.IP` and `X-Real-IP` to one name.
//!
//! Deliberately absent: names that callers or the vendor's API use themselves, such as `x-request-id`, `x-correlation-id` or
//! `idempotency-key`.

mod known;
mod table;

use std::{borrow::Cow, sync::LazyLock};

use table::FAMILIES;

pub(super) use known::KNOWN_NAMES;

/// What a header field concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum HeaderFamily {
    /// The connection (RFC 9110, 7.6.1), or the framing of the message.
    Message,
    /// Credentials that the proxy adds itself.
    Injected,
    /// A method, target or host that overrides the one of the request.
    Override,
    /// The caller's address, proxies, meshes, clouds and content delivery networks.
    Network,
    /// The caller's traces.
    Trace,
    /// The caller's identity.
    Identity,
    /// The caller's credentials, for itself or for other services.
    Credentials,
}

impl HeaderFamily {
    /// The family's name in logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Injected => "injected",
            Self::Override => "override",
            Self::Network => "network",
            Self::Trace => "trace",
            Self::Identity => "identity",
            Self::Credentials => "credentials",
        }
    }

    /// Whether an operator may list names of the family in `headers.forward`.
    pub(super) fn can_be_forwarded(self) -> bool {
        !matches!(self, Self::Message | Self::Injected | Self::Override)
    }
}

/// The pattern that matches a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The family of the pattern.
    pub(super) family: HeaderFamily,
    /// The pattern, as written in the table.
    pub(super) pattern: &'static str,
    /// The index of the pattern in [`patterns`].
    pub(super) number: usize,
}

/// The number of patterns.
pub(super) const COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].1.len();
        family += 1;
    }
    count
};

/// Every pattern with its family, in order of precedence.
pub(super) fn patterns() -> impl Iterator<Item = (HeaderFamily, &'static str)> {
    FAMILIES.iter().flat_map(|(family, patterns)| patterns.iter().map(|pattern| (*family, *pattern)))
}

/// `name`, which is in lower case, in the form that is compared: each run of separators is one `-`, and none is at either end.
///
/// Allocates nothing for a name that already has this form, as nearly all names do.
pub(super) fn normalized(name: &str) -> Cow<'_, str> {
    let mut before = b'-';
    let is_normalized = name.bytes().all(|byte| {
        let is_normal = byte.is_ascii_alphanumeric() || (byte == b'-' && before != b'-');
        before = byte;
        is_normal
    });
    if is_normalized && before != b'-' {
        return Cow::Borrowed(name);
    }
    let words = name.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut normalized = String::with_capacity(name.len());
    for word in words {
        if !normalized.is_empty() {
            normalized.push('-');
        }
        normalized.push_str(word);
    }
    Cow::Owned(normalized)
}

/// The first pattern that matches `name`, which is [`normalized`].
pub(super) fn find(name: &str) -> Option<Match> {
    INDEX.find(name.as_bytes())
}

/// Built on the first request. It reduces the several hundred patterns to the few that each name is compared with.
static INDEX: LazyLock<PatternIndex> = LazyLock::new(PatternIndex::new);

/// The patterns, indexed by a byte that every matching name has.
struct PatternIndex {
    /// Indexed by the first byte, or by the byte after `x-`.
    heads: [Bucket; 2 * CLASSES],
    /// Indexed by the last byte.
    tails: [Bucket; CLASSES],
}

/// Letters, digits, and all other bytes.
const CLASSES: usize = 26 + 10 + 1;

/// Patterns that share the indexed byte.
#[derive(Default)]
struct Bucket {
    /// A [`bit`] for each byte that follows the indexed byte in one of the patterns (in `tails`: precedes it).
    seconds: u64,
    entries: Vec<PatternEntry>,
}

struct PatternEntry {
    text: &'static [u8],
    kind: MatchKind,
    found: Match,
}

/// How a pattern matches a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MatchKind {
    /// The text alone.
    Exact,
    /// The text, alone or followed by a `-`.
    WordPrefix,
    /// Any name that begins with the text.
    Prefix,
    /// The text, alone or preceded by a `-`.
    WordSuffix,
}

impl PatternIndex {
    fn new() -> Self {
        let mut index = Self {
            heads: std::array::from_fn(|_| Bucket::default()),
            tails: std::array::from_fn(|_| Bucket::default()),
        };
        for (number, (family, pattern)) in patterns().enumerate() {
            let (text, kind) = parse(pattern);
            let found = Match { family, pattern, number };
            let (bucket, second) = match kind {
                MatchKind::WordSuffix => tail(text),
                _ => head(text),
            };
            let bucket =
                if kind == MatchKind::WordSuffix { &mut index.tails[bucket] } else { &mut index.heads[bucket] };
            // A text of one byte matches any next byte.
            bucket.seconds |= second.map_or(u64::MAX, bit);
            bucket.entries.push(PatternEntry { text, kind, found });
        }
        index
    }

    fn find(&self, name: &[u8]) -> Option<Match> {
        let ((first, after), (last, before)) = (head(name), tail(name));
        let head = self.heads[first].find(after, name);
        let tail = self.tails[last].find(before, name);
        match (head, tail) {
            (Some(head), Some(tail)) => Some(if head.number < tail.number { head } else { tail }),
            (head, tail) => head.or(tail),
        }
    }
}

impl Bucket {
    fn find(&self, second: Option<u8>, name: &[u8]) -> Option<Match> {
        if self.seconds & second.map_or(u64::MAX, bit) == 0 {
            return None;
        }
        self.entries.iter().find(|entry| entry.matches(name)).map(|entry| entry.found)
    }
}

impl PatternEntry {
    fn matches(&self, name: &[u8]) -> bool {
        match self.kind {
            MatchKind::Exact => name == self.text,
            MatchKind::Prefix => name.starts_with(self.text),
            MatchKind::WordPrefix => name.strip_prefix(self.text).is_some_and(|rest| matches!(rest, [] | [b'-', ..])),
            MatchKind::WordSuffix => name.strip_suffix(self.text).is_some_and(|rest| matches!(rest, [] | [.., b'-'])),
        }
    }
}

fn parse(pattern: &'static str) -> (&'static [u8], MatchKind) {
    let (text, kind) = if let Some(text) = pattern.strip_prefix("*-") {
        (text, MatchKind::WordSuffix)
    } else if let Some(text) = pattern.strip_suffix("-*") {
        (text, MatchKind::WordPrefix)
    } else if let Some(text) = pattern.strip_suffix('*') {
        (text, MatchKind::Prefix)
    } else {
        (pattern, MatchKind::Exact)
    };
    (text.as_bytes(), kind)
}

/// The bucket for the beginning of `name`, and the byte after the indexed one.
fn head(name: &[u8]) -> (usize, Option<u8>) {
    match name {
        [b'x', b'-', first, rest @ ..] => (CLASSES + class(*first), rest.first().copied()),
        [first, rest @ ..] => (class(*first), rest.first().copied()),
        [] => (CLASSES - 1, None),
    }
}

/// The bucket for the end of `name`, and the byte before the indexed one.
fn tail(name: &[u8]) -> (usize, Option<u8>) {
    match name {
        [rest @ .., last] => (class(*last), rest.last().copied()),
        [] => (CLASSES - 1, None),
    }
}

fn class(byte: u8) -> usize {
    match byte {
        b'a'..=b'z' => usize::from(byte - b'a'),
        b'0'..=b'9' => 26 + usize::from(byte - b'0'),
        _ => CLASSES - 1,
    }
}

/// One of 64 bits for `byte`. If two bytes share a bit, the cost is only a superfluous comparison.
fn bit(byte: u8) -> u64 {
    1 << (byte & 63)
}

#[cfg(test)]
mod tests;
