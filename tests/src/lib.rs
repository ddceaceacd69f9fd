//! Whole-system tests: what they share.

pub mod artefacts;
pub mod catalogue;
pub mod cluster;
pub mod host;
