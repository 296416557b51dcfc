//! The chain of sources of an error.

use std::{error::Error, io, iter};

/// A body error of any type.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// `error` and its sources, outermost first. Includes the error wrapped in an `io::Error`, which `source` skips.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// The first error of type `E` in the chain of `error`.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// The chain as one line: `TCP connect failed: connection refused`. A source with the same text as the error before it is omitted.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut causes: Vec<String> = chain(error).map(ToString::to_string).collect();
    causes.dedup();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("inner {0}")]
    struct Inner(u8);

    #[test]
    fn the_source_in_an_io_error_is_found_and_reported_once() {
        let error = Outer(io::Error::other(Inner(7)));
        assert_eq!(find::<Inner>(&error), Some(&Inner(7)));
        assert_eq!(find::<std::fmt::Error>(&error), None);
        assert_eq!(one_line(&error), "outer: inner 7");
    }
}
