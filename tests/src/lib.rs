//! Whole-system tests.

pub mod host;
