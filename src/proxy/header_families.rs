//! Families of request header fields that concern the caller and not the call: its network, its traces, its identity, its
//! credentials. They are known by how names begin or end, so that a product's next field is covered too.
//!
//! A pattern is written as in `docs/requests.md`: `x-envoy-*` is `x-envoy` and whatever begins with `x-envoy-`, `x-dynatrace*` is
//! whatever begins so, `*-client-ip` is `client-ip` and whatever ends in `-client-ip`; others are whole names. Names are compared with
//! each separator, and each row of them, read as one `-`: CGI, WSGI and their kind give `X_Real.IP` and `X-Real-IP` one name.
//!
//! Deliberately absent: a name that callers or the vendor's API use for themselves, such as `x-request-id`, `x-correlation-id` or
//! `idempotency-key`.

mod known;
mod table;

use std::{borrow::Cow, sync::LazyLock};

use table::FAMILIES;

pub(super) use known::KNOWN_NAMES;

/// What a field concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum HeaderFamily {
    /// The connection that it came on (RFC 9110, 7.6.1), or the message as this proxy reads it.
    Message,
    /// What the proxy itself adds.
    Injected,
    /// Another method, target or host than those of the request line.
    Override,
    /// The caller's address, its proxies, meshes, clouds and content delivery networks.
    Network,
    /// The caller's traces.
    Trace,
    /// Who the caller is.
    Identity,
    /// What the caller proves that with, or opens other services with.
    Credentials,
}

impl HeaderFamily {
    /// The family's name, in logs.
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

    /// Whether an operator may have one of its names forwarded.
    pub(super) fn can_be_forwarded(self) -> bool {
        !matches!(self, Self::Message | Self::Injected | Self::Override)
    }
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The family that the name belongs to.
    pub(super) family: HeaderFamily,
    /// The pattern, as it stands in the table.
    pub(super) pattern: &'static str,
    /// The number of the pattern, from 0.
    pub(super) number: usize,
}

/// How many patterns there are.
pub(super) const COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].1.len();
        family += 1;
    }
    count
};

/// Every pattern with its family, in the order in which they count.
pub(super) fn patterns() -> impl Iterator<Item = (HeaderFamily, &'static str)> {
    FAMILIES.iter().flat_map(|(family, patterns)| patterns.iter().map(|pattern| (*family, *pattern)))
}

/// `name`, which is in lower case, as it is compared: each row of separators is one `-`, and none stands at an end.
///
/// Nothing is allocated for a name that is so already, as nearly all are.
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

/// The first pattern that holds for `name`, which is [`normalized`].
pub(super) fn find(name: &str) -> Option<Match> {
    INDEX.find(name.as_bytes())
}

/// Built at the first request: some hundred patterns, of which each name is compared with a few.
static INDEX: LazyLock<PatternIndex> = LazyLock::new(PatternIndex::new);

/// The patterns by a byte that every name has for which they hold.
struct PatternIndex {
    /// By the first byte, or that after `x-`.
    heads: [Bucket; 2 * CLASSES],
    /// By the last byte.
    tails: [Bucket; CLASSES],
}

/// Letters, digits, and the rest.
const CLASSES: usize = 26 + 10 + 1;

/// Patterns that share a byte.
#[derive(Default)]
struct Bucket {
    /// A bit for each byte that one of them has next to that.
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
    /// The text, alone or before a `-`.
    WordPrefix,
    /// Any name that begins with the text.
    Prefix,
    /// The text, alone or behind a `-`.
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
            // A text of one byte says nothing of the next.
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

/// The bucket that the beginning of `name` belongs to, and the byte after the one that says so.
fn head(name: &[u8]) -> (usize, Option<u8>) {
    match name {
        [b'x', b'-', first, rest @ ..] => (CLASSES + class(*first), rest.first().copied()),
        [first, rest @ ..] => (class(*first), rest.first().copied()),
        [] => (CLASSES - 1, None),
    }
}

/// The same for the end of `name`.
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

/// One of 64 bits for `byte`. Two bytes that share one cost a comparison, no more.
fn bit(byte: u8) -> u64 {
    1 << (byte & 63)
}

#[cfg(test)]
mod tests;
