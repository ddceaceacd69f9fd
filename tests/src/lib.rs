//! Whole-system tests: what they share.

pub mod cluster;
pub mod host;
