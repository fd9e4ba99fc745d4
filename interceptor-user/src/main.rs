//! The binary `interceptor`.
fn main() {}
