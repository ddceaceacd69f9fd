//! The collector.

pub mod logs;
