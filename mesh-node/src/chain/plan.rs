//! Decides what has to change in the configuration directory.
//!
//! In:  what the directory holds, what is wanted.
//! Out: [`Plan`]: the changes in their order, and what then holds.
//! Invariant: pure. Whoever is removed from one place is in the other already, so no pod is added without the plugin.
//! Invariant: a file that cannot be understood is left alone, and so is all that belongs to it.
//! Source: `loadFromConfDir` of containerd's go-cni: the first file by name that ends in .conf, .conflist or .json counts.

use super::entry::{Entry, PLUGIN, is_drop_in};
use super::list::{List, ListError};
use super::method::Method;
use std::collections::BTreeMap;

/// What the configuration directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Files that a runtime would read, by name.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Our files in directories of networks, by network.
    pub(super) drop_ins: BTreeMap<String, Vec<u8>>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The plugin is in the chain of the primary network.
    Installed {
        method: Method,
        /// May the method give way to another that works?
        firm: bool,
        entry: Entry,
    },
    /// It is in no chain.
    Removed,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    WriteDropIn {
        network: String,
        text: String,
    },
    RemoveDropIn {
        network: String,
    },
    /// `seen` is what the file held when this was decided.
    WriteList {
        file: String,
        seen: Vec<u8>,
        text: String,
    },
}

/// Whether the plugin is in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody asked for it yet.
    Idle,
    /// No network is configured yet.
    Waiting,
    /// It is in the chain.
    Installed {
        /// How.
        method: Method,
        /// The network's name.
        network: String,
    },
    /// It cannot be put there; what was there is left.
    Refused {
        /// The file at fault.
        file: String,
        /// What is wrong with it, and the cure where it is known.
        problem: String,
    },
    /// It was taken out.
    Removed,
}

/// What to do, and what then holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) state: State,
}

/// What has to change.
pub(super) fn plan(seen: &Seen, wanted: &Wanted) -> Plan {
    match wanted {
        Wanted::Removed => Plan { changes: clear(seen, None, None), state: State::Removed },
        Wanted::Installed { method, firm, entry } => install(seen, *method, *firm, entry),
    }
}

fn install(seen: &Seen, method: Method, firm: bool, entry: &Entry) -> Plan {
    let Some((file, bytes)) = seen.files.first_key_value() else {
        return Plan { changes: Vec::new(), state: State::Waiting };
    };
    let refused = |problem: String| Plan { changes: Vec::new(), state: State::Refused { file: file.clone(), problem } };
    if !file.ends_with(".conflist") {
        return refused(format!(
            "it configures a single plugin, and the runtime chains {PLUGIN} only in a list: \
             write it as a .conflist with `plugins`"
        ));
    }
    let list = match List::parse(bytes) {
        Ok(list) => list,
        Err(error) => return refused(error.to_string()),
    };
    let method = match method {
        Method::DropIn if list.inlined_only && firm => {
            return refused("it has loadOnlyInlinedPlugins, so no drop-in is read: set --chain to conflist".to_owned());
        }
        Method::DropIn if list.inlined_only => Method::Conflist,
        Method::DropIn | Method::Conflist => method,
    };
    let installed = match method {
        Method::DropIn => write_drop_in(seen, &list, entry),
        Method::Conflist => match write_list(file, bytes, &list, entry) {
            Ok(change) => change,
            Err(problem) => return refused(problem),
        },
    };
    let network = list.name.clone();
    let (in_list, drop_in) = match method {
        Method::DropIn => (None, Some(network.as_str())),
        Method::Conflist => (Some(file.as_str()), None),
    };
    let changes = installed.into_iter().chain(clear(seen, in_list, drop_in)).collect();
    Plan { changes, state: State::Installed { method, network } }
}

fn write_drop_in(seen: &Seen, list: &List<'_>, entry: &Entry) -> Option<Change> {
    let text = entry.drop_in(&list.name, list.version);
    let there = seen.drop_ins.get(&list.name).is_some_and(|bytes| bytes == text.as_bytes());
    (!there).then(|| Change::WriteDropIn { network: list.name.clone(), text })
}

fn write_list(file: &str, bytes: &[u8], list: &List<'_>, entry: &Entry) -> Result<Option<Change>, String> {
    let entry = entry.inline();
    if list.entry().as_ref() == Some(&entry) {
        return Ok(None);
    }
    let text = list.with(&entry).ok_or("it has no plugin that ours could follow")?;
    Ok(Some(Change::WriteList { file: file.to_owned(), seen: bytes.to_owned(), text }))
}

/// Takes the plugin out of everything but one list and one network's directory.
fn clear(seen: &Seen, in_list: Option<&str>, drop_in: Option<&str>) -> Vec<Change> {
    let lists = seen.files.iter().filter(|(file, _)| file.ends_with(".conflist") && Some(file.as_str()) != in_list);
    let lists = lists.filter_map(|(file, bytes)| {
        let list = List::parse(bytes).ok().filter(List::has_entry)?;
        Some(Change::WriteList { file: file.clone(), seen: bytes.clone(), text: list.without() })
    });
    let drop_ins =
        seen.drop_ins.iter().filter(|(network, bytes)| Some(network.as_str()) != drop_in && is_drop_in(bytes));
    let drop_ins = drop_ins.map(|(network, _)| Change::RemoveDropIn { network: network.clone() });
    lists.chain(drop_ins).collect()
}

/// Is a list perhaps only being written?
pub(super) fn is_unsettled(seen: &Seen) -> bool {
    let first = seen.files.first_key_value().filter(|(file, _)| file.ends_with(".conflist"));
    first.is_some_and(|(_, bytes)| matches!(List::parse(bytes), Err(ListError::Decode(_))))
}
