//! The collector.
#![allow(missing_docs)]
pub mod logs;
