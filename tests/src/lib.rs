//! Whole-system tests: what several test files and the demo share.

pub mod agent;
pub mod artefacts;
pub mod catalogue;
pub mod children;
pub mod classes;
pub mod cluster;
pub mod evidence;
pub mod generate;
pub mod host;
pub mod machine;
pub mod mounts;
pub mod random;
pub mod skip;
pub mod stores;
pub mod trace;
pub mod transcript;
pub mod versions;
