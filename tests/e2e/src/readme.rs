//! The snippets of the README files, compiled as documentation tests.

#[doc = include_str!("../../../README.md")]
mod project {}
#[doc = include_str!("../../../core/README.md")]
mod core {}
#[doc = include_str!("../../../adapters/blocking/README.md")]
mod blocking {}
#[doc = include_str!("../../../adapters/fjall/README.md")]
mod fjall {}
#[doc = include_str!("../../../adapters/server/README.md")]
mod server {}
#[doc = include_str!("../../../adapters/tokio/README.md")]
mod tokio {}
#[doc = include_str!("../../sim/README.md")]
mod sim {}
