//! A directory of ordinary Kubernetes YAML as a source of objects.
//!
//! In:  every `*.yaml`, `*.yml` and `*.json` below a directory, and its changes.
//! Out: `world::Change`s; `Synced(Objects)` after the first full read.
//! Invariant: what is in force depends on the files' content alone. Of an object in two files the first by path
//! holds. A file that cannot be read keeps what it held before.
//! Source: `kubectl apply -R -f` for what such a directory is.

mod contents;
mod parse;
mod watch;

pub use parse::parse_documents;
pub use watch::{Config, FileError, Tree, Watching, read_once, read_stream, watch};
