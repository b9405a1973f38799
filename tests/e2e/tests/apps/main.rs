//! The apps among the examples: each as two real processes at a real server, one of them offline in the
//! middle.
#![allow(missing_docs, clippy::unwrap_used)]

mod chat;
mod dashboard;
mod game;
mod support;
mod todo;
mod web;
