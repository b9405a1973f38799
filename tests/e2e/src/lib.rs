//! Support for the tests that need adapters, real sockets, processes or other people's servers.

#[cfg(doctest)]
mod readme;
