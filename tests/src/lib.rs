//! Whole-system tests.

pub mod generate;
