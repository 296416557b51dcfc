//! An entry of the routing tables: an operation and its handler.

use super::{call::Call, reply::Outcome, world::World};

/// Implements an operation.
pub(super) type Handler = fn(&mut World, &Call) -> Outcome;

/// An operation and its handler.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) template: &'static str,
    pub(super) handler: Handler,
    /// The query parameters, in the notation of `validate`.
    pub(super) query: &'static str,
    /// The members of the body, in the same notation; `None` if the operation reads no body.
    pub(super) body: Option<&'static str>,
}

impl Route {
    /// An operation without parameters.
    pub(super) const fn new(method: &'static str, template: &'static str, handler: Handler) -> Self {
        Self { method, template, handler, query: "", body: None }
    }

    /// Sets the query parameters.
    pub(super) const fn query(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    /// Sets the members of the body.
    pub(super) const fn body(mut self, body: &'static str) -> Self {
        self.body = Some(body);
        self
    }
}
