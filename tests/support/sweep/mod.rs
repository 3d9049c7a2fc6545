//! The sweep's parts: see `tests/sweep.rs`.

pub mod case;
pub mod lane;
pub mod work;
pub mod worker;
