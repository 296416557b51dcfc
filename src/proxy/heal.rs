//! Healing: what to do about a 401 that says that the token is no longer good.

pub mod verdict;
