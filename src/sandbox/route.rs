//! An operation, as a subject's table lists it.

use super::{call::Call, reply::Outcome, world::World};

/// What an operation does.
pub(super) type Handler = fn(&mut World, &Call) -> Outcome;

/// One operation.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) template: &'static str,
    pub(super) handler: Handler,
    /// What the query must have, in the notation of `validate`.
    pub(super) query: &'static str,
    /// What the body must have, in the same notation; `None` where the operation reads none.
    pub(super) body: Option<&'static str>,
}

impl Route {
    /// An operation without a body of its own.
    pub(super) const fn new(method: &'static str, template: &'static str, handler: Handler) -> Self {
        Self { method, template, handler, query: "", body: None }
    }

    /// The same with these parameters in its query.
    pub(super) const fn query(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    /// The same with these members in its body.
    pub(super) const fn body(mut self, body: &'static str) -> Self {
        self.body = Some(body);
        self
    }
}
