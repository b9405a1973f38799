//! The vocabulary: values and codecs on which everything else is built. It depends on nothing else
//! in the crate.

pub(crate) mod codec;
pub mod delta;
pub mod document;
pub mod hash;
pub(crate) mod json;
pub mod limits;
pub mod message;
pub mod name;
pub mod percent;
pub mod random;
pub(crate) mod rest;
pub mod time;
pub mod times;
pub mod wire;
pub mod write;
