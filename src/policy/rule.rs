//! One rule, as an operator writes it: `GET /aggregation/v1/customers/{customerId}`.

use std::str::FromStr;

use http::Method;

use crate::vendor::catalogue::Catalogue;

/// The methods that rules can name: all that the proxy forwards.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Methods(u8);

impl Methods {
    const ALL: Self = Self((1 << METHODS.len()) - 1);

    /// The set of `method` alone; empty if rules cannot name it.
    pub(super) fn of(method: &Method) -> Self {
        METHODS.iter().position(|known| known == method).map_or(Self(0), |position| Self(1 << position))
    }

    /// Whether the sets have a method in common.
    pub(super) fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    pub(super) fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

/// A segment of a rule's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This segment only.
    Fixed(String),
    /// Any one segment: `{name}` or `*`.
    Any,
}

/// A pattern for calls: a method, or `*` for all methods, and a path. In the path, `{name}` or `*` matches one segment, and `**` at the
/// end matches zero or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) methods: Methods,
    pub(super) segments: Vec<Segment>,
    /// Whether the rule also matches all paths below its own.
    pub(super) is_prefix: bool,
}

impl Rule {
    /// Adds HEAD if the rule matches GET.
    pub(super) fn with_head(&self) -> Self {
        let mut rule = self.clone();
        if rule.methods.has(Methods::of(&Method::GET)) {
            rule.methods.add(Methods::of(&Method::HEAD));
        }
        rule
    }

    /// Whether the rule matches any operation of `catalogue`. If not, it is a typo, or for a call that the catalogue does not have.
    pub fn matches_some_of(&self, catalogue: &'static Catalogue) -> bool {
        catalogue.operations().any(|operation| {
            let method =
                Method::from_bytes(operation.method().as_bytes()).expect("the methods of a catalogue are valid");
            self.methods.has(Methods::of(&method)) && self.may_match(operation.template())
        })
    }

    /// Whether the rule matches some path of `template`.
    fn may_match(&self, template: &str) -> bool {
        let mut given = segments(template);
        let each = self.segments.iter().all(|own| match (own, given.next()) {
            (_, None) => false,
            (Segment::Any, Some(_)) => true,
            (Segment::Fixed(own), Some(given)) => own == given || given.starts_with('{'),
        });
        each && (self.is_prefix || given.next().is_none())
    }
}

impl FromStr for Rule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let Some((method, path)) = text.trim().split_once(' ') else {
            return Err("must be a method, or *, and a path, such as \"GET /aggregation/v1/customers/{customerId}\"");
        };
        let methods = match method {
            "*" => Methods::ALL,
            method => Method::from_bytes(method.as_bytes()).map(|method| Methods::of(&method)).unwrap_or_default(),
        };
        if methods == Methods::default() {
            return Err("must begin with * or one of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS");
        }
        let path = path.trim_start();
        if !path.starts_with('/') {
            return Err("must have a path that begins with /");
        }
        let (path, is_prefix) = path.strip_suffix("/**").map_or((path, false), |path| (path, true));
        let segments = segments(path).map(segment).collect::<Option<_>>().ok_or(
            "must have path segments of letters, digits, - and _, or {name} or * as a whole segment; ** is allowed only at the end",
        )?;
        Ok(Self { methods, segments, is_prefix })
    }
}

fn segment(text: &str) -> Option<Segment> {
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let placeholder = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    if text == "*" || placeholder.is_some_and(is_name) {
        return Some(Segment::Any);
    }
    is_name(text).then(|| Segment::Fixed(text.to_owned()))
}

/// The segments of `path`; the root has none.
pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').take(if path.is_empty() { 0 } else { usize::MAX })
}
