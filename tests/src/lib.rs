//! Whole-system tests: what they share.

pub mod catalogue;
pub mod cluster;
