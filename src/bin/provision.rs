//! Not written yet: says so.
fn main() {}
