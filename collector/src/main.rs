//! inquest
fn main() {}
